"""The contract of a metric: how good generated pictures are, in a number."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor


def mean(values: Tensor) -> float:
    """Of `[n]`, in the order of the pictures."""
    return float(values.mean())


@dataclass(frozen=True)
class Metric:
    """A figure of a set of pictures, the same on any number of ranks: rows are gathered in the order of the set, a
    state is added up."""

    values: Callable[[Tensor, Tensor], Tensor]
    """Pictures that G made and real ones, float `[N,C,H,W]` in [-1, 1] -> a value a picture, `[N]`, or what `result`
    needs to know of each, `[N, ...]`; of a `summed` metric what these pictures add to its state, of any shape."""
    result: Callable[[Tensor], Any] = mean
    """The rows of all n pictures, float64 `[n, ...]` on the CPU, or the state of all -> the figure, a number."""
    better: Literal["lower", "higher"] = "lower"
    pairs: bool = True
    """It compares each picture with the y of the same sample; else the real pictures are any."""
    summed: bool = False
    """`values` gives a part of a state, which is added up over pictures and ranks, in float64; for what would be too
    large as rows."""
