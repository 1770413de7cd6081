"""Figures of a picture beside the one that it should be."""

from torch import Tensor


def l1(fake: Tensor, real: Tensor) -> Tensor:
    """Mean |y - G(x)| of each picture in units of [0, 1]: `[N,C,H,W]` in [-1, 1] -> float64 `[N]`."""
    return (fake - real).abs().double().flatten(1).mean(1) / 2
