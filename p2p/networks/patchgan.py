"""The pix2pix discriminators: PatchGANs from 1 to 286 pixels."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from p2p.networks.norm import NormName, init_normal, make_norm

Field = Literal[1, 16, 34, 70, 142, 286]
Judged = list[list[Tensor]]
"""What a discriminator answers: for each scale its feature maps, and last the logits, one a patch; no sigmoid."""
STRIDED = {1: 0, 16: 1, 34: 2, 70: 3, 142: 4, 286: 5}
"""Receptive field in pixels -> convolutions of stride 2."""


class PatchGAN(nn.Module):
    """Judges overlapping patches of `field` pixels (Isola et al. 2017, appendix 6.1.2); 1 is the PixelGAN of 1x1
    convolutions.

    Args:
        in_channels: of what it sees: x and y together, or y alone.
        field: receptive field of one logit, pixels.
        width: channels of the first layer, doubled from layer to layer up to 8 * width.
        norm: see `p2p.networks.norm`; convolutions before a norm have no bias.
        group: images that share batch statistics in training.
        padding: of each 4x4 convolution: 1 in pix2pix, 2 in pix2pixHD.
        bias: biases before a norm, as pix2pixHD has them; they have no effect.
    """

    def __init__(
        self,
        in_channels: int = 6,
        *,
        field: Field = 70,
        width: int = 64,
        norm: NormName = "batch",
        group: int = 1,
        padding: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width: {width} channels; use 1 or more")
        if not 0 <= padding <= 2:
            raise ValueError(f"padding: {padding} pixels around; use 1 (pix2pix), 2 (pix2pixHD) or 0")
        n = STRIDED[field]
        c = [in_channels] + [width * min(2**k, 8) for k in range(max(n, 1) + 1)]
        kernel, padding = (4, padding) if n else (1, 0)
        strides = [2] * n + [1] if n else [1, 1]
        self.convs = nn.ModuleList(
            nn.Conv2d(c[k], c[k + 1], kernel, stride, padding, bias=bias or k == 0 or norm == "none")
            for k, stride in enumerate(strides)
        )
        self.norms = nn.ModuleList(
            make_norm(norm if k else "none", c[k + 1], group)
            for k in range(len(strides))  # the first is never normed
        )
        self.last = nn.Conv2d(c[-1], 1, kernel, 1, padding, bias=bias or bool(n) or norm == "none")
        init_normal(self)

    def forward(self, xy: Tensor) -> Judged:
        """`[N,C,H,W]` in [-1, 1] -> see `Judged`, of one scale."""
        maps = [xy]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            maps.append(F.leaky_relu(norm(conv(maps[-1])), 0.2))
        return [[*maps[1:], self.last(maps[-1])]]
