"""What has to fit together in an experiment; every mistake is one line that names the setting, the rule, the remedy."""

from importlib.util import find_spec
from math import lcm

import torch

from p2p import config as conf
from p2p.data.shardset import ShardSet
from p2p.exact import PARTS
from p2p.networks.norm import SyncNorm
from p2p.plan import Plan


def batch(plan: Plan) -> None:
    """The batch divides over ranks, micro-batches, groups of statistics, and lanes of the order.

    Raises:
        ValueError: it does not.
    """
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
    for name, group in plan.groups.items():
        if d.batch % group or d.micro % group or d.batch // group < world:
            raise ValueError(
                f"{name}.group: {group} images share statistics, but data.batch {d.batch} on {world} ranks in"
                f" micro-batches of {d.micro or 'all'} splits groups; use a batch of {world} x a multiple of {group},"
                f" or {name}.group=1"
            )
    unit = lcm(*plan.groups.values())
    if len(set(plan.groups.values())) > 1 and (d.batch % unit or d.micro % unit or d.batch // unit < world):
        groups = " and ".join(f"{name}.group {group}" for name, group in plan.groups.items())
        raise ValueError(
            f"{groups}: only multiples of {unit} images hold whole groups of both, but data.batch is {d.batch} on"
            f" {world} ranks in micro-batches of {d.micro or 'all'}; use {world} x {unit}, or equal groups"
        )


def engine(plan: Plan, device: torch.device) -> None:
    """The engine exists here, and can do what is asked.

    Raises:
        ValueError: it does not, or cannot.
    """
    e, d, world = plan.config.engine, plan.config.data, plan.world
    for name, net in plan.shapes.items():
        sync = any(isinstance(m, SyncNorm) for m in net.modules())
        if sync and world > 1 and device.type == "cpu":
            raise ValueError(f"{name}.norm: sync over {world} ranks needs GPUs; use batch, instance or none on CPUs")
        if sync and world > 1 and d.micro and len(set(plan.shares)) > 1:
            raise ValueError(
                f"{name}.norm: sync needs as many micro-batches on every rank; use a multiple of {world} images"
            )
        if sync and e.reduction == "exact":
            raise ValueError(f"{name}.norm: sync depends on the number of ranks; use batch, or engine.reduction=fast")
        if name == "D" and plan.task.gan == "wgan" and (sync or plan.groups[name] > 1):
            raise ValueError("D.norm: mixes images, which wgan's penalty forbids; use instance, none or D.group=1")
    if e.name == "ddp" and (e.zero_stage or e.offload):
        raise ValueError(
            "engine.zero_stage, engine.offload: are DeepSpeed's; use engine.name=deepspeed, or leave them out"
        )
    if e.offload and not e.zero_stage:
        raise ValueError("engine.offload: stage 0 keeps Adam's state whole; use engine.zero_stage=1 or 2")
    if e.name == "deepspeed" and not find_spec("deepspeed"):
        raise ValueError("engine.name: deepspeed is not installed; pip install 'p2p[deepspeed]', or use ddp")
    if e.reduction == "exact":
        _exact(e, d, plan.micro, world)


def _exact(e: conf.Engine, d: conf.Data, part: int, world: int) -> None:
    if e.name == "deepspeed" or e.compile:
        raise ValueError(
            "engine.reduction: exact needs engine.name=ddp and engine.compile=false, whose bits are its own"
        )
    if d.batch % part or d.batch // part > PARTS or d.batch // part < world:
        raise ValueError(
            f"data.micro: exact sums parts of {part} images, and data.batch {d.batch} must hold a whole number of them,"
            f" at least {world} for the ranks, at most {PARTS}; use another data.micro"
        )


def pixels(data: conf.Data, sets: list[ShardSet]) -> None:
    """The crop fits the pictures.

    Raises:
        ValueError: it does not.
    """
    if 0 < data.load < data.crop:
        raise ValueError(f"data.load: {data.load} is less than data.crop {data.crop}; use at least {data.crop}, or 0")
    for shards in sets:
        h, w = shards.index.smallest
        if not data.load and min(h, w) < data.crop:
            raise ValueError(
                f"data.crop: {data.crop} does not fit pictures of {h}x{w} in {shards.folder}; use data.load"
            )


def networks(plan: Plan) -> None:
    """Each network takes the crop; tried on shapes alone.

    Raises:
        ValueError: it does not.
    """
    crop = plan.config.data.crop
    for name, net in plan.shapes.items():
        pictures = torch.empty(1, plan.networks[name].channels[0], crop, crop, device="meta")
        try:
            net.eval()(pictures)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{name}: does not take pictures of data.crop {crop} pixels ({error})") from error
