"""Sums of gradients that no number of ranks can change: fixed point, where addition is associative."""

from collections.abc import Iterable

import torch
from torch import nn

from p2p import dist

BITS = 40
"""Binary places. A gradient of 1e-8, where Adam's epsilon begins to damp it, still has 13 bits."""
LARGEST = 2.0**12
"""Of a part's gradient; so an int64 holds the sum of `PARTS` of them."""
PARTS = 2**11


class FixedPoint:
    """Gradients of one network, summed over the parts of a batch and over ranks in whole units of 2^-40.

    Floating-point sums depend on their order, so on how a batch is cut over ranks. Each part of the batch, of a
    stated size, is rounded to the same grid wherever it is computed; the rest is integer addition, in any order.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        sizes = [p.numel() for p in self.parameters]
        # One more than the weights counts what the grid cannot hold; then every gradient is nan, which the loop finds.
        self.sum = torch.zeros(sum(sizes) + 1, dtype=torch.int64, device=self.parameters[0].device)
        self.parts = self.sum[:-1].split(sizes)

    def add(self) -> None:
        """Take in the gradients of one part, and clear them."""
        for total, p in zip(self.parts, self.parameters, strict=True):
            if p.grad is None:
                continue
            self.sum[-1] += ~(torch.linalg.vector_norm(p.grad, torch.inf) < LARGEST)  # of nan too
            total += p.grad.mul_(2.0**BITS).round_().long().reshape(-1)  # the factor is a power of two: nothing is lost
            p.grad = None

    def reduce(self) -> None:
        """Sum over ranks, hand the gradients to the parameters, and begin anew."""
        dist.total(self.sum)
        sound = torch.where(self.sum[-1] == 0, 2.0**-BITS, torch.nan)
        for total, p in zip(self.parts, self.parameters, strict=True):
            p.grad = torch.empty_like(p).copy_(total.view(p.shape)).mul_(sound)
        self.sum.zero_()
