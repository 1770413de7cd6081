"""Bytes as the members of a sample: a picture or a label map, its instance map, its target, all of one size."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from PIL import Image, ImageOps
from torch import Tensor

from p2p.data.augment import Augment, Size, sides
from p2p.data.encoded import decode, decode_ids, first_line
from p2p.data.shardset import ShardSet
from p2p.data.views import pixels
from p2p.spec import Spec

Members = dict[str, Tensor]
"""`x`; where they are known `y` and `instances`: `[C,H,W]` of one size, as `ShardSet.read` has them."""
CALLED = {"x": "input", "instances": "instance map", "y": "target"}


class Sample(NamedTuple):
    """A picture that was read."""

    name: str
    """Of its file in the result: a path with slashes that nobody has checked."""
    key: str
    """What it is called wherever it lies."""
    members: Members


class Beside(NamedTuple):
    """A folder with files that belong to the inputs, by key."""

    folder: Path
    files: Mapping[str, list[Path]]


@dataclass(frozen=True)
class Reader:
    """How bytes become members.

    Args:
        spec: what the members are for; a file is brought to its channels, a shard set has them.
        pairs: which half of a file is the input; empty: the file is the input.
        size: that the members of a file are resized to, pixels; 0: as they are.
        shard_size: the same for those of a shard set.
        reverse: a shard set's y is the input.
        beside: where `instances` and `y` of a file lie.
    """

    spec: Spec
    pairs: Literal["", "left", "right"] = ""
    size: Size = 0
    shard_size: Size = 0
    reverse: bool = False
    beside: Mapping[str, Beside] = field(default_factory=dict)

    def file(self, path: Path, name: str, key: str) -> Sample:
        """Read a file, and what lies beside it.

        Raises:
            ValueError: it cannot be used; says why.
        """
        members = self._input(_read(path))
        for member, beside in self.beside.items():
            members[member] = self._companion(member, beside, key, path)
        return Sample(name, key, self._fitted(members, self.size))

    def sample(self, shards: ShardSet, prefix: str, at: tuple[int, int]) -> Sample:
        """Read a sample of a shard set, `at` a shard and the number in it; raises as `file`."""
        key, members = shards.read(*at)
        if not wants_instances(self.spec):
            members.pop("instances", None)
        if self.spec.view.classes:
            check_labels(members["x"], self.spec.view.classes)
        return Sample(prefix + key, key, self._fitted(members, self.shard_size))

    def _input(self, data: bytes) -> Members:
        """The input, and the target where a picture is a pair."""
        x, y = self.spec.pictures
        if self.spec.view.classes:
            numbers = _numbers(data)
            check_labels(numbers, self.spec.view.classes)
            return {"x": numbers.to(torch.uint8)}
        image = _upright(data)
        if not self.pairs:
            return {"x": pixels(image, x)}
        left, right = halves(image)
        seen, target = (left, right) if self.pairs == "left" else (right, left)
        return {"x": pixels(seen, x), "y": pixels(target, y)}

    def _companion(self, member: str, beside: Beside, key: str, path: Path) -> Tensor:
        found = [one for one in beside.files.get(key, []) if one != path]  # in Cityscapes' folders all lie together
        if len(found) != 1:
            several = f"several ({', '.join(one.name for one in found)})" if found else "none"
            raise ValueError(f"needs one {CALLED[member]} {key} in {beside.folder}; there is {several}")
        try:
            data = _read(found[0])
            return _numbers(data) if member == "instances" else pixels(_upright(data), self.spec.pictures[1])
        except ValueError as error:
            raise ValueError(f"its {CALLED[member]} {found[0]}: {error}") from error

    def _fitted(self, members: Members, size: Size) -> Members:
        """The members in `size`, as validation has them.

        Raises:
            ValueError: they differ in size.
        """
        if len({member.shape[1:] for member in members.values()}) > 1:
            found = ", ".join(f"{CALLED[name]} {measure(member)}" for name, member in members.items())
            raise ValueError(f"its members are of several sizes in pixels ({found}); they must be of one")
        if not any(sides(size)):
            return members
        return Augment(size, size, mirror=False, train=False, masks=self.spec.view.masks)(members, 0)


def wants_instances(spec: Spec) -> bool:
    """Whether G needs to know which pixel belongs to which instance."""
    return "instances" in spec.members


def check_labels(numbers: Tensor, classes: int) -> None:
    """Raises:
    ValueError: a label map holds the number of no class.
    """
    if (top := int(numbers.max())) >= classes:
        raise ValueError(f"holds label {top}, and the generator knows 0 to {classes - 1}; mend the file")


def halves(image: Image.Image) -> tuple[Image.Image, Image.Image]:
    """The left and the right half of a pair.

    Raises:
        ValueError: it has no two equal halves.
    """
    W, H = image.size
    if W % 2:
        raise ValueError(f"is {W} pixels wide, an odd number; --pairs needs two halves of one width")
    return image.crop((0, 0, W // 2, H)), image.crop((W // 2, 0, W, H))


def measure(picture: Tensor) -> str:
    """Width x height of `[...,H,W]`, as picture viewers say it."""
    return f"{picture.shape[-1]}x{picture.shape[-2]}"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error


def _numbers(data: bytes) -> Tensor:
    return torch.from_numpy(decode_ids(data))[None]


def _upright(data: bytes) -> Image.Image:
    image = decode(data)
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:  # PIL raises whatever odd metadata makes it raise
        raise ValueError(f"cannot be turned upright ({first_line(error)})") from error
