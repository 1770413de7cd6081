"""The residual generator: pix2pixHD's global net, and with other settings CycleGAN's."""

from torch import Tensor, nn

from p2p.networks.blocks import Head, Layer, Residual, divides, positive
from p2p.networks.norm import NormName, init_normal


class Trunk(nn.Sequential):
    """Down, through the residual blocks, and up again: `[N,C,H,W]` -> `[N,width,H,W]`."""

    def __init__(self, c_in: int, width: int, downs: int, blocks: int, layer: Layer) -> None:
        c = [width * 2**k for k in range(downs + 1)]
        super().__init__(
            layer.same(c_in, width, 7),
            *(layer.down(c[k], c[k + 1]) for k in range(downs)),
            *(Residual(c[-1], layer) for _ in range(blocks)),
            *(layer.up(c[k + 1], c[k]) for k in reversed(range(downs))),
        )


class ResNet(nn.Module):
    """The global generator G1 of Wang et al. 2018 (arXiv 1711.11585), section 3.2 and appendix; after Johnson et al.
    2016.

    Args:
        in_channels: of what it sees: x, and features where there are any.
        out_channels: of y.
        width: channels of the outermost layers, doubled with each step down.
        downs: convolutions of stride 2; the sides of x must be multiples of 2^downs.
        blocks: residual blocks in the middle.
        norm, group: see `p2p.networks.norm`.
        bias: biases before a norm, as the original has them; they have no effect, False leaves them out.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        width: int = 64,
        downs: int = 4,
        blocks: int = 9,
        norm: NormName = "instance",
        group: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        positive(width=width, downs=downs, blocks=blocks)
        self.size, self.least = 2**downs, 2 ** (downs + 1)
        self.trunk = Trunk(in_channels, width, downs, blocks, Layer(norm, group, bias=bias))
        self.head = Head(width, out_channels)
        init_normal(self)

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """`x` float `[N,C,H,W]`, H and W multiples of `size`; there is no noise, `z` is not used
        -> `[N,out_channels,H,W]` in [-1, 1].

        Raises:
            ValueError: H or W is no multiple of `size`.
        """
        divides("global", x, self.size)
        return self.head(self.trunk(x))
