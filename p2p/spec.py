"""What rebuilds a network, and what it was trained on: the head of a generator's file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from torch import nn

from p2p.data.augment import Size, sides
from p2p.data.views import View
from p2p.networks import NETWORKS
from p2p.networks.encoder import Encoder, Told
from p2p.strict import checked


@dataclass(frozen=True)
class Net:
    """A network by name."""

    name: str
    """See `p2p.networks.NETWORKS`."""
    settings: Mapping[str, Any]
    """Keyword arguments of its constructor."""
    channels: tuple[int, ...]
    """In and, for a generator, out."""

    def build(self, where: str) -> nn.Module:
        """The network with its first weights; `where` it plays, G, D or E.

        Raises:
            ValueError: the name or a setting is unknown, or a value is none that the network takes.
        """
        networks = NETWORKS[where]
        if self.name not in networks:
            raise ValueError(f"{where}.name: no network '{self.name}'; there is {', '.join(networks)}")
        network = networks[self.name]
        settings = checked(network, dict(self.settings), where)
        channels = self.channels if where != "D" else self.channels[:1]
        try:
            return network(*channels, **settings)
        except ValueError as error:
            raise ValueError(f"{where}.{error}") from error


@dataclass(frozen=True)
class Spec(Net):
    """G, with the encoder of features that belongs to it, and what both were trained on."""

    crop: Size
    """Side of the pictures, or height and width, pixels."""
    resized: bool = False
    """They were resized to this side or, with jitter, a little more; not cut out as they were."""
    reverse: bool = False
    """Trained y -> x, where the shards say x -> y."""
    view: View = field(default=View())
    """What x is made of."""
    encoder: Net | None = None
    """E, whose features of y G sees beside x."""

    def build(self, where: str = "G") -> nn.Module:
        """As `Net.build`; G and E together are one network."""
        G = super().build(where)
        return Told(G, cast(Encoder, self.encoder.build("E"))) if self.encoder else G

    @property
    def pictures(self) -> tuple[int, int]:
        """Channels of x as the reader gives it, and of y."""
        features = self.encoder.channels[1] if self.encoder else 0
        seen = self.channels[0] - features - self.view.boundaries
        return (1 if self.view.classes else seen), self.channels[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what it was trained on, pixels."""
        return sides(self.crop)
