"""Strict reading: a YAML text, a dataclass or a constructor as the schema, and every mistake in one line."""

import difflib
import inspect
import json
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, dataclass_transform, get_args, get_origin, get_type_hints

import yaml
from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic.dataclasses import dataclass

T = TypeVar("T")
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def settings(cls: type[T]) -> type[T]:
    """A frozen dataclass that checks types and names strictly."""
    return dataclass(config=STRICT, frozen=True, kw_only=True)(cls)  # type: ignore[return-value]


def validated(schema: type[T], tree: dict[str, Any]) -> T:
    """An object of `schema` from plain values.

    Raises:
        ValueError: one line that names the first mistake.
    """
    try:
        return TypeAdapter(schema).validate_json(json.dumps(tree), strict=True)
    except TypeError as error:  # YAML has dates and bytes, too
        raise ValueError(f"holds a value that is neither text, number, list nor section ({error})") from error
    except ValidationError as error:
        raise ValueError(one_line(error, schema)) from error


def one_or_two(least: int) -> BeforeValidator:
    """For a type that is one whole number or a list of two, none less than `least`."""

    def check(value: Any) -> Any:
        numbers = value if isinstance(value, list | tuple) and len(value) == 2 else [value]
        if not all(type(n) is int and least <= n < 2**31 for n in numbers):
            raise ValueError(f"should be a whole number from {least} on, or two of them as [height, width]")
        return tuple(numbers) if len(numbers) == 2 else value

    return BeforeValidator(check)


def byte_count() -> BeforeValidator:
    """For a whole number of bytes, which may be written as "20G": K, M, G or T are powers of 1,024."""

    def check(value: Any) -> Any:
        match = re.fullmatch(r"(\d+)([KMGT]?)", value) if isinstance(value, str) else None
        if match:
            return int(match[1]) << 10 * " KMGT".index(match[2] or " ")
        if type(value) is not int or value < 0:
            raise ValueError("should be a number of bytes, such as 500M or 20G")
        return value

    return BeforeValidator(check)


def checked(constructor: Callable[..., Any], given: dict[str, Any], where: str) -> dict[str, Any]:
    """Check settings against a constructor's keyword-only parameters: its signature is the schema.

    Raises:
        ValueError: one line that names the setting as `where.name`.
    """
    hints = get_type_hints(constructor.__init__ if isinstance(constructor, type) else constructor)  # type: ignore[misc]
    parameters = [p for p in inspect.signature(constructor).parameters.values() if p.kind is p.KEYWORD_ONLY]
    if bare := [p.name for p in parameters if p.name not in hints]:
        raise ValueError(f"{where}.{bare[0]}: has no type in the signature; annotate it, so that it can be checked")
    types: dict[str, Any] = {p.name: (hints[p.name], p.default) for p in parameters}
    model = create_model("Settings", __config__=STRICT, **types)
    try:
        valid = model.model_validate_json(json.dumps(given), strict=True)
    except ValidationError as error:
        raise ValueError(one_line(error, model, f"{where}.")) from error
    return {name: getattr(valid, name) for name in given}


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but `1e-4` is a number, and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.MarkedYAMLError(problem=f"'{twice[0]}' is given twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


def parse(text: str, where: str) -> Any:
    """The values of a YAML text.

    Raises:
        ValueError: it is none; names `where` and the line.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{where}{line}: not valid YAML ({error.problem})") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not valid YAML ({str(error).splitlines()[0]})") from error


def set_value(tree: dict[str, Any], override: str) -> None:
    """Apply `section.name=value`, the value as YAML, to a tree.

    Raises:
        ValueError: it is not of this form.
    """
    name, equals, value = override.partition("=")
    if not equals or not name:
        raise ValueError(f"--set {override}: write it as section.name=value, for example data.batch=8")
    *sections, last = name.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise ValueError(f"--set {override}: {section} is a value, not a section")
    tree[last] = parse(value, f"--set {override}")


def one_line(error: ValidationError, schema: Any, prefix: str = "") -> str:
    """The first mistake of a validation as `section.name: what; remedy`."""
    unknown = ("unexpected_keyword_argument", "extra_forbidden")
    first = min(error.errors(), key=lambda e: e["type"] not in unknown)  # a misspelt name also leaves one missing
    location = [str(part) for part in first["loc"] if part not in ("settings", "one", "several")]
    name = prefix + ".".join(location)
    if first["type"] in unknown:
        valid = _names(schema, location[:-1])
        near = difflib.get_close_matches(location[-1], valid, 1, 0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"valid are {', '.join(valid)}"
        return f"{name}: unknown setting; {hint}"
    if first["type"] in ("missing", "missing_argument"):
        return f"{name}: missing; it has no default"
    quote = (
        "; YAML reads no, off, yes and on as booleans, quotes keep the word" if isinstance(first["input"], bool) else ""
    )
    got = "" if isinstance(first["input"], dict) else f" (got {first['input']!r}{quote})"
    said = first["msg"].removeprefix("Value error, ")
    return f"{name}: {said[0].lower()}{said[1:]}{got}"


def _names(schema: Any, location: list[str]) -> list[str]:
    """Valid names at a place in the schema."""
    for step in location:
        if step.isdecimal():
            schema = next((a for a in get_args(schema) if get_origin(a) is tuple), schema)  # of `one | several`
        schema = get_args(schema)[0] if step.isdecimal() else get_type_hints(schema)[step]
    return [f.name for f in fields(schema)] if is_dataclass(schema) else list(schema.model_fields)
