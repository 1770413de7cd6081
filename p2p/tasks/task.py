"""The contract of a task: all that differs from method to method. Nothing else in p2p knows a method by its name."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

Turn = tuple[Any, dict[str, Tensor], dict[str, Tensor]]
"""The network to update, with all that share its optimiser; losses, at least one, whose sum is minimised; figures that
are only logged. Each is a tensor of one number, by name."""


class NetworkRole(NamedTuple):
    """What a task needs a network for."""

    section: str
    """Of the settings, G, D or E: it chooses the network among `p2p.networks.NETWORKS[section]`, and its settings."""
    c_in: int
    """Channels that it sees."""
    c_out: int
    """Channels that it makes."""


class KeptGenerator(NamedTuple):
    """A generator that is stored for use, validated and shown."""

    network: str
    """Name of the generator among the task's networks, of section G. In use it is called with x alone, or with x and
    the features of its encoder as further channels; the task is not asked."""
    encoder: str = ""
    """Name of the network, of section E, that tells it the features of each instance of y; empty: there is none."""
    reverse: bool = False
    """It makes x from y."""


@dataclass(frozen=True)
class TaskInputs:
    """What a task is given by the rest of an experiment."""

    folder: str
    """Of the training shards, for messages."""
    members: frozenset[str]
    """Of a sample: x, y, and instances where the shards have them."""
    channels: tuple[int, int]
    """Of x and y as the networks see them."""
    crop: tuple[int, int]
    """Height and width of a training picture, pixels."""
    groups: Mapping[str, int]
    """Images that share batch statistics in each network; 0: all of a step."""


class Task(ABC):
    """Which networks are trained, in which order, with which losses.

    A subclass is a dataclass whose keyword-only fields are its settings, under `task:` in a configuration. `networks`
    and `turns` are needed; the rest says what is usual.
    """

    @abstractmethod
    def networks(self, x: int, y: int) -> dict[str, NetworkRole]:
        """The networks that are trained, by name, for `x` and `y` of so many channels; in the order in which their
        first weights are drawn."""

    @abstractmethod
    def turns(self, batch: Mapping[str, Any], nets: Mapping[str, Any]) -> Iterator[Turn]:
        """Play one micro-batch: yield a turn for each update.

        Args:
            batch: `x`, `y` float `[N,C,H,W]` as the view encodes them, `z` int64 `[N]` (random keys, a function of
                the seed and of the position of each sample), `keys` (N names), and further members of a sample.
            nets: the networks by name, trained and frozen. `nets[name](...)` calls one, `nets[name].frozen(...)` calls
                it with its weights as constants.

        The loop does the backward of the sum of the losses, each a mean over the N images, and after the same turn of
        all micro-batches the optimiser's step. Then it asks for the next turn.
        """

    def shared(self) -> Sequence[Sequence[str]]:
        """Groups of names of networks that share an optimiser, which is called as the first of them in `networks`;
        every other network has its own. What no loss of a turn depends on gets the gradient 0 in it."""
        return ()

    def generators(self) -> dict[str, KeptGenerator]:
        """The generators that are kept for use, by name; the first is what `p2p.load` loads where none is named."""
        return {"G": KeptGenerator("G")}

    def frozen(self) -> dict[str, nn.Module]:
        """Networks that do not learn, by name, with their weights.

        Raises:
            ValueError: weights are missing or damaged; names the setting and the file.
        """
        return {}

    def check(self, inputs: TaskInputs) -> None:  # noqa: B027 - many need nothing
        """Find what does not fit, before anything starts.

        Raises:
            ValueError: data or networks are not what the task needs; one line that names the setting and the remedy.
        """

    def waiting(self) -> frozenset[str]:
        """Networks whose graphs of all micro-batches would wait in memory while another network is updated; they are
        computed again instead."""
        return frozenset()

    @property
    def members(self) -> frozenset[str]:
        """Members of a batch that `turns` reads."""
        return frozenset(["x", "y"])

    @property
    def paired(self) -> bool:
        """Whether y of a sample is what G should make of its x. Else there is no figure that compares the two."""
        return True

    def state(self) -> dict[str, Tensor]:
        """What the task remembers from step to step, tensors by name, the same on every rank; it is stored with each
        checkpoint. Who has it needs `load`, too."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned when the checkpoint was written, so that the run goes on exactly; tensors are
        on the run's device. Called before each stage of a run: with nothing where it begins, since pictures of a later
        stage are larger, and the task then remembers nothing.

        Raises:
            ValueError: it does not fit.
        """
        if state:
            raise ValueError(f"this task remembers nothing, and the checkpoint holds {', '.join(sorted(state))}")


def half_of_a_state(task: Any) -> str:
    """Which of `state` and `load` a class has not, where it has the other; empty where it has both or none."""
    own = [name for name in ("state", "load") if getattr(task, name) is not getattr(Task, name)]
    return {"state": "load", "load": "state"}[own[0]] if len(own) == 1 else ""


def missing_parts(task: Any) -> list[str]:
    """What a class or an object lacks to be a task."""
    names = [name for name in vars(Task) if not name.startswith("_")]
    return [name for name in names if getattr(getattr(task, name, None), "__isabstractmethod__", False)] + [
        name for name in names if not hasattr(task, name)
    ]
