"""What rebuilds a network, and what it was trained on: the head of a generator's file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from p2p.data.augment import Size, sides
from p2p.data.views import VIEWS, View, view_class
from p2p.networks import NETWORKS
from p2p.strict import checked, validated

FILE = "generator.safetensors"
"""Of the first generator in a checkpoint."""


def file_of(name: str) -> str:
    """Where a generator is stored in a checkpoint; the first one has no name there."""
    return f"generator_{name}.safetensors" if name else FILE


def network_class(section: str, name: str) -> Any:
    """The constructor of a network.

    Raises:
        ValueError: there is none of this name.
    """
    networks = NETWORKS[section]
    if name not in networks:
        raise ValueError(f"{section}.name: no network '{name}'; there is {', '.join(networks)}")
    return networks[name]


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
        network = network_class(where, self.name)
        settings = checked(network, dict(self.settings), where)
        channels = self.channels if where != "D" else self.channels[:1]
        try:
            return network(*channels, **settings)
        except ValueError as error:
            raise ValueError(f"{where}.{error}") from error
        except (TypeError, AttributeError) as error:  # of a network of somebody's own
            numbers = "(channels in)" if where == "D" else "(channels in, channels out)"
            raise ValueError(f"{where}.name: {self.name} cannot be called with {numbers}: {error}") from error


@dataclass(frozen=True)
class Spec(Net):
    """G, with the encoder of features that belongs to it, and what both were trained on."""

    crop: Size
    """Side of the pictures, or height and width, pixels."""
    resized: bool = False
    """They were resized to this side or, with jitter, a little more; not cut out as they were."""
    reverse: bool = False
    """Trained y -> x, where the shards say x -> y."""
    view: View = View()  # noqa: RUF009 - frozen
    """What x and y are made of."""
    encoder: Net | None = None
    """E, whose features of y G sees beside x."""
    picture_channels: tuple[int, ...] = ()
    """Of x and y as the reader gives them; empty in older files, whose view tells it."""
    paired: bool = True
    """y of a sample is what it should make of x."""
    kept_as: str = "G"
    """What the task calls it."""

    def build(self, where: str = "G") -> nn.Module:
        """As `Net.build`; with an encoder, both networks by name."""
        G = super().build(where)
        return nn.ModuleDict({"G": G, "E": self.encoder.build("E")}) if self.encoder else G

    @property
    def pictures(self) -> tuple[int, int]:
        """Channels of x and of y as the reader gives them."""
        if len(self.picture_channels) == 2:
            return self.picture_channels[0], self.picture_channels[1]
        features = self.encoder.channels[1] if self.encoder else 0
        seen = self.channels[0] - features - self.view.boundaries
        return (1 if self.view.classes else seen), self.channels[1]

    @property
    def members(self) -> frozenset[str]:
        """Members of a sample that G needs, y where it is told features not counted."""
        return self.view.members | (frozenset(["instances"]) if self.encoder else frozenset())

    def to_tree(self) -> dict[str, Any]:
        """Plain values, for the head of a file."""
        name = next(name for name, view in VIEWS.items() if view is type(self.view))
        return {**asdict(self), "view": {"name": name, **asdict(self.view)}}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> "Spec":
        """The inverse of `to_tree`; also of files from before views had names.

        Raises:
            ValueError: it is none; names the first mistake.
        """
        view = {"name": "pixels", **tree.get("view", {})}
        spec = validated(cls, {name: value for name, value in tree.items() if name != "view"})
        seen_as: Any = view_class(view.pop("name"))
        return replace(spec, view=validated(seen_as, view))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what it was trained on, pixels."""
        return sides(self.crop)
