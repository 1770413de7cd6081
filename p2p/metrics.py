"""How good generated pictures are, in numbers. A dict is the registry."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor


def mean(values: Tensor) -> float:
    """Of `[n]`, in the order of the pictures."""
    return float(values.mean())


@dataclass(frozen=True)
class Metric:
    """A figure of a set of pictures. What it takes of each picture is gathered over ranks in the order of the set, so
    that the figure is the same on any number of them."""

    values: Callable[[Tensor, Tensor], Tensor]
    """Pictures that G made and real ones, float `[N,C,H,W]` in [-1, 1] -> a value a picture, `[N]`, or what `result`
    needs to know of it, `[N, ...]`."""
    result: Callable[[Tensor], float] = mean
    """What `values` gave of all n pictures, float64 `[n, ...]` on the CPU -> the figure."""
    better: Literal["lower", "higher"] = "lower"
    pairs: bool = True
    """It compares each picture with the y of the same sample; else the real pictures are any."""


def l1(fake: Tensor, real: Tensor) -> Tensor:
    """Mean |y - G(x)| of each picture in units of [0, 1]: `[N,C,H,W]` in [-1, 1] -> float64 `[N]`."""
    return (fake - real).abs().double().flatten(1).mean(1) / 2


METRICS = {"L1": Metric(l1)}
"""By name; one of them says which generator is the best, see `validation.best`."""
