"""The pix2pix generators: the U-Net, and the encoder-decoder that is the U-Net without its skips."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from p2p.networks.norm import NormName, init_normal, make_norm
from p2p.noise import Dropout

Placement = Literal["paper", "port", "none"]


class UNet(nn.Module):
    """U-Net of Isola et al. 2017, appendix 6.1.1: k4 s2 convolutions down to 1x1 and back, skips between equal sizes.

    Args:
        in_channels: of x.
        out_channels: of y.
        size: side in pixels that the deepest map reduces to 1x1, a power of two >= 4; 256 gives the paper's 8 levels.
            Inputs may be any multiple of it.
        width: channels of the first level, doubled from level to level up to 8 * width.
        skips: False for the encoder-decoder (section 3.2.1 of the paper).
        dropout: `paper` on the three innermost decoder levels (the Lua code), `port` on those of the levels
            5 .. depth - 1 (the PyTorch code, one level further out), `none` nowhere. Rate 0.5.
        norm: see `p2p.networks.norm`; convolutions before a norm have no bias.
        group: images that share batch statistics in training.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        size: int = 256,
        width: int = 64,
        skips: bool = True,
        dropout: Placement = "paper",
        norm: NormName = "batch",
        group: int = 1,
    ) -> None:
        super().__init__()
        depth = int(math.log2(max(size, 1)))
        if size < 4 or 2**depth != size:
            raise ValueError(f"size: {size} is not a power of two >= 4; use 64, 128, 256, ...")
        if width < 1:
            raise ValueError(f"width: {width} channels; use 1 or more")
        self.size, self.skips = size, skips
        c = [in_channels] + [width * min(2**k, 8) for k in range(depth)]
        c_up = [out_channels, *c[1:]]
        dropped = _dropped_levels(dropout, depth)
        down, up = [], []
        for k in range(1, depth + 1):  # level 1 is the outermost
            normed = norm if 1 < k < depth else "none"
            down.append(Down(c[k - 1], c[k], normed, group, activation=k > 1, bias=norm == "none"))
            joined = 2 if skips and k < depth else 1
            noise = Dropout(0.5, salt=k) if k in dropped else None
            up.append(Up(c[k] * joined, c_up[k - 1], norm if k > 1 else "none", group, noise))
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(reversed(up))
        init_normal(self)

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """`x` float `[N,C,H,W]` in [-1, 1], H and W multiples of `size`; `z` int64 `[N]`, the keys of the dropout
        masks, None for no dropout -> `[N,out_channels,H,W]` in [-1, 1].

        Raises:
            ValueError: H or W is no multiple of `size`.
        """
        if x.shape[-2] % self.size or x.shape[-1] % self.size:
            raise ValueError(
                f"U-Net {self.size}: got {x.shape[-2]}x{x.shape[-1]} pixels; sides must be multiples of {self.size}"
            )
        maps: list[Tensor] = []
        for down in self.down:
            x = down(x)
            maps.append(x)
        x = maps.pop()
        for up in self.up:
            x = up(x, z)
            if maps:
                skip = maps.pop()
                x = torch.cat([skip, x], 1) if self.skips else x
        return torch.tanh(x)


class Down(nn.Module):
    """LeakyReLU(0.2) - conv k4 s2 - norm; the outermost has no activation, it and the innermost no norm."""

    def __init__(self, c_in: int, c_out: int, norm: NormName, group: int, *, activation: bool, bias: bool) -> None:
        super().__init__()
        self.slope = 0.2 if activation else 1.0
        self.conv = nn.Conv2d(c_in, c_out, 4, 2, 1, bias=bias)
        self.norm = make_norm(norm, c_out, group)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(F.leaky_relu(x, self.slope) if self.slope != 1 else x))


class Up(nn.Module):
    """ReLU - transposed conv k4 s2 - norm - dropout; the outermost has neither norm nor dropout."""

    def __init__(self, c_in: int, c_out: int, norm: NormName, group: int, dropout: Dropout | None) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(c_in, c_out, 4, 2, 1, bias=norm == "none")
        self.norm = make_norm(norm, c_out, group)
        self.dropout = dropout

    def forward(self, x: Tensor, z: Tensor | None) -> Tensor:
        x = self.norm(self.conv(F.relu(x)))
        return self.dropout(x, z) if self.dropout else x


def _dropped_levels(placement: Placement, depth: int) -> range:
    """Levels (1 outermost, `depth` innermost) whose decoder half drops out."""
    if placement == "paper":
        return range(max(depth - 2, 2), depth + 1)
    return range(5, depth) if placement == "port" else range(0)
