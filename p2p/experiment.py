"""An experiment on a number of ranks: what follows from its settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil, lcm
from typing import Any

import torch
from torch import nn

from p2p import config as conf
from p2p import schedule
from p2p.data.augment import Augment, sides
from p2p.data.dataset import DataSet
from p2p.data.decode import CPU
from p2p.data.epochs import SampleOrder, Sequential
from p2p.data.reader import Holes, Stream
from p2p.data.steps import rank_slice
from p2p.data.views import View
from p2p.metrics import METRICS, Metric
from p2p.networks.norm import shared_images
from p2p.sets import lanes, order_of
from p2p.spec import Net, Spec, file_of
from p2p.tasks import NetworkRole, Task


@dataclass(frozen=True)
class Experiment:
    """A stage of an experiment on a number of ranks, checked before any process group exists; see
    `p2p.build.build_experiment`."""

    config: conf.Config
    """Of this stage, as if it were all there is; see `p2p.stages`."""
    given: conf.Config
    """As the user gave it."""
    world: int
    task: Task
    train: DataSet
    val: DataSet | None
    view: View
    """What x and y are made of."""
    roles: dict[str, NetworkRole]
    """What the task needs each of its networks for."""
    nets: dict[str, Net]
    """What rebuilds each of them."""
    generators: dict[str, Spec]
    """What rebuilds each generator that is kept."""
    shapes: dict[str, nn.Module]
    """The networks without memory, on the meta device."""
    alone: bool = False
    """Of each G only the newest part learns."""
    before: "Experiment | None" = None
    """The stage before, on the way from coarse to fine."""

    @cached_property
    def order(self) -> SampleOrder:
        """The global order of the training samples."""
        return order_of(self.config.data, self.config.seed, self.train)

    @cached_property
    def stage(self) -> int:
        """Its number, from 0."""
        return self.before.stage + 1 if self.before else 0

    @property
    def name(self) -> str:
        """What to add to a line about it; nothing where there is no other."""
        h, w = sides(self.config.data.crop)
        alone = ", the newest enhancer alone" * self.alone
        return (
            f" (stage {self.stage}: {self.config.G.name} G at {h}x{w}{alone})"
            if self.before or self.alone or self.config != self.given
            else ""
        )

    @property
    def begin(self) -> int:
        """Images seen when this stage begins."""
        return self.before.total if self.before else 0

    @property
    def origin(self) -> int:
        """Images seen when its schedule begins, which may be in the stage before."""
        return self.before.origin if self.before and self.before.alone else self.begin

    @cached_property
    def total(self) -> int:
        """Images seen when it ends: its epochs, rounded up to whole steps."""
        s, batch = self.config.schedule, self.config.data.batch
        epochs = s.alone if self.alone else s.epochs + s.decay
        return self.origin + ceil(round(epochs * self.order.size) / batch) * batch

    def at(self, images: int) -> "Experiment":
        """The stage that goes on after `images` images; of its end and beyond, this one."""
        return self.before.at(images) if self.before and images < self.begin else self

    @cached_property
    def rate(self) -> schedule.Factor:
        """Factor of the learning rate, of images seen."""
        s = self.config.schedule
        of_stage = schedule.factor(s.name, s.epochs, s.decay, self.order.size)
        return lambda images: of_stage(images - self.origin)

    @cached_property
    def optimizers(self) -> dict[str, tuple[str, ...]]:
        """Names of the networks that each optimiser updates, in the order of the task's; it is called as the first."""
        found: dict[str, tuple[str, ...]] = {}
        for name in self.roles:
            group = next((group for group in self.task.shared() if name in group), [name])
            members = tuple(other for other in self.roles if other in group)
            found.setdefault(members[0], members)
        return found

    @cached_property
    def generator_optimizers(self) -> list[str]:
        """Names of the optimisers that update a generator which is kept."""
        kept = {generator.network for generator in self.task.generators().values()}
        return [name for name, networks in self.optimizers.items() if kept & set(networks)]

    @property
    def generator_files(self) -> dict[str, str]:
        """Where each generator is stored in a checkpoint."""
        return {name: file_of(name if at else "") for at, name in enumerate(self.generators)}

    def weights(self, optimizer: str) -> nn.Module:
        """The networks of an optimiser without memory, named as in its file."""
        return together({name: self.shapes[name] for name in self.optimizers[optimizer]})

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """What is measured on the validation pairs."""
        return {name: METRICS[name] for name in self.config.validation.metrics or ["L1"] * self.task.paired}

    @property
    def best(self) -> str:
        """The metric that says which generator is the best; empty where none does."""
        given = self.config.validation.best or next(iter(self.metrics), "none")
        return "" if given == "none" else given

    @property
    def pinned(self) -> dict[str, Any]:
        """What the order of the samples depends on; a resumed run must agree."""
        data = self.config.data
        sizes = {"seed": self.config.seed, "lanes": lanes(data), "block": data.block, "window": data.window}
        return {**sizes, "samples": self.order.size, "shards": self.train.fingerprint}

    @property
    def held(self) -> dict[str, Any]:
        """What a checkpoint of it says of the data."""
        return {"stage": self.stage, "order": self.pinned, "generations": self.train.generations}

    @cached_property
    def groups(self) -> dict[str, int]:
        """Images that share batch statistics in each network."""
        return {name: shared_images(net) for name, net in self.shapes.items()}

    @property
    def unit(self) -> int:
        """Consecutive images of a step that stay together on a rank."""
        return self.micro if self.config.engine.reduction == "exact" else lcm(*self.groups.values())

    @property
    def micro(self) -> int:
        """Images per forward and backward; 0: a rank's whole share. Bits depend on it, so `exact` always states it."""
        exact = self.config.engine.reduction == "exact"
        return self.config.data.micro or (lcm(*self.groups.values()) if exact else 0)

    @property
    def shares(self) -> list[int]:
        """Images of each rank in a step."""
        batch = self.config.data.batch
        return [len(rank_slice(0, batch, r, self.world, self.unit)) for r in range(self.world)]

    def facing(self, name: str, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """A batch as a generator sees it: x and y change places for one that makes x of y."""
        if not self.task.generators()[name].reverse:
            return batch
        return {**batch, "x": batch["y"], "y": batch["x"]}

    def stream(self, rank: int, world: int, report: Callable[[str], None], device: torch.device = CPU) -> Stream:
        """The training batches of one rank; `report` is told of unreadable samples, `device` decodes."""
        d, seed = self.config.data, self.config.seed
        holes = Holes(int(d.max_bad * self.order.size), report)
        augment = Augment(d.load, d.crop, d.mirror, seed=seed, masks=self.view.masks)
        return Stream(
            self.train,
            self.order,
            augment,
            holes,
            d.batch,
            rank,
            world,
            seed,
            d.threads,
            self.unit,
            d.ahead,
            device if d.decode == "gpu" else CPU,
        )

    def validation(self, rank: int, world: int, batch: int, report: Callable[[str], None]) -> Stream:
        """The validation pairs of one rank, each once, in the order of the shards."""
        assert self.val is not None
        d = self.config.data
        augment = Augment(d.load, d.crop, mirror=False, train=False, masks=self.view.masks)
        holes = Holes(int(d.max_bad * sum(self.val.counts)), report)
        order = Sequential(self.val.counts)
        return Stream(self.val, order, augment, holes, batch, rank, world, threads=d.threads)


def together(nets: Mapping[str, nn.Module]) -> nn.Module:
    """The networks of an optimiser as one module: a network itself, or several by name."""
    return next(iter(nets.values())) if len(nets) == 1 else nn.ModuleDict(nets)
