"""What can be packed: side-by-side pictures, two folders, photographs, label maps. A sample read, checked, encoded."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import gt
from typing import Literal, NamedTuple

from PIL import Image

from p2p.data.encoded import decode
from p2p.data.format import Layout
from shards.edges import detector
from shards.jpeg import glance
from shards.listing import Sample
from shards.maps import look_instances, look_labels
from shards.pictures import Picture, look, plain, png
from shards.trees import File, Reader
from shards.writer import run_bytes

Form = Literal["pairs", "folders", "photos", "labels"]

SIDES: dict[Form, tuple[str, ...]] = {
    "pairs": ("ab",), "folders": ("a", "b"), "photos": ("b",), "labels": ("a", "inst", "b"),
}  # fmt: skip
"""The member that each file of a sample becomes; the `a` of photos is drawn."""
TITLES = {"a": "input", "inst": "instance map", "b": "target"}
TITLES_OF_LABELS = {"a": "label map", "inst": "instance map", "b": "photo"}
DRAWN = 4
"""Edges are reckoned as a fourth of their photograph's bytes, before they are drawn."""


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
    edges: str = ""
    """File with the weights of the network that draws the edges of photos; empty: Canny."""
    edges_sha256: str = ""
    """Of that file, in hexadecimal."""
    append: bool = False
    """The samples join a set that is there."""
    channels: tuple[int, int] = (0, 0)
    """At most, of x and y, those of that set; (0, 0): any."""

    @property
    def sides(self) -> tuple[str, ...]:
        """Those of `SIDES` that this set has."""
        return tuple(side for side in SIDES[self.form] if side != "inst" or self.instances)

    @property
    def draw(self) -> Callable[[Image.Image], Image.Image]:
        """Draws the edges of a photograph."""
        return detector(self.edges, self.sigma)

    def title(self, side: str) -> str:
        """What a side is called."""
        return (TITLES_OF_LABELS if self.classes else TITLES)[side]


class Good(NamedTuple):
    """A sample that can be packed."""

    pictures: tuple[Picture, ...]
    members: dict[str, bytes]
    """By extension, in the order of the tar."""


def make(settings: Settings, readers: tuple[Reader, ...], sample: Sample) -> Good | str:
    """Read a sample, find all that a full decode finds, and encode what cannot stay as it is; or say what is wrong.

    Raises:
        ValueError: a file is not the one that was listed.
    """
    pictures, members = [], {}
    for reader, file, side in zip(readers, sample.files, settings.sides, strict=True):
        try:
            data = reader.read(file)
        except OSError as error:
            return f"{_which(settings, sample, file, side)}cannot be read ({error.strerror})"
        try:
            picture, kept = _look(settings, side, data)
            if settings.form == "photos":
                members["a.png"] = png(settings.draw(plain(decode(data))))
        except ValueError as error:
            return f"{_which(settings, sample, file, side)}{error}"
        pictures.append(picture)
        members[f"{side}.{picture.extension}"] = kept
    return misfit(settings, pictures) or Good(
        tuple(pictures), members | {"json": _origin([file.name for file in sample.files])}
    )


def _origin(names: list[str]) -> bytes:
    return json.dumps({"source": names[0] if len(names) == 1 else names}).encode()


def reckon(settings: Settings, files: list[tuple[str, int]]) -> int:
    """Bytes of a sample in the tar by names and sizes of its files: exact, unless some are converted or drawn."""
    names, sizes = [name for name, _ in files], [size for _, size in files]
    drawn = [sizes[0] // DRAWN] if settings.form == "photos" else []
    return run_bytes([*drawn, *sizes, len(_origin(names))])


def _which(settings: Settings, sample: Sample, file: File, side: str) -> str:
    """Which of a sample's files a reason is about; the sample goes by the name of the first."""
    if len(sample.files) == 1:
        return ""
    return f"{settings.title(side)}{'' if file.name == sample.files[0].name else f' {file.name}'}: "


def _look(settings: Settings, side: str, data: bytes) -> tuple[Picture, bytes]:
    if side == "inst":
        return look_instances(data)
    if side == "a" and settings.classes:
        return look_labels(data, settings.classes)
    if picture := glance(data):
        return picture, data
    return look(decode(data), data)


def misfit(settings: Settings, pictures: list[Picture]) -> str:
    """Why decoded pictures make no sample; empty if they do."""
    if settings.form == "pairs" and pictures[0].width % 2:
        return f"width {pictures[0].width} is odd; it must be twice the width of one side"
    sizes = [side_size(settings, picture) for picture in pictures]
    if len(set(sizes)) > 1:
        each = (f"{settings.title(side)} is {_text(size)}" for side, size in zip(settings.sides, sizes, strict=True))
        return f"{', '.join(each)}; they must be equal"
    if settings.size not in ((0, 0), sizes[0]):
        return f"one side is {_text(sizes[0])}, --size says {_text(settings.size)}"
    if any(settings.channels) and any(map(gt, have := channels(settings, pictures), settings.channels)):
        return f"its sides have {_and(have)} channels, those of the set {_and(settings.channels)}"
    return ""


def channels(settings: Settings, pictures: Sequence[Picture]) -> tuple[int, int]:
    """Of x and of y."""
    return 1 if settings.form == "photos" else pictures[0].channels, pictures[-1].channels


def _and(numbers: tuple[int, int]) -> str:
    return f"{numbers[0]} and {numbers[1]}"


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def side_size(settings: Settings, picture: Picture) -> tuple[int, int]:
    """(height, width) of one side, pixels."""
    return picture.height, picture.width // (2 if settings.form == "pairs" else 1)
