"""What pixels mean, both ways: numbers from the reader -> what networks see, and what G made -> pictures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from p2p.data.encoded import on_white


@dataclass(frozen=True)
class View:
    """Pictures, or label maps as x. Everything is computed on the device, where a map of 35 classes has 35 times the
    bytes it came with.

    Another view is a subclass, a frozen dataclass whose keyword-only fields are its settings, with a line in `VIEWS`.
    """

    classes: int = 0
    """x is a label map, and becomes one plane a class of 0 and 1; 0: x is a picture."""
    boundaries: bool = False
    """One more plane, 1 where the instance changes."""

    def encode(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What the networks see of a batch of the reader, which has y in training only.

        `x`, `y` uint8 `[N,C,H,W]`, `instances` int32 `[N,1,H,W]` -> `x` float as G sees it, `y` float in [-1, 1]; what
        is float already, and everything else, stays.
        """
        seen = {name: to_float(v) if _pixels(v) and name != "x" else v for name, v in batch.items()}
        x = batch["x"]
        planes = [(one_hot(x, self.classes) if self.classes else to_float(x)) if _pixels(x) else x]
        if self.boundaries:
            planes.append(boundaries(batch["instances"]).to(planes[0].dtype))
        return seen | {"x": torch.cat(planes, 1) if len(planes) > 1 else planes[0]}

    def decode(self, y: Tensor, x: Tensor) -> Tensor:
        """The pictures that people and metrics get: `y` float `[N,C',H,W]` as G made it of `x` float `[N,C,H,W]` ->
        float `[N,C,H,W]` in [-1, 1], gray or RGB."""
        return y.clamp(-1, 1)

    def target(self, batch: Mapping[str, Any]) -> Tensor:
        """What `decode` should give: the y of a batch of the reader, float `[N,C,H,W]` in [-1, 1]."""
        return to_float(batch["y"])

    def shown(self, x: Tensor) -> Tensor:
        """The x of the reader, uint8 `[N,C,H,W]`, for people: label maps in colours."""
        return painted(x) if self.classes else x

    def channels(self, x: int, y: int) -> tuple[int, int]:
        """Of x and y as the networks see them, where the reader gives `x` and `y`."""
        return (self.classes or x) + self.boundaries, y

    @property
    def members(self) -> frozenset[str]:
        """Members of a sample that `encode` needs to make x."""
        return frozenset(["x", "instances"] if self.boundaries else ["x"])

    @property
    def masks(self) -> frozenset[str]:
        """Members of a sample that hold numbers, which are never interpolated."""
        return frozenset(["instances", "x"] if self.classes else ["instances"])

    @property
    def margin(self) -> int:
        """Pixels around a place that `encode` looks at; where a picture is cut, it sees as many more."""
        return int(self.boundaries)

    def reversed(self) -> "View":
        """The view of a generator that makes x of y.

        Raises:
            ValueError: there is none.
        """
        if self.classes or self.boundaries:
            raise ValueError("view: a generator from y to x would make label maps or boundaries; give pictures as x")
        return self


VIEWS: dict[str, Callable[..., View]] = {"pixels": View}
"""By name; a class, called with the classes of the shards (0: pictures) and whether x shall have boundaries, then with
its settings."""


def view_class(name: str) -> Callable[..., View]:
    """The constructor of a view.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in VIEWS:
        raise ValueError(f"view.name: no view '{name}'; there is {', '.join(VIEWS)}")
    return VIEWS[name]


def _pixels(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.uint8


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Numbers below `classes`, `[N,1,H,W]` -> float32 `[N,classes,H,W]`, 1 in the plane of the number, else 0."""
    N, _, H, W = labels.shape
    planes = torch.zeros(N, H, W, classes, device=labels.device).permute(0, 3, 1, 2)  # NHWC in memory
    return planes.scatter_(1, labels.long(), 1.0)


def boundaries(instances: Tensor) -> Tensor:
    """`[N,1,H,W]` -> bool `[N,1,H,W]`: whether one of the four neighbours belongs to another instance (Wang et al.
    2018, section 3.3)."""
    edge = torch.zeros_like(instances, dtype=torch.bool)
    for across, along in ((edge, instances), (edge.mT, instances.mT)):
        change = along[..., 1:] != along[..., :-1]
        across[..., 1:] |= change
        across[..., :-1] |= change
    return edge


def painted(labels: Tensor) -> Tensor:
    """Numbers of classes, uint8 `[N,1,H,W]` -> a colour for each, uint8 `[N,3,H,W]`, for people: PASCAL VOC's map,
    whose colours of small numbers lie far apart; 0 is black."""
    numbers, colours = torch.arange(256), torch.zeros(256, 3, dtype=torch.long)
    for bit in range(8):
        colours[:, bit % 3] |= ((numbers >> bit) & 1) << (7 - bit // 3)
    return colours.to(labels.device, torch.uint8)[labels[:, 0].long()].permute(0, 3, 1, 2)


def rgb(picture: Tensor) -> Tensor:
    """uint8 `[1,H,W]` or `[3,H,W]` -> `[3,H,W]`."""
    return picture.expand(3, -1, -1) if len(picture) == 1 else picture


def to_float(pixels: Tensor) -> Tensor:
    """uint8 `[N,C,H,W]` -> float32 in [-1, 1], on the device where the pixels are."""
    return pixels.to(torch.float32) / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """float `[..., C,H,W]` in [-1, 1] -> uint8, rounded to the nearest; what lies outside is clipped."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def pixels(image: Image.Image, channels: int) -> Tensor:
    """A picture of any 8-bit mode -> uint8 `[channels,H,W]`, 1 (gray) or 3 (RGB); on white where transparent, as
    the packer has it."""
    values = np.array(on_white(image).convert("L" if channels == 1 else "RGB"))
    return torch.from_numpy(values).reshape(image.height, image.width, channels).permute(2, 0, 1).contiguous()
