"""Names of pictures in a result: each its own, and none that leads anywhere else."""

import os
from itertools import chain, count

from p2p.data.encoded import EXTENSIONS

PART_BYTES = 200
"""Longest part of a name; file systems allow 255 with what is put before and after it."""
ZERO_WIDTH_JOINER = "\u200d"
"""Unprintable, but part of some emoji and scripts."""


class Names:
    """Gives every picture a name of its own, which as a path stays below any folder it is put in."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, name: str) -> str:
        """The picture's own name without its extension; with it, or with a number, where that one is taken."""
        full = safe(name)
        stem, extension = os.path.splitext(full)
        own = [stem, full] if extension.lower() in EXTENSIONS else [full]
        numbered = (f"{full}-{number}" for number in count(2))
        # casefold: apart on file systems that do not tell A from a, too
        free = next(one for one in chain(own, numbered) if one.casefold() not in self._taken)
        self._taken.add(free.casefold())
        return free


def safe(name: str) -> str:
    """A name as a relative path: no root, no `..`, no control characters, no part longer than a file system takes."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    *folders, last = map(_safe_part, parts or ["picture"])
    # A folder x.png would stand where the picture of the name x goes.
    return "/".join([*(f"{f}_" if f.lower().endswith(".png") else f for f in folders), last])


def _safe_part(part: str) -> str:
    plain = "".join(c if c.isprintable() or c == ZERO_WIDTH_JOINER else "_" for c in part)
    return plain.encode()[:PART_BYTES].decode(errors="ignore")
