"""What the residual generators and the encoder are made of."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, are_deterministic_algorithms_enabled, autocast, cat, is_grad_enabled, nn
from torch.utils.checkpoint import checkpoint

from p2p.networks.norm import NormName, make_norm


class Segment(nn.Module):
    """A part of a network whose inner activations can be forgotten after the forward and computed again for the
    backward, where `recompute` is set: memory for time, the same numbers."""

    recompute = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.recompute and is_grad_enabled():
            return checkpoint(super().__call__, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
        return super().__call__(*args, **kwargs)


def set_recompute(net: nn.Module) -> int:
    """Have the segments of `net` computed again, and those inside with them; returns how many there are."""
    if isinstance(net, Segment):
        net.recompute = True
        return 1
    return sum(set_recompute(child) for child in net.children())


def has_segments(net: nn.Module) -> bool:
    """Whether some activations of `net` can be forgotten."""
    return any(isinstance(module, Segment) for module in net.modules())


class Conv(Segment):
    """[Reflection padding -] convolution - norm [- ReLU]."""

    def __init__(self, conv: nn.Module, norm: nn.Module, *, reflect: int = 0, activation: bool = True) -> None:
        super().__init__()
        self.conv, self.norm, self.reflect, self.activation = conv, norm, reflect, activation

    def forward(self, x: Tensor) -> Tensor:
        """`[N,C,H,W]` -> `[N,C',H',W']`."""
        x = reflected(x, self.reflect) if self.reflect else x
        x = self.norm(self.conv(x))
        return F.relu(x) if self.activation else x


class Residual(Segment):
    """x + two 3x3 convolutions of it, with reflection padding (Johnson et al. 2016)."""

    def __init__(self, channels: int, layer: "Layer") -> None:
        super().__init__()
        self.convs = nn.Sequential(
            layer.same(channels, channels, 3), layer.same(channels, channels, 3, activation=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[N,C,H,W]` -> `[N,C,H,W]`, H and W at least 2."""
        return x + self.convs(x)


class Layer:
    """Makes the convolutions of a network, all with its kind of norm.

    Args:
        norm, group: see `p2p.networks.norm`.
        bias: of convolutions before a norm too, which does away with it.
    """

    def __init__(self, norm: NormName, group: int, *, bias: bool) -> None:
        self.name, self.group, self.bias = norm, group, bias or norm == "none"

    def norm(self, channels: int) -> nn.Module:
        """The norm of a map."""
        return make_norm(self.name, channels, self.group)

    def same(self, c_in: int, c_out: int, kernel: int, *, activation: bool = True) -> Conv:
        """Of stride 1, with reflection padding."""
        conv = nn.Conv2d(c_in, c_out, kernel, bias=self.bias)
        return Conv(conv, self.norm(c_out), reflect=kernel // 2, activation=activation)

    def down(self, c_in: int, c_out: int) -> Conv:
        """To half the size."""
        return Conv(nn.Conv2d(c_in, c_out, 3, 2, 1, bias=self.bias), self.norm(c_out))

    def up(self, c_in: int, c_out: int) -> Conv:
        """To twice the size."""
        conv = nn.ConvTranspose2d(c_in, c_out, 3, 2, 1, output_padding=1, bias=self.bias)
        return Conv(conv, self.norm(c_out))


class Head(Segment):
    """The last convolution of a generator, 7x7 with reflection padding, and tanh."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 7)

    def forward(self, x: Tensor) -> Tensor:
        """`[N,C,H,W]` -> `[N,C',H,W]` in [-1, 1]."""
        return self.conv(reflected(x, 3)).tanh()


def reflected(x: Tensor, by: int) -> Tensor:
    """`[N,C,H,W]` with `by` pixels more on each side, mirrored at the outermost."""
    if not are_deterministic_algorithms_enabled():
        with autocast("cpu", enabled=False):  # which would pad in float32
            return F.pad(x, (by,) * 4, mode="reflect")
    for dim in (-1, -2):  # the gradient of PyTorch's own adds in any order on a GPU
        size = x.shape[dim]
        before, after = x.narrow(dim, 1, by), x.narrow(dim, size - by - 1, by)
        x = cat([before.flip(dim), x, after.flip(dim)], dim)
    return x


def positive(**numbers: int) -> None:
    """Raises:
    ValueError: one of them is less than 1; names it.
    """
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name}: {number} is less than 1; use 1 or more")


def divides(who: str, x: Tensor, size: int) -> None:
    """Raises:
    ValueError: the sides of `x` are no multiples of `size`, or so small that reflection has nothing to reflect.
    """
    H, W = x.shape[-2:]
    if H % size or W % size or min(H, W) < 2 * size:
        raise ValueError(f"{who}: got {H}x{W} pixels; sides must be multiples of {size}, at least {2 * size}")
