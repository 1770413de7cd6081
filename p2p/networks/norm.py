"""Normalisation whose statistics belong to the model, not to the machine."""

from math import lcm
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NormName = Literal["batch", "instance", "sync", "none"]
Statistics = Literal["batch", "running", "first"]


class GroupedBatchNorm(nn.Module):
    """Batch norm over groups of a stated number of consecutive images, whatever the device batch.

    In training each run of `group` images has its own mean and variance, so that 64 images on one GPU and 4 images
    on each of 16 are the same mathematics. In evaluation an image is normalised alone (`statistics` "batch", the
    paper's test mode: section 3.3 of Isola et al. 2017 with batch 1) or by the stored averages ("running"), so a
    picture never depends on its neighbours; or, to change a part of a picture and nothing else, all are normalised by
    the first of them ("first"). The averages are not gathered during training: `calibrate` in
    `p2p.generator` measures them for the very weights that are stored.

    Args:
        channels: C of the input `[N,C,H,W]`.
        group: images that share statistics in training; 1 is instance norm with a learnt scale and shift.
        affine: learn a scale and a shift.
    """

    def __init__(self, channels: int, group: int = 1, *, affine: bool = True) -> None:
        super().__init__()
        if group < 1:
            raise ValueError(f"group: {group} images cannot share statistics; use 1 or more")
        self.group = group
        self.statistics: Statistics = "batch"
        self.measured: list[tuple[Tensor, Tensor]] | None = None
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and self.statistics == "running":
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)
        if not self.training and self.statistics == "first":
            return by_first(x, self.weight, self.bias)
        group = self.group if self.training else 1
        if len(x) % group:
            raise ValueError(f"batch norm: {len(x)} images do not divide into groups of {group}")
        if self.measured is not None:
            self._measure(x, group)
        # One call a group is faster than one instance_norm over all: it keeps channels_last and copies nothing.
        parts = [F.batch_norm(part, None, None, self.weight, self.bias, training=True) for part in x.split(group)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @torch.no_grad()
    def _measure(self, x: Tensor, group: int) -> None:
        assert self.measured is not None
        for part in x.split(group):
            var, mean = torch.var_mean(part.float(), dim=(0, 2, 3))
            self.measured.append((mean, var))

    def extra_repr(self) -> str:
        return f"{len(self.running_mean)}, group={self.group}, affine={self.weight is not None}"


def by_first(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Pictures `[N,C,H,W]` normalised by mean and variance of the first."""
    var, mean = torch.var_mean(x[:1], dim=(0, 2, 3), correction=0)
    return F.batch_norm(x, mean, var, weight, bias)


class SyncNorm(nn.SyncBatchNorm):
    """Batch norm over the whole batch of all ranks (CUDA only beyond one rank): the statistics, and so the
    result, depend on the global batch. In evaluation as `GroupedBatchNorm`."""

    statistics: Statistics = "batch"

    def forward(self, x: Tensor) -> Tensor:
        if self.training or self.statistics == "running":
            return super().forward(x)
        if self.statistics == "first":
            return by_first(x, self.weight, self.bias)
        return torch.cat([F.batch_norm(p, None, None, self.weight, self.bias, training=True) for p in x.split(1)])


def make_norm(name: NormName, channels: int, group: int) -> nn.Module:
    """The norm layer of a setting: `batch` in groups, `instance` (no scale, no shift), `sync` over ranks, `none`."""
    if name == "batch":
        return GroupedBatchNorm(channels, group)
    if name == "instance":
        return GroupedBatchNorm(channels, 1, affine=False)
    return SyncNorm(channels) if name == "sync" else nn.Identity()


def set_statistics(net: nn.Module, statistics: Statistics) -> None:
    """Choose what every norm of `net` uses in evaluation."""
    for module in net.modules():
        if isinstance(module, GroupedBatchNorm | SyncNorm):
            module.statistics = statistics


def shared_images(net: nn.Module) -> int:
    """How many images, or a multiple of it, a step must have so that all norms of `net` have whole groups."""
    return lcm(*(module.group for module in grouped_norms(net)))


def grouped_norms(net: nn.Module) -> list[GroupedBatchNorm]:
    """The norms of `net` whose statistics are those of a group of images."""
    return [module for module in net.modules() if isinstance(module, GroupedBatchNorm)]


def batch_norms(net: nn.Module) -> list[str]:
    """Names of torch's own batch norms in `net`: their statistics are of whatever shares a forward, their averages of
    one rank."""
    kind = nn.modules.batchnorm._BatchNorm
    return [name for name, m in net.named_modules() if isinstance(m, kind) and not isinstance(m, SyncNorm)]


def is_synced(net: nn.Module) -> bool:
    """Whether a norm of `net` has the statistics of the whole batch of all ranks."""
    return any(isinstance(module, SyncNorm) for module in net.modules())


def init_normal(net: nn.Module, generator: torch.Generator | None = None) -> None:
    """Weights N(0, 0.02), norm scales N(1, 0.02), biases and shifts 0 (Isola et al. 2017, appendix 6.2)."""
    for module in net.modules():
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if isinstance(weight, nn.Parameter):
            mean = 1.0 if isinstance(module, GroupedBatchNorm | nn.SyncBatchNorm) else 0.0
            nn.init.normal_(weight, mean, 0.02, generator=generator)
        if isinstance(bias, nn.Parameter):
            nn.init.zeros_(bias)
