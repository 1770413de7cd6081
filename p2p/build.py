"""The one room where names meet objects: a config becomes a plan that is known to fit."""

import torch

from p2p import checks
from p2p import config as conf
from p2p.data.shardset import ShardSet
from p2p.generator import Spec
from p2p.plan import Plan
from p2p.strict import checked
from p2p.tasks import TASKS


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
    checks.batch(made)
    checks.engine(made, device)
    checks.pixels(config.data, [s for s in (train, val) if s])
    checks.networks(made)
    return made


def _spec(config: conf.Config, name: str, channels: tuple[int, ...]) -> Spec:
    part: conf.Part = getattr(config, name)
    d = config.data
    return Spec(part.name, part.settings, channels, d.crop, d.load > 0, d.reverse)
