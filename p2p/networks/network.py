"""The contract of a network: what the rest of p2p asks of one beside its forward."""

from collections.abc import Mapping, Sequence
from itertools import chain
from math import lcm
from typing import Any, Protocol

from torch import Tensor, nn


class GeneratorNetwork(Protocol):
    """G: an `nn.Module` with a `size`. Its constructor takes channels in and out, then keyword-only settings.

    What may be left out: `least` (as `size`), `parts` (all weights begin to learn together), `coarser` (none is trained
    before it), `noisy` (False). Inner modules that are `p2p.networks.blocks.Segment`s can forget their activations.
    """

    size: int
    """Sides of x are padded to multiples of it before it is called; 1: any side will do."""
    least: int
    """The shortest side, pixels."""
    noisy: bool
    """Whether it draws from the keys z itself."""

    def forward(self, x: Tensor, z: Tensor | None) -> Tensor:
        """`x` float `[N,C,H,W]`, `z` int64 `[N]` (random keys; None: no noise) -> `[N,C',H,W]`."""
        ...

    def parts(self) -> Sequence[tuple[str, ...]]:
        """Beginnings of the names of weights that begin to learn at different times, each a parameter group of the
        optimiser. The last are those that the next coarser network does not have."""
        ...

    @classmethod
    def coarser(cls, settings: Mapping[str, Any], by: int) -> tuple[str, dict[str, Any]]:
        """Name and settings of the network for pictures halved `by` times, whose weights this one goes on from.

        Raises:
            ValueError: there is none so coarse; names the setting.
        """
        ...


class DiscriminatorNetwork(Protocol):
    """D: an `nn.Module`; its constructor takes the channels that it sees, then keyword-only settings. `parts` and
    `coarser` as `GeneratorNetwork`'s."""

    def forward(self, xy: Tensor) -> list[list[Tensor]]:
        """`[N,C,H,W]` -> for each scale its feature maps, and last the logits."""
        ...


class EncoderNetwork(Protocol):
    """E: an `nn.Module` with a `size` and perhaps a `least`, see `GeneratorNetwork`. Its constructor takes channels in
    and out, then keyword-only settings. In use `maps` is called and averaged over each instance by
    `p2p.networks.encoder.pooled`, so `forward` must be just that."""

    size: int

    def forward(self, y: Tensor, instances: Tensor) -> Tensor:
        """`y` float `[N,C,H,W]`, `instances` integer `[N,1,H,W]` -> `[N,F,H,W]`, the same in all of an instance."""
        ...

    def maps(self, y: Tensor) -> Tensor:
        """The features of every pixel, `[N,F,H,W]`."""
        ...


def multiple_of(net: nn.Module) -> int:
    """What the sides of a generator's or encoder's pictures must be multiples of; of several networks, of all.

    Raises:
        ValueError: it does not say so.
    """
    if isinstance(net, nn.ModuleDict):
        return lcm(*(multiple_of(one) for one in net.values()))
    size = getattr(net, "size", None)
    if not isinstance(size, int) or size < 1:
        raise ValueError(
            f"{type(net).__name__} has no `size`, the number that sides must be multiples of; give it one, 1 where any"
            " side will do"
        )
    return size


def least_side(net: nn.Module) -> int:
    """The shortest side that a generator or encoder takes, pixels; of several networks, that all take."""
    if isinstance(net, nn.ModuleDict):
        return max(least_side(one) for one in net.values())
    return int(getattr(net, "least", multiple_of(net)))


def parts(net: nn.Module) -> list[tuple[str, ...]]:
    """Beginnings of the names of the weights of `net`, or of several networks, that begin to learn at different times;
    all of a network as one part where it says nothing."""
    if isinstance(net, nn.ModuleDict):
        return [_within(name, part) for name, one in net.items() for part in parts(one)]
    return list(net.parts()) if hasattr(net, "parts") else [("",)]  # type: ignore[operator]


def is_in_parts(network: type) -> bool:
    """Whether the weights of networks of a class can begin to learn at different times."""
    return hasattr(network, "parts")


def has_coarser(network: type) -> bool:
    """Whether there is a network to begin with before one of this class."""
    return hasattr(network, "coarser")


def newest_part(net: nn.Module) -> tuple[str, ...]:
    """Beginnings of the names of what the next coarser network does not have; empty where there is no coarser one."""
    if isinstance(net, nn.ModuleDict):
        return tuple(chain.from_iterable(_within(name, newest_part(one)) for name, one in net.items()))
    found = parts(net)
    return found[-1] if len(found) > 1 else ()


def part_alone(net: nn.Module) -> tuple[str, ...]:
    """Beginnings of the names of what learns while the newest part of a generator learns alone: that part, and all of
    the networks beside it that have no parts."""
    if isinstance(net, nn.ModuleDict):
        return tuple(chain.from_iterable(_within(name, part_alone(one)) for name, one in net.items()))
    return newest_part(net) or ("",)


def _within(name: str, part: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{name}.{start}" for start in part)
