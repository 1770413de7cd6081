"""pix2pixHD's instance features: an encoder of the photograph, averaged over each instance."""

from math import gcd
from typing import Any

import torch
from torch import Tensor, nn

from p2p.networks.blocks import Head, Layer, divides, positive
from p2p.networks.norm import NormName, init_normal

DENSE = 2**20
"""Rows of a table of sums that are not worth avoiding."""
LANES = 8
"""Sums of an instance that grow side by side. An addition waits for the one before it to the same number, and
neighbouring pixels mostly are of one instance."""


class Encoder(nn.Module):
    """The feature encoder E of Wang et al. 2018 (arXiv 1711.11585), section 3.4: down, up, and the mean of each
    instance everywhere in it.

    Args:
        in_channels: of y.
        out_channels: features.
        width: channels of the outermost layers, doubled with each step down.
        downs: convolutions of stride 2; the sides of y must be multiples of 2^downs.
        norm, group, bias: see `ResNet`.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        width: int = 16,
        downs: int = 4,
        norm: NormName = "instance",
        group: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        positive(width=width, downs=downs)
        self.size, self.least = 2**downs, 2 ** (downs + 1)
        layer = Layer(norm, group, bias=bias)
        c = [width * 2**k for k in range(downs + 1)]
        self.trunk = nn.Sequential(
            layer.same(in_channels, width, 7),
            *(layer.down(c[k], c[k + 1]) for k in range(downs)),
            *(layer.up(c[k + 1], c[k]) for k in reversed(range(downs))),
        )
        self.head = Head(width, out_channels)
        init_normal(self)

    def forward(self, y: Tensor, instances: Tensor) -> Tensor:
        """`y` float `[N,C,H,W]` in [-1, 1], `instances` integer `[N,1,H,W]` -> features `[N,out_channels,H,W]` in
        [-1, 1], the same in all of an instance.

        Raises:
            ValueError: H or W is no multiple of `size`.
        """
        return pooled(self.maps(y), instances)

    def maps(self, y: Tensor) -> Tensor:
        """The features of every pixel, before the means are taken."""
        divides("encoder", y, self.size)
        return self.head(self.trunk(y))


def pooled(maps: Tensor, instances: Tensor) -> Tensor:
    """`maps` `[N,C,H,W]` -> the same with, at each pixel, the mean over the pixels of its instance in its picture.

    `instances` are integers >= 0, `[N,1,H,W]`.
    """
    rows, count = instance_rows(instances)
    pooled: Tensor = _Pool.apply(maps, rows, count)
    return pooled


class _Pool(torch.autograd.Function):
    """Taking means is linear, and its matrix symmetric: the gradient is pooled as the maps are."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, rows: Tensor, count: int) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.count = count
        means = instance_means(maps, rows, count).to(maps.dtype)
        pooled = torch.empty_like(maps, memory_format=torch.contiguous_format)
        for picture, own in zip(pooled, rows.chunk(len(maps)), strict=True):
            for plane, mean in zip(picture, means, strict=True):
                torch.index_select(mean, 0, own, out=plane.view(-1))
        return pooled

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (rows,) = ctx.saved_tensors
        return _Pool.apply(grads[0], rows, ctx.count), None, None


def instance_means(maps: Tensor, rows: Tensor, count: int) -> Tensor:
    """The mean of each row, float64 `[C,count]`; 0 where it has no pixel. Sums are float64: an instance may have
    millions of pixels."""
    lanes = gcd(len(rows), LANES if LANES * count <= DENSE else 1)
    spread = (rows.view(-1, lanes) + count * torch.arange(lanes, device=rows.device)).flatten()
    pixels = torch.bincount(spread, minlength=lanes * count).view(lanes, count).sum(0)
    zeros = torch.zeros(lanes * count, dtype=torch.float64, device=rows.device)
    sums = [zeros.scatter_add(0, spread, one.reshape(-1).double()) for one in maps.unbind(1)]
    return torch.stack(sums).view(-1, lanes, count).sum(1) / pixels.clamp(min=1)


def instance_rows(instances: Tensor) -> tuple[Tensor, int]:
    """A row for every instance of every picture: int64 `[N*H*W]`, and the number of rows. Of instance i in picture n
    it is n * (number of rows / N) + i, as long as the table of all of them is small."""
    N, span = len(instances), int(instances.max()) + 1
    first = torch.arange(N, device=instances.device).view(-1, 1, 1, 1)
    if N * span <= DENSE:
        return (instances.long() + span * first).flatten(), N * span
    ids, rows = (instances.long() + 2**31 * first).unique(return_inverse=True)
    return rows.flatten(), len(ids)
