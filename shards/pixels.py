"""The pictures of one sample, decoded in full: what is wrong with them, and what the target looks like."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from p2p.data.encoded import decode, decode_ids
from p2p.data.format import Index
from shards.roles import CALLED, Look, Roles, side_sizes

FLAT = 2.0
"""Standard deviation of gray, of 255, below which a picture counts as constant."""
LEVELS = np.arange(256)
SKETCH = 64
"""Side, pixels, to which a picture is brought before it is hashed: the hash sees 32, and resizes slowly."""

Wrong = list[tuple[str, str]]
"""Kinds of findings with what is wrong."""


def load_hash() -> Any:
    """ImageHash, which is optional, and slow to import.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import imagehash
    except ImportError as error:
        raise ValueError("--images: near duplicates need ImageHash; run `pip install p2p[verify]`") from error
    return imagehash


@dataclass(frozen=True)
class Pixels:
    """Examines samples of a set."""

    index: Index
    roles: Roles

    def examine(self, members: dict[str, bytes]) -> tuple[Wrong, int]:
        """What is wrong with a sample; and the perceptual hash of its target, 0 where it has none that tells."""
        wrong: Wrong = []
        looks: dict[str, Look] = {}
        sides: dict[str, Any] = {}
        for role, data in members.items():
            try:
                looks[role] = self.roles.look(role, data)
                sides |= self._decode(role, data)
            except ValueError as error:
                wrong.append(("decode", f"{CALLED[role]} {error}"))
        if wrong:
            return wrong, 0
        try:
            wrong += self._range(side_sizes(looks), {side: _channels(v) for side, v in sides.items()})
        except ValueError as error:
            wrong.append(("sides", str(error)))
        flat = {side: what for side, picture in sides.items() if (what := _flat(side, picture))}
        wrong += [("constant", what) for what in flat.values()] + self._labels(sides["a"])
        return wrong, 0 if "b" in flat else looks_like(sides["b"])

    def _decode(self, role: str, data: bytes) -> dict[str, Any]:
        """Sides by role: a picture, or the numbers of a map."""
        if self.roles.is_map(role):
            return {role: decode_ids(data)}
        picture = decode(data)
        if role != "ab":
            return {role: picture}
        half = picture.width // 2
        left, right = picture.crop((0, 0, half, picture.height)), picture.crop((half, 0, 2 * half, picture.height))
        return {"a": left, "b": right} if self.roles.layout == "left" else {"a": right, "b": left}

    def _range(self, size: tuple[int, int], channels: dict[str, int]) -> Wrong:
        least, most = self.index.smallest, self.index.largest
        wrong = []
        if any(not low <= side <= high for low, side, high in zip(least, size, most, strict=True)):
            wrong.append(("range", f"a side is {_text(size)}, the index says {_text(least)} to {_text(most)}"))
        for side, most_channels in zip("ab", self.index.channels, strict=True):
            if channels[side] > most_channels:
                wrong.append(("range", f"{CALLED[side]} has {channels[side]} channels, the index says {most_channels}"))
        return wrong

    def _labels(self, x: Any) -> Wrong:
        classes = self.roles.classes
        if not classes or (top := int(x.max())) < classes:
            return []
        return [("label", f"label {top} is not below the {classes} classes of the index")]


def _channels(side: Any) -> int:
    return 3 if isinstance(side, Image.Image) and side.mode not in ("1", "L", "LA") else 1


def _flat(side: str, picture: Any) -> str:
    """Whether a picture is near constant, in words; instance maps may be."""
    if side == "inst":
        return ""
    if isinstance(picture, np.ndarray):
        return f"all labels are {picture[0, 0]}" if (picture == picture[0, 0]).all() else ""
    counts = np.array(picture.convert("L").histogram())
    mean = np.average(LEVELS, weights=counts)
    flat = np.average((LEVELS - mean) ** 2, weights=counts) < FLAT**2
    return f"{CALLED[side]} is all of one gray, or nearly" if flat else ""


def looks_like(picture: Image.Image) -> int:
    """Perceptual hash of 64 bits (DCT); pictures that look alike differ in few bits."""
    sketch = picture.convert("L").resize((SKETCH, SKETCH), Image.Resampling.BOX)
    return int.from_bytes(np.packbits(load_hash().phash(sketch).hash).tobytes())


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
