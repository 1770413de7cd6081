"""One joint transform for all members of a sample, drawn from (seed, position) and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torchvision.transforms.v2.functional as TF
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode

from p2p.data import keyed

TOP, LEFT, FLIP = 21, 22, 23
"""What a random number is for; the order has 0 to 3, the reader 11 and 12."""


Size = int | tuple[int, int]
"""A side in pixels, or height and width."""


def sides(size: Size) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True)
class Augment:
    """Jitter and mirror of Isola et al. 2017, section 3.3 and appendix 6.2: resize all members to `load` pixels
    (bicubic with antialiasing, as PIL), cut the same random `crop` out of them, mirror all with probability 1/2.

    `load` equal to `crop` is no jitter; `load` 0 does not resize at all, it cuts out of the picture as it is. For
    validation (`train` False) nothing is random: resize straight to `crop`, or cut out the middle where `load` is 0.
    Masks, which hold numbers of classes or instances, take the nearest pixel and are never interpolated.
    """

    load: Size
    crop: Size
    mirror: bool
    train: bool = True
    seed: int = 0
    masks: frozenset[str] = frozenset(["instances"])

    def __call__(self, sample: Mapping[str, Tensor], position: int) -> dict[str, Tensor]:
        """Members `[C,H,W]` of one size by name, and where the sample stands in the global order -> `[C,*crop]`.

        Raises:
            ValueError: the members differ in size, or are smaller than the crop.
        """
        cut = self.cut(sample, position)
        return {name: member.flip(-1) for name, member in cut.items()} if self.mirrors(position) else cut

    def cut(self, sample: Mapping[str, Tensor], position: int) -> dict[str, Tensor]:
        """The same without the mirror; raises as it does."""
        if len({member.shape[1:] for member in sample.values()}) > 1:
            sizes = ", ".join(f"{name} {_size(member)}" for name, member in sample.items())
            raise ValueError(f"its members are of several sizes in pixels ({sizes}); they must be equal")
        resized = {name: self._resize(member, mask=name in self.masks) for name, member in sample.items()}
        top, left = self._corner(next(iter(resized.values())), position)
        h, w = sides(self.crop)
        return {name: member[:, top : top + h, left : left + w] for name, member in resized.items()}

    def mirrors(self, position: int) -> bool:
        """Whether the sample that stands there is mirrored."""
        return self.train and self.mirror and keyed.uniform(self.seed, FLIP, position) < 0.5

    def _resize(self, member: Tensor, *, mask: bool) -> Tensor:
        size = sides(self.load if self.train or not any(sides(self.load)) else self.crop)
        if not any(size) or member.shape[1:] == size:
            return member
        if mask:
            return nearest(member, size)
        # a half of a picture in two has its rows apart, and takes twice as long
        dense = member.permute(1, 2, 0).contiguous().permute(2, 0, 1)
        return TF.resize(dense, list(size), InterpolationMode.BICUBIC, antialias=True)

    def _corner(self, member: Tensor, position: int) -> tuple[int, int]:
        h, w = sides(self.crop)
        spare_h, spare_w = member.shape[1] - h, member.shape[2] - w
        if min(spare_h, spare_w) < 0:
            raise ValueError(f"the picture is {_size(member)} pixels, smaller than the crop of {h}x{w}")
        if not self.train:
            return spare_h // 2, spare_w // 2
        u, v = (keyed.uniform(self.seed, axis, position) for axis in (TOP, LEFT))
        return int(u * (spare_h + 1)), int(v * (spare_w + 1))


def nearest(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """`[...,H,W]` of any type -> `[...,*size]`: of each new pixel, the old one in which its centre lies, as PIL."""
    rows, columns = (((torch.arange(n) * 2 + 1) * old) // (2 * n) for n, old in zip(size, mask.shape[-2:], strict=True))
    return mask[..., rows, :][..., columns]


def _size(member: Tensor) -> str:
    return f"{member.shape[1]}x{member.shape[2]}"
