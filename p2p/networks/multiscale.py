"""pix2pixHD's discriminator: PatchGANs at several sizes of the same picture."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from p2p.networks.blocks import positive
from p2p.networks.enhancer import halved
from p2p.networks.norm import NormName
from p2p.networks.patchgan import Field, Judged, PatchGAN


class MultiScale(nn.Module):
    """D1, D2, D3 of Wang et al. 2018 (arXiv 1711.11585), section 3.2: the same net at full size, half the size, ...

    Args:
        in_channels: of what it sees.
        scales: how many. `scales[0]` judges the smallest picture, so that one with more scales can go on from one
            with fewer, trained at half the size.
        field, width, norm, group, padding, bias: see `PatchGAN`.
    """

    def __init__(
        self,
        in_channels: int = 6,
        *,
        scales: int = 2,
        field: Field = 70,
        width: int = 64,
        norm: NormName = "instance",
        group: int = 1,
        padding: int = 2,
        bias: bool = True,
    ) -> None:
        super().__init__()
        positive(scales=scales)
        self.scales = nn.ModuleList(
            PatchGAN(in_channels, field=field, width=width, norm=norm, group=group, padding=padding, bias=bias)
            for _ in range(scales)
        )

    def forward(self, xy: Tensor) -> Judged:
        """`[N,C,H,W]` in [-1, 1] -> see `Judged`, the full size first."""
        judged = []
        for D in reversed(self.scales):
            judged += D(xy)
            xy = halved(xy)
        return judged

    def parts(self) -> list[tuple[str, ...]]:
        """As `LocalEnhancer.parts`."""
        return [(f"scales.{k}.",) for k in range(len(self.scales))]

    @classmethod
    def coarser(cls, settings: Mapping[str, Any], by: int) -> tuple[str, dict[str, Any]]:
        """`by` scales less.

        Raises:
            ValueError: none would be left.
        """
        scales = settings["scales"]
        if scales <= by:
            raise ValueError(f"D.scales: {scales}, and the first of {by} coarse stages has {by} less; give more")
        return "multiscale", {**settings, "scales": scales - by}
