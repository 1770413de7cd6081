"""The one room where names meet objects: a config becomes a plan that is known to fit."""

from collections.abc import Sequence

import torch
from torch import nn

from p2p import checks
from p2p import config as conf
from p2p.data.augment import sides
from p2p.data.mixed import Shards
from p2p.data.views import View
from p2p.plan import Plan
from p2p.sets import open_sets
from p2p.spec import Net, Spec
from p2p.stages import stages
from p2p.strict import checked
from p2p.tasks import TASKS
from p2p.tasks.pix2pix import Pix2Pix


def plan(config: conf.Config, world: int, device: torch.device, generations: Sequence[int] = ()) -> Plan:
    """Find every mistake that can be found before training; the last stage, with those before it.

    `generations` of the training shards are those that a run has begun with; see `p2p.resume.generations`.

    Raises:
        ValueError: one line that names the setting or the file, the rule and the remedy.
    """
    if config.task.name not in TASKS:
        raise ValueError(f"task.name: no task '{config.task.name}'; there are {', '.join(TASKS)}")
    constructor = TASKS[config.task.name]
    task = constructor(**checked(constructor, config.task.settings, "task"))
    train = open_sets(config.data, "train", generations)
    val = open_sets(config.data, "val") if config.data.val else None
    checks.sets(config.data, train, val)
    checks.task(task, train)
    made: Plan | None = None
    for stage in stages(config):
        networks, shapes = _networks(stage.config, task, train)
        made = Plan(stage.config, config, world, task, train, val, networks, shapes, stage.alone, made)
        checks.batch(made)
        checks.engine(made, device)
        checks.pixels(stage.config.data, [s for s in (train, val) if s])
        checks.networks(made)
    assert made is not None  # a schedule is at least one stage
    return made


def _networks(config: conf.Config, task: Pix2Pix, train: Shards) -> tuple[dict[str, Net], dict[str, nn.Module]]:
    """What rebuilds G and D, and both without memory."""
    d, index = config.data, train.index
    view = View(index.classes, index.instances and d.boundaries)
    x, y = train.channels
    channels = task.channels(view.channels(x), y)
    encoder = Net(config.E.name, config.E.settings, channels["E"]) if "E" in channels else None
    resized = any(sides(d.load))
    G = Spec(config.G.name, config.G.settings, channels["G"], d.crop, resized, d.reverse, view, encoder)
    networks: dict[str, Net] = {"G": G}
    if "D" in channels:
        networks["D"] = Net(config.D.name, config.D.settings, channels["D"])
    with torch.device("meta"):
        return networks, {name: net.build(name) for name, net in networks.items()}
