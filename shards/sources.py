"""What can be packed: side-by-side pictures, two folders, photographs. Checking a sample, and its members."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from p2p.data.encoded import decode
from p2p.data.format import Layout
from shards.edges import draw_edges
from shards.listing import File, Sample
from shards.pictures import Picture, look, plain, png
from shards.writer import tar_sample

Form = Literal["pairs", "folders", "photos"]

SIDES: dict[Form, tuple[str, ...]] = {"pairs": ("ab",), "folders": ("a", "b"), "photos": ("b",)}
"""The member that each file of a sample becomes; the `a` of photos is drawn."""


@dataclass(frozen=True)
class Settings:
    """All that decides, beside the files, what is written."""

    form: Form
    layout: Layout
    seed: int
    samples: int
    """In one shard; 0: `bytes` decides."""
    bytes: int
    """At most, in one shard; 0: `samples` decides."""
    val: int
    size: tuple[int, int]
    """Expected (height, width) of one side; (0, 0): any."""
    sigma: float


class Good(NamedTuple):
    """What the check of a sample found."""

    pictures: tuple[Picture, ...]
    bytes: int
    """In the tar; 0 where the number of samples decides, as it is not asked for then."""


def read(root: Path, file: File) -> bytes:
    """The bytes of a file that must still be the one that was listed.

    Raises:
        ValueError: it has changed or vanished.
        OSError: it cannot be read.
    """
    try:
        with open(root / file.name, "rb") as source:
            data, status = source.read(), os.fstat(source.fileno())
    except FileNotFoundError:
        raise ValueError(f"{root / file.name}: vanished while it was packed; restore it and try again") from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(root / file.name)) from error
    if (len(data), status.st_mtime_ns) != (file.size, file.mtime_ns):
        raise ValueError(f"{root / file.name}: changed while it was packed; delete the output and pack again")
    return data


def check(settings: Settings, roots: tuple[Path, ...], sample: Sample) -> Good | str:
    """Decode a sample in full: what it is, or the reason why it cannot be packed."""
    pictures = []
    for root, file, side in zip(roots, sample.files, ("input: ", "target: "), strict=False):
        try:
            data = read(root, file)
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        try:
            pictures.append(look(decode(data)))
        except ValueError as error:
            return f"{side if len(roots) == 2 else ''}{error}"
    if reason := _misfit(settings, pictures):
        return reason
    good = Good(tuple(pictures), 0)
    if settings.bytes:
        good = Good(good.pictures, len(tar_sample(sample.key, members(settings, roots, sample, good))))
    return good


def _misfit(settings: Settings, pictures: list[Picture]) -> str:
    if settings.form == "pairs" and pictures[0].width % 2:
        return f"width {pictures[0].width} is odd; it must be twice the width of one side"
    sizes = [side_size(settings, picture) for picture in pictures]
    if sizes[0] != sizes[-1]:
        return f"input is {_text(sizes[0])}, target is {_text(sizes[-1])}; they must be equal"
    if settings.size not in ((0, 0), sizes[0]):
        return f"one side is {_text(sizes[0])}, --size says {_text(settings.size)}"
    return ""


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def side_size(settings: Settings, picture: Picture) -> tuple[int, int]:
    """(height, width) of one side, pixels."""
    return picture.height, picture.width // (2 if settings.form == "pairs" else 1)


def members(settings: Settings, roots: tuple[Path, ...], sample: Sample, good: Good) -> dict[str, bytes]:
    """The members of a sample by extension, in the order of the tar.

    Raises:
        ValueError: a file is not the one that was checked.
    """
    result = {}
    for side, root, file, picture in zip(SIDES[settings.form], roots, sample.files, good.pictures, strict=True):
        data = read(root, file)
        if settings.form == "photos":
            result["a.png"] = png(draw_edges(plain(decode(data)), sigma=settings.sigma))
        result[f"{side}.{picture.extension}"] = png(plain(decode(data))) if picture.converted else data
    names = [file.name for file in sample.files]
    result["json"] = json.dumps({"source": names[0] if len(names) == 1 else names}).encode()
    return result
