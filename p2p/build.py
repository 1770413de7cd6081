"""The one room where names meet objects: a config becomes a plan that is known to fit, and the plan engines."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any

import torch
from torch import nn

from p2p import config as conf
from p2p import schedule
from p2p.data.augment import Augment
from p2p.data.order import Order, Sequential, rank_slice
from p2p.data.reader import Holes, Stream
from p2p.data.shardset import ShardSet
from p2p.engine import Engine
from p2p.generator import Spec
from p2p.networks.norm import GroupedBatchNorm, SyncNorm
from p2p.strict import checked
from p2p.tasks import TASKS
from p2p.tasks.pix2pix import Pix2Pix

AUTO_LANES = 1024


@dataclass(frozen=True)
class Plan:
    """An experiment on a number of ranks, checked before any process group exists. See `plan`."""

    config: conf.Config
    world: int
    task: Pix2Pix
    train: ShardSet
    val: ShardSet | None
    networks: dict[str, Spec]
    shapes: dict[str, nn.Module]
    """The networks without memory, on the meta device."""

    @cached_property
    def order(self) -> Order:
        """The global order of the training samples."""
        data = self.config.data
        lanes = data.lanes or ceil(AUTO_LANES / data.batch) * data.batch
        return Order(self.train.counts, self.config.seed, lanes, data.block, data.window)

    @cached_property
    def total(self) -> int:
        """Images of the whole run: its epochs, rounded up to whole steps."""
        epochs = self.config.schedule.epochs + self.config.schedule.decay
        return ceil(round(epochs * self.order.size) / self.config.data.batch) * self.config.data.batch

    @cached_property
    def rate(self) -> schedule.Factor:
        """Factor of the learning rate, of images seen."""
        s = self.config.schedule
        return schedule.factor(s.name, s.epochs, s.decay, self.order.size)

    @property
    def pinned(self) -> dict[str, Any]:
        """What the order of the samples depends on; a resumed run must agree."""
        o = self.order
        sizes = {"seed": o.seed, "lanes": o.lanes, "block": o.block, "window": o.window}
        return {**sizes, "samples": o.size, "shards": self.train.fingerprint}

    @property
    def shares(self) -> list[int]:
        """Images of each rank in a step."""
        return [len(rank_slice(0, self.config.data.batch, r, self.world)) for r in range(self.world)]

    def describe(self) -> str:
        """What was derived, for the reader of the log."""
        c, shares = self.config, self.shares
        images = f"{min(shares)}" if min(shares) == max(shares) else f"{min(shares)} to {max(shares)}"
        micro = f" in micro-batches of {c.data.micro}" if c.data.micro else ""
        nets = ", ".join(f"{k} {s.name} {_parameters(self.shapes[k]):,}" for k, s in self.networks.items())
        return "\n".join(
            [
                f"data    {self.train.folder}: {self.order.size:,} pairs in {len(self.train.counts)} shards"
                + (f"; validation {self.val.folder}: {sum(self.val.counts):,}" if self.val else "; no validation"),
                f"nets    {nets} parameters, {c.engine.precision}",
                f"batch   {c.data.batch} = {self.world} rank{'s' * (self.world > 1)} x {images} images{micro}",
                f"run     {self.total:,} images, {self.total // c.data.batch:,} steps",
            ]
        )

    def stream(self, rank: int, world: int, report: Callable[[str], None]) -> Stream:
        """The training batches of one rank; `report` is told of unreadable samples."""
        d, seed = self.config.data, self.config.seed
        holes = Holes(int(d.max_bad * self.order.size), report)
        augment = Augment(d.load, d.crop, d.mirror, seed=seed)
        return Stream(self.train, self.order, augment, holes, d.batch, rank, world, seed, d.threads)

    def validation(self, rank: int, world: int, batch: int, report: Callable[[str], None]) -> Stream:
        """The validation pairs of one rank, each once, in the order of the shards."""
        assert self.val is not None
        d = self.config.data
        augment = Augment(d.load, d.crop, mirror=False, train=False)
        holes = Holes(int(d.max_bad * sum(self.val.counts)), report)
        order = Sequential(self.val.counts)
        return Stream(self.val, order, augment, holes, batch, rank, world, threads=d.threads)

    def engines(self, device: torch.device) -> dict[str, Engine]:
        """The networks with their first weights, the same on every rank, each in its engine."""
        c = self.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(c.seed)
            nets = {name: spec.build(name) for name, spec in self.networks.items()}
        return {
            name: Engine(
                net,
                device=device,
                lr=c.optimizer.lr,
                betas=(c.optimizer.beta1, c.optimizer.beta2),
                precision=c.engine.precision,
                channels_last=c.engine.channels_last,
                compile=c.engine.compile,
                recompute=name == "G" and 0 < c.data.micro < max(self.shares),
            )
            for name, net in nets.items()
        }


def plan(config: conf.Config, world: int, device: torch.device) -> Plan:
    """Find every mistake that can be found before training.

    Raises:
        ValueError: one line that names the setting or the file, the rule and the remedy.
    """
    if config.task.name not in TASKS:
        raise ValueError(f"task.name: no task '{config.task.name}'; there are {', '.join(TASKS)}")
    constructor = TASKS[config.task.name]
    task = constructor(**checked(constructor, config.task.settings, "task"))
    train = ShardSet(config.data.train, config.data.reverse)
    val = ShardSet(config.data.val, config.data.reverse) if config.data.val else None
    if val and val.channels != train.channels:
        raise ValueError(f"data.val: {val.channels} channels of x and y, data.train has {train.channels}; pack alike")
    networks = {name: _spec(config, name, c) for name, c in task.channels(*train.channels).items()}
    with torch.device("meta"):
        shapes = {name: spec.build(name) for name, spec in networks.items()}
    made = Plan(config, world, task, train, val, networks, shapes)
    _check_batch(made, device)
    _check_pixels(config.data, [s for s in (train, val) if s])
    _check_networks(made)
    return made


def _spec(config: conf.Config, name: str, channels: tuple[int, ...]) -> Spec:
    part: conf.Part = getattr(config, name)
    d = config.data
    return Spec(part.name, part.settings, channels, d.crop, d.load > 0, d.reverse)


def _check_batch(plan: Plan, device: torch.device) -> None:
    d, world = plan.config.data, plan.world
    if d.batch < world:
        raise ValueError(f"data.batch: {d.batch} is less than the {world} ranks; use at least {world}, or fewer ranks")
    if d.lanes % d.batch:
        raise ValueError(f"data.lanes: {d.lanes} is not a multiple of data.batch {d.batch}; use 0 to have one chosen")
    plan.order, plan.rate  # noqa: B018 - they check their own settings
    if not plan.total:
        raise ValueError(
            f"schedule.epochs: {plan.config.schedule.epochs} of {plan.order.size} pairs is no image; give more"
        )
    for name, net in plan.shapes.items():
        sync = any(isinstance(m, SyncNorm) for m in net.modules())
        group = max((m.group for m in net.modules() if isinstance(m, GroupedBatchNorm)), default=1)
        if sync and world > 1 and device.type == "cpu":
            raise ValueError(f"{name}.norm: sync over {world} ranks needs GPUs; use batch, instance or none on CPUs")
        if any(n % group for n in [*plan.shares, d.micro]):
            raise ValueError(
                f"{name}.group: {group} images share statistics, but data.batch {d.batch} on {world} ranks in"
                f" micro-batches of {d.micro or 'all'} splits groups; use a batch of {world} x a multiple of {group},"
                f" or {name}.group=1"
            )
        if name == "D" and plan.task.gan == "wgan" and (sync or group > 1):
            raise ValueError("D.norm: mixes images, which wgan's penalty forbids; use instance, none or D.group=1")


def _check_pixels(data: conf.Data, sets: list[ShardSet]) -> None:
    if 0 < data.load < data.crop:
        raise ValueError(f"data.load: {data.load} is less than data.crop {data.crop}; use at least {data.crop}, or 0")
    for shards in sets:
        h, w = shards.index.smallest
        if not data.load and min(h, w) < data.crop:
            raise ValueError(
                f"data.crop: {data.crop} does not fit pictures of {h}x{w} in {shards.folder}; use data.load"
            )


def _check_networks(plan: Plan) -> None:
    """Run each network on shapes alone."""
    crop = plan.config.data.crop
    for name, net in plan.shapes.items():
        pictures = torch.empty(1, plan.networks[name].channels[0], crop, crop, device="meta")
        try:
            net.eval()(pictures)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{name}: does not take pictures of data.crop {crop} pixels ({error})") from error


def _parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())
