"""The contract of a metric: how good generated pictures are, in a number."""

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
