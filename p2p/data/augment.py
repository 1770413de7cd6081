"""One joint transform for both sides of a pair, drawn from (seed, position) and nothing else."""

from dataclasses import dataclass

import torchvision.transforms.v2.functional as TF
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode

from p2p.data import keyed

TOP, LEFT, FLIP = 21, 22, 23
"""What a random number is for; the order has 0 to 3, the reader 11 and 12."""


@dataclass(frozen=True)
class Augment:
    """Jitter and mirror of Isola et al. 2017, section 3.3 and appendix 6.2: resize both sides to `load` x `load`
    pixels (bicubic with antialiasing, as PIL), cut the same random `crop` x `crop` out of both, mirror both with
    probability 1/2.

    `load` equal to `crop` is no jitter; `load` 0 does not resize at all, it cuts out of the picture as it is. For
    validation (`train` False) nothing is random: resize straight to `crop`, or cut out the middle where `load` is 0.
    """

    load: int
    crop: int
    mirror: bool
    train: bool = True
    seed: int = 0

    def __call__(self, x: Tensor, y: Tensor, position: int) -> tuple[Tensor, Tensor]:
        """Two uint8 `[C,H,W]` of one size, and where they stand in the global order -> two uint8 `[C,crop,crop]`.

        Raises:
            ValueError: the sides differ in size, or are smaller than the crop.
        """
        if x.shape[1:] != y.shape[1:]:
            raise ValueError(f"the sides are {_size(x)} and {_size(y)} pixels; they must be equal")
        x, y = self._resize(x), self._resize(y)
        top, left = self._corner(x, position)
        x, y = (side[:, top : top + self.crop, left : left + self.crop] for side in (x, y))
        if self.train and self.mirror and keyed.uniform(self.seed, FLIP, position) < 0.5:
            return x.flip(-1), y.flip(-1)
        return x, y

    def _resize(self, image: Tensor) -> Tensor:
        side = self.load if self.train or not self.load else self.crop
        if not side or image.shape[1:] == (side, side):
            return image
        return TF.resize(image, [side, side], InterpolationMode.BICUBIC, antialias=True)

    def _corner(self, image: Tensor, position: int) -> tuple[int, int]:
        spare_h, spare_w = image.shape[1] - self.crop, image.shape[2] - self.crop
        if min(spare_h, spare_w) < 0:
            raise ValueError(f"the picture is {_size(image)} pixels, smaller than the crop of {self.crop}")
        if not self.train:
            return spare_h // 2, spare_w // 2
        u, v = (keyed.uniform(self.seed, axis, position) for axis in (TOP, LEFT))
        return int(u * (spare_h + 1)), int(v * (spare_w + 1))


def _size(image: Tensor) -> str:
    return f"{image.shape[1]}x{image.shape[2]}"
