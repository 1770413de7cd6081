"""A result to look at: one static page, without a network or a server."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined

PAGE = "index.html"
ROWS = 48
"""Rows in the document at a time; those of the first page are there without JavaScript."""


class Row(NamedTuple):
    """Pictures that are shown side by side."""

    name: str
    pictures: Sequence[str]
    """Paths below the page's folder, a column each; empty where there is none."""
    size: tuple[int, int]
    """Height and width, pixels."""
    l1: float | None = None


def write(
    folder: Path,
    rows: Sequence[Row],
    title: str,
    facts: Mapping[str, str],
    *,
    columns: Sequence[str] = ("input", "output", "target"),
) -> Path:
    """Write `folder/index.html` and return its path. Every text may be anything: it is shown, never run.

    The page holds a line for each row, and the browser only those of one page: thousands are fine. A column in
    which no row has a picture is left out.
    """
    used = [at for at in range(len(columns)) if any(row.pictures[at] for row in rows)]
    page = _template().render(
        title=title, facts=facts, per_page=ROWS, rows=[_shown(row, used) for row in rows],
        columns=[columns[at] for at in used], rated=any(row.l1 is not None for row in rows),
    )  # fmt: skip
    path = Path(folder) / PAGE
    aside = path.with_name(f".{PAGE}.tmp")
    aside.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")
    return aside.replace(path)


def _template() -> Any:
    source = resources.files("p2p").joinpath("gallery.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source)


def _shown(row: Row, columns: Sequence[int]) -> dict[str, Any]:
    """A row as the page's script reads it."""
    H, W = row.size
    links = [quote(row.pictures[at], errors="surrogateescape") for at in columns]
    return {"name": row.name, "links": links, "w": W, "h": H, "l1": row.l1}
