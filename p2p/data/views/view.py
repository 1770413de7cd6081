"""What pixels mean, both ways: numbers from the reader -> what networks see, and what G made -> pictures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from p2p.data.views.pixels import boundaries, one_hot, painted, to_float


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


def _pixels(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.uint8
