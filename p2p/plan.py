"""An experiment on a number of ranks: what follows from its settings, and the objects that it consists of."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from math import ceil, lcm
from typing import Any

import torch
from torch import nn

from p2p import config as conf
from p2p import schedule
from p2p.data.augment import Augment, sides
from p2p.data.decode import CPU
from p2p.data.epochs import Epochs, Sequential
from p2p.data.mix import Mix
from p2p.data.mixed import Shards
from p2p.data.reader import Holes, Stream
from p2p.data.steps import rank_slice
from p2p.data.views import View
from p2p.engine import Engine
from p2p.forward import Forward
from p2p.networks.blocks import set_recompute
from p2p.networks.encoder import Told
from p2p.networks.norm import GroupedBatchNorm
from p2p.networks.vgg import load_vgg, weights_file
from p2p.sets import lanes, order_of
from p2p.spec import Net, Spec
from p2p.stages import learning, parts
from p2p.tasks.pix2pix import Pix2Pix
from p2p.zero import ZeRO


@dataclass(frozen=True)
class Plan:
    """An experiment on a number of ranks, checked before any process group exists. See `p2p.build.plan`."""

    config: conf.Config
    """Of this stage, as if it were all there is; see `p2p.stages`."""
    experiment: conf.Config
    """As the user gave it."""
    world: int
    task: Pix2Pix
    train: Shards
    val: Shards | None
    networks: dict[str, Net]
    """G, which is a `Spec`, and D."""
    shapes: dict[str, nn.Module]
    """The networks without memory, on the meta device."""
    alone: bool = False
    """Of G only the newest enhancer learns, and the encoder."""
    before: "Plan | None" = None
    """The stage before, on the way from coarse to fine."""

    @cached_property
    def order(self) -> Epochs | Mix:
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
            f" (stage {self.stage}: {self.generator.name} G at {h}x{w}{alone})"
            if self.before or self.alone or self.config != self.experiment
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

    def at(self, images: int) -> "Plan":
        """The stage that goes on after `images` images; of its end and beyond, this one."""
        return self.before.at(images) if self.before and images < self.begin else self

    @cached_property
    def rate(self) -> schedule.Factor:
        """Factor of the learning rate, of images seen."""
        s = self.config.schedule
        of_stage = schedule.factor(s.name, s.epochs, s.decay, self.order.size)
        return lambda images: of_stage(images - self.origin)

    @property
    def view(self) -> View:
        """What x is made of."""
        return self.generator.view

    @property
    def generator(self) -> Spec:
        """What rebuilds G."""
        spec = self.networks["G"]
        assert isinstance(spec, Spec)
        return spec

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
        return {name: lcm(*_groups(net)) for name, net in self.players.items()}

    @property
    def players(self) -> dict[str, nn.Module]:
        """The networks without memory, E apart from G."""
        G = self.shapes["G"]
        return {**self.shapes, **({"G": G.G, "E": G.E} if isinstance(G, Told) else {})}

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

    def engines(self, device: torch.device) -> dict[str, Engine]:
        """The networks with their first weights, the same on every rank, each in its engine."""
        c = self.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(c.seed)
            nets = {name: spec.build(name) for name, spec in self.networks.items()}
        make = (
            partial(ZeRO, stage=c.engine.zero_stage, offload=c.engine.offload)
            if c.engine.name == "deepspeed"
            else Engine
        )
        if self.alone:
            for name, weight in nets["G"].named_parameters():
                weight.requires_grad_(name.startswith(learning(nets["G"])))
        if c.engine.recompute:
            set_recompute(nets["G"])
        return {
            name: make(
                net,
                lr=c.optimizer.lr,
                betas=(c.optimizer.beta1, c.optimizer.beta2),
                parts=parts(net),
                # G's graphs of all micro-batches wait while D, where it moves first, has its turn.
                recompute=name == "G" and self.task.first == "D" and 0 < self.micro < max(self.shares),
                reduction=c.engine.reduction,
                **self._called(device),
            )
            for name, net in nets.items()
        }

    def fixed(self, device: torch.device) -> dict[str, Forward]:
        """The networks of the task that do not learn."""
        if not self.task.perceptual:
            return {}
        file = weights_file(self.task.vgg, self.task.vgg_weights)
        vgg = load_vgg(self.task.vgg, self.task.vgg_input, file)
        if self.config.engine.channels_last:
            vgg = vgg.to(memory_format=torch.channels_last)
        return {"VGG": Forward(vgg, **self._called(device))}

    def _called(self, device: torch.device) -> dict[str, Any]:
        e = self.config.engine
        return {
            "device": device, "precision": e.precision, "channels_last": e.channels_last, "compile": e.compile,
        }  # fmt: skip


def _groups(net: nn.Module) -> list[int]:
    """Images that share statistics in each norm."""
    return [m.group for m in net.modules() if isinstance(m, GroupedBatchNorm)]
