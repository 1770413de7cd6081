"""What can be packed: side-by-side pictures, two folders, photographs, label maps. Checking a sample; its members."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from p2p.data.encoded import decode, decode_ids
from p2p.data.format import Layout
from shards.edges import draw_edges
from shards.listing import File, Sample
from shards.maps import look_instances, look_labels, write_ids
from shards.pictures import Picture, look, plain, png
from shards.writer import tar_sample

Form = Literal["pairs", "folders", "photos", "labels"]

SIDES: dict[Form, tuple[str, ...]] = {
    "pairs": ("ab",), "folders": ("a", "b"), "photos": ("b",), "labels": ("a", "inst", "b"),
}  # fmt: skip
"""The member that each file of a sample becomes; the `a` of photos is drawn."""
TITLES = {"a": "input", "inst": "instance map", "b": "target"}
TITLES_OF_LABELS = {"a": "label map", "inst": "instance map", "b": "photo"}


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
    classes: int = 0
    """x is a label map with the numbers 0 to classes - 1; 0: x is a picture."""
    instances: bool = False
    """There is an instance map beside each pair."""

    @property
    def sides(self) -> tuple[str, ...]:
        """Those of `SIDES` that this set has."""
        return tuple(side for side in SIDES[self.form] if side != "inst" or self.instances)

    def title(self, side: str) -> str:
        """What a side is called."""
        return (TITLES_OF_LABELS if self.classes else TITLES)[side]


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
    for root, file, side in zip(roots, sample.files, settings.sides, strict=True):
        try:
            data = read(root, file)
        except OSError as error:
            return f"{_which(settings, sample, file, side)}cannot be read ({error.strerror})"
        try:
            pictures.append(_look(settings, side, data))
        except ValueError as error:
            return f"{_which(settings, sample, file, side)}{error}"
    if reason := _misfit(settings, pictures):
        return reason
    good = Good(tuple(pictures), 0)
    if settings.bytes:
        good = Good(good.pictures, len(tar_sample(sample.key, members(settings, roots, sample, good))))
    return good


def _which(settings: Settings, sample: Sample, file: File, side: str) -> str:
    """Which of a sample's files a reason is about; the sample goes by the name of the first."""
    if len(sample.files) == 1:
        return ""
    return f"{settings.title(side)}{'' if file.name == sample.files[0].name else f' {file.name}'}: "


def _is_map(settings: Settings, side: str) -> bool:
    return side == "inst" or (side == "a" and settings.classes > 0)


def _look(settings: Settings, side: str, data: bytes) -> Picture:
    if not _is_map(settings, side):
        return look(decode(data))
    return look_instances(data) if side == "inst" else look_labels(data, settings.classes)


def _misfit(settings: Settings, pictures: list[Picture]) -> str:
    if settings.form == "pairs" and pictures[0].width % 2:
        return f"width {pictures[0].width} is odd; it must be twice the width of one side"
    sizes = [side_size(settings, picture) for picture in pictures]
    if len(set(sizes)) > 1:
        each = (f"{settings.title(side)} is {_text(size)}" for side, size in zip(settings.sides, sizes, strict=True))
        return f"{', '.join(each)}; they must be equal"
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
    for side, root, file, picture in zip(settings.sides, roots, sample.files, good.pictures, strict=True):
        data = read(root, file)
        if settings.form == "photos":
            result["a.png"] = png(draw_edges(plain(decode(data)), sigma=settings.sigma))
        result[f"{side}.{picture.extension}"] = _anew(settings, side, data) if picture.converted else data
    names = [file.name for file in sample.files]
    result["json"] = json.dumps({"source": names[0] if len(names) == 1 else names}).encode()
    return result


def _anew(settings: Settings, side: str, data: bytes) -> bytes:
    return write_ids(decode_ids(data)) if _is_map(settings, side) else png(plain(decode(data)))
