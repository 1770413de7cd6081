"""Settings: dataclasses are the schema, a YAML file says what differs, and every mistake is one line."""

import difflib
import inspect
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform, get_type_hints

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.dataclasses import dataclass

T = TypeVar("T")
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def settings(cls: type[T]) -> type[T]:
    """A frozen dataclass that checks types and names strictly."""
    return dataclass(config=STRICT, frozen=True, kw_only=True)(cls)  # type: ignore[return-value]


Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Real = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


@settings
class Data:
    """What is read, and in which order."""

    train: str
    """Folder of training shards, with its index.json."""
    val: str = ""
    """Folder of validation shards; empty for no validation."""
    batch: Positive = 1
    """Images per optimiser step over all ranks."""
    micro: Count = 0
    """Images per forward and backward on one rank; 0: all of the rank's share at once."""
    load: Count = 286
    """Resize to this side, pixels; equal to crop: no jitter; 0: do not resize."""
    crop: Positive = 256
    """Side of the random crop, pixels."""
    mirror: bool = True
    """Mirror half of the pairs."""
    reverse: bool = False
    """Train y -> x, where the shards say x -> y."""
    threads: Positive = 2
    """Readers of each rank; no part of the order."""
    max_bad: Fraction = 0.001
    """Share of the samples that may be unreadable before the run stops."""
    lanes: Count = 0
    """Lanes of the order, a multiple of batch; 0: the least multiple that is >= 1024."""
    block: Positive = 16
    """Consecutive samples read at once."""
    window: Positive = 2
    """Blocks that a lane mixes."""


@settings
class Part:
    """A named network or task; `settings` are the keyword arguments of its constructor."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)


@settings
class Optimizer:
    """Adam (Isola et al. 2017, section 3.3)."""

    lr: Real = 2e-4
    beta1: Fraction = 0.5
    beta2: Fraction = 0.999


@settings
class Schedule:
    """Length of the run, and the learning rate over it; see `p2p.schedule`."""

    name: Literal["constant", "linear", "port"] = "constant"
    epochs: Real = 200.0
    """Epochs at the full rate."""
    decay: Real = 0.0
    """Further epochs in which the rate falls to 0; none under `constant`."""


@settings
class Engine:
    """How the networks run; changes speed and rounding, never the mathematics."""

    precision: Literal["fp32", "bf16"] = "bf16"
    """bf16: autocast around the networks; losses and weights stay float32."""
    channels_last: bool = True
    compile: bool = False


@settings
class Ema:
    """Exponential average of G's weights, used for validation and translation."""

    half_life: Count = 0
    """Images; 0: none."""


@settings
class Inference:
    """How G is used after training; stored with it. The defaults are the paper's (section 3.3): dropout stays on,
    statistics are those of the one picture. The same seed gives the same picture."""

    dropout: bool = True
    seed: Count = 0
    statistics: Literal["batch", "running"] = "batch"
    """`running`: averages measured over training images when the generator is stored."""


@settings
class Every:
    """Images between two of each; 0: only at the end."""

    log: Count = 1000
    pictures: Count = 20_000
    validate: Count = 20_000
    save: Count = 100_000
    keep: Positive = 3
    """Newest checkpoints that are kept."""


@settings
class Config:
    """A whole experiment."""

    data: Data
    seed: Count = 0
    """Of weights, order, jitter, mirror and noise."""
    task: Part = Part(name="pix2pix")
    G: Part = Part(name="unet")
    D: Part = Part(name="patch")
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    engine: Engine = Engine()
    ema: Ema = Ema()
    inference: Inference = Inference()
    every: Every = Every()


DEFAULTS = {"task": "pix2pix", "G": "unet", "D": "patch"}
"""Sections that are a name and that name's own settings, written side by side in YAML; and the usual name."""


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, then apply overrides such as `data.batch=8`.

    Raises:
        ValueError: one line that names the file, the setting, what is wrong with it and the nearest valid one.
    """
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); give a file of configs/") from error
    tree = _parse(text, str(path))
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: holds no settings; see configs/ for examples")
    for override in overrides:
        _override(tree, override)
    return from_tree(tree, str(path))


def from_tree(tree: dict[str, Any], where: str = "config") -> Config:
    """Check a tree of plain values against the schema.

    Raises:
        ValueError: as `load`.
    """
    tree = dict(tree)
    for part in DEFAULTS:
        if isinstance(tree.get(part), dict):
            values = dict(tree[part])
            tree[part] = {"name": values.pop("name", DEFAULTS[part]), "settings": values}
    try:
        return TypeAdapter(Config).validate_json(json.dumps(tree))
    except ValidationError as error:
        raise ValueError(f"{where}: {_one_line(error, Config)}") from error


def to_tree(config: Config) -> dict[str, Any]:
    """The whole of a config as plain values, in the form that `from_tree` reads."""
    tree: dict[str, Any] = TypeAdapter(Config).dump_python(config)
    for part in DEFAULTS:
        tree[part] = {"name": tree[part]["name"], **tree[part]["settings"]}
    return tree


def dump(config: Config) -> str:
    """YAML of every setting, defaults included."""
    return yaml.safe_dump(to_tree(config), sort_keys=False)


def checked(constructor: Callable[..., Any], given: dict[str, Any], where: str) -> dict[str, Any]:
    """Check settings against a constructor's keyword-only parameters: its signature is the schema.

    Raises:
        ValueError: one line that names the setting as `where.name`.
    """
    hints = get_type_hints(vars(constructor)["__init__"] if isinstance(constructor, type) else constructor)
    parameters = [p for p in inspect.signature(constructor).parameters.values() if p.kind is p.KEYWORD_ONLY]
    types: dict[str, Any] = {p.name: (hints[p.name], p.default) for p in parameters}
    model = create_model("Settings", __config__=STRICT, **types)
    try:
        valid = model.model_validate_json(json.dumps(given))
    except ValidationError as error:
        raise ValueError(_one_line(error, model, f"{where}.")) from error
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


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{where}{line}: not valid YAML ({error.problem})") from error


def _override(tree: dict[str, Any], override: str) -> None:
    name, equals, value = override.partition("=")
    if not equals or not name:
        raise ValueError(f"--set {override}: write it as section.name=value, for example data.batch=8")
    *sections, last = name.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise ValueError(f"--set {override}: {section} is a value, not a section")
    tree[last] = _parse(value, f"--set {override}")


def _one_line(error: ValidationError, schema: Any, prefix: str = "") -> str:
    """The first mistake of a validation as `section.name: what; remedy`."""
    unknown = ("unexpected_keyword_argument", "extra_forbidden")
    first = min(error.errors(), key=lambda e: e["type"] not in unknown)  # a misspelt name also leaves one missing
    location = [str(part) for part in first["loc"] if part != "settings"]
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
    return f"{name}: {first['msg'][0].lower()}{first['msg'][1:]}{got}"


def _names(schema: Any, location: list[str]) -> list[str]:
    """Valid names at a place in the schema."""
    for step in location:
        schema = get_type_hints(schema)[step]
    return [f.name for f in fields(schema)] if is_dataclass(schema) else list(schema.model_fields)
