"""The coarse-to-fine generator: the global net, and local enhancers around it."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from p2p.networks.blocks import Head, Layer, Residual, divides, positive
from p2p.networks.norm import NormName, init_normal
from p2p.networks.resnet import Trunk


class Enhancer(nn.Module):
    """A local enhancer G2: what it makes of the picture at its own size is added to the maps of the net inside it."""

    def __init__(self, c_in: int, width: int, blocks: int, layer: Layer) -> None:
        super().__init__()
        self.down = nn.Sequential(layer.same(c_in, width, 7), layer.down(width, 2 * width))
        self.blocks = nn.Sequential(*(Residual(2 * width, layer) for _ in range(blocks)))
        self.up = layer.up(2 * width, width)

    def forward(self, x: Tensor, inner: Tensor) -> Tensor:
        """`x` `[N,C,H,W]`, `inner` `[N,2*width,H/2,W/2]` -> `[N,width,H,W]`."""
        return self.up(self.blocks(self.down(x) + inner))


class LocalEnhancer(nn.Module):
    """The coarse-to-fine generator {G1, G2, ...} of Wang et al. 2018 (arXiv 1711.11585), section 3.2.

    The trunk is that of a global net of `width * 2^enhancers`, and has its names, so that it can go on from one that
    was trained before; likewise the inner enhancers.

    Args:
        in_channels, out_channels, norm, group, bias: see `ResNet`.
        width: channels of the outermost layers; each enhancer inside, and then the trunk, has twice as many.
        enhancers: how many; with each, sides double.
        local_blocks: residual blocks of an enhancer.
        downs, blocks: of the trunk; the sides of x must be multiples of 2^(downs + enhancers).
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        width: int = 32,
        enhancers: int = 1,
        local_blocks: int = 3,
        downs: int = 4,
        blocks: int = 9,
        norm: NormName = "instance",
        group: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        positive(width=width, enhancers=enhancers, local_blocks=local_blocks, downs=downs, blocks=blocks)
        self.size, self.least = 2 ** (downs + enhancers), 2 ** (downs + enhancers + 1)
        layer = Layer(norm, group, bias=bias)
        self.trunk = Trunk(in_channels, width * 2**enhancers, downs, blocks, layer)
        self.enhancers = nn.ModuleList(
            Enhancer(in_channels, width * 2**k, local_blocks, layer) for k in reversed(range(enhancers))
        )
        self.head = Head(width, out_channels)
        init_normal(self)

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """As `ResNet.forward`. The nets inside see x averaged to their sizes."""
        divides("local", x, self.size)
        sizes = [x]
        for _ in self.enhancers:
            sizes.append(halved(sizes[-1]))
        maps = self.trunk(sizes.pop())
        for enhancer in self.enhancers:
            maps = enhancer(sizes.pop(), maps)
        return self.head(maps)

    def parts(self) -> list[tuple[str, ...]]:
        """Beginnings of the names of the weights that are trained together, from the inside outwards. The last are
        those that the net with one enhancer less does not have."""
        last = len(self.enhancers) - 1
        inner = [("trunk.",), *((f"enhancers.{k}.",) for k in range(last))]
        return [*inner, (f"enhancers.{last}.", "head.")]

    @classmethod
    def coarser(cls, settings: Mapping[str, Any], by: int) -> tuple[str, dict[str, Any]]:
        """The net without its `by` outermost enhancers; without all of them it is a global net.

        Raises:
            ValueError: there are not so many.
        """
        left = settings["enhancers"] - by
        if left < 0:
            raise ValueError(
                f"coarse: has {by} stages, and G.enhancers is {settings['enhancers']}; one for each is the most"
            )
        inside = {**settings, "width": settings["width"] * 2**by, "enhancers": left}
        if left:
            return "local", inside
        return "global", {name: value for name, value in inside.items() if name not in ("enhancers", "local_blocks")}


def halved(x: Tensor) -> Tensor:
    """`[N,C,H,W]` at half the size: the mean of 3x3 pixels around every other one, of those that exist."""
    return F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
