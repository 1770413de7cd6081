"""The one room where names meet objects: settings become an experiment that is known to fit, and its networks."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from p2p import checks, contract_checks
from p2p import config as conf
from p2p.data.augment import sides
from p2p.data.dataset import DataSet
from p2p.data.views import View, view_class
from p2p.engine import Engine
from p2p.experiment import Experiment, together
from p2p.forward import Forward
from p2p.networks.blocks import set_recompute
from p2p.networks.network import part_alone, parts
from p2p.sets import open_sets
from p2p.spec import Net, Spec
from p2p.stages import stages
from p2p.strict import checked
from p2p.tasks import TASKS, NetworkRole, Task
from p2p.tasks.task import half_of_a_state, missing_parts
from p2p.zero import ZeRO


def build_experiment(
    config: conf.Config, world: int, device: torch.device, generations: Sequence[int] = ()
) -> Experiment:
    """Find every mistake that can be found before training; the last stage, with those before it.

    `generations` of the training shards are those that a run has begun with; see `p2p.resume.generations`.

    Raises:
        ValueError: one line that names the setting or the file, the rule and the remedy.
    """
    task = build_task(config.task)
    train = open_sets(config.data, "train", generations)
    val = open_sets(config.data, "val") if config.data.val else None
    checks.sets(config.data, train, val)
    contract_checks.validation(config.validation, task, measured=val is not None)
    built: Experiment | None = None
    for stage in stages(config):
        view = build_view(stage.config, train)
        roles, generators = _roles(stage.config, task, train, view)
        nets = {name: _net(stage.config, role) for name, role in roles.items()}
        with torch.device("meta"):
            shapes = {name: net.build(roles[name].section) for name, net in nets.items()}
        built = Experiment(
            stage.config, config, world, task, train, val, view, roles, nets, generators, shapes, stage.alone, built
        )
        contract_checks.view(built)
        contract_checks.task(built)
        checks.batch(built)
        checks.engine(built, device)
        checks.pixels(stage.config.data, [s for s in (train, val) if s])
        contract_checks.networks(built)
        contract_checks.generators(built)
        contract_checks.metrics(built)
    assert built is not None  # a schedule is at least one stage
    contract_checks.frozen(built)
    return built


def build_task(part: conf.Part) -> Task:
    """The task of a setting.

    Raises:
        ValueError: there is none of this name, it is no task, or a setting of it is wrong.
    """
    if part.name not in TASKS:
        raise ValueError(f"task.name: no task '{part.name}'; there are {', '.join(TASKS)}")
    constructor = TASKS[part.name]
    if isinstance(constructor, type):  # before it is called: an abstract class cannot be
        _check_parts(part.name, constructor)
    task = constructor(**checked(constructor, part.settings, "task"))
    _check_parts(part.name, task)
    return task


def _check_parts(name: str, task: Any) -> None:
    if missing := missing_parts(task):
        raise ValueError(f"task.name: {name} lacks {', '.join(missing)}; make it a subclass of p2p.Task with them")
    if isinstance(task, type) and (other := half_of_a_state(task)):
        raise ValueError(f"task.name: {name} lacks {other}; what a task remembers is stored by state() and load()")


def build_view(config: conf.Config, train: DataSet) -> View:
    """The view of a setting, of this training set.

    Raises:
        ValueError: there is none of this name, or a setting of it is wrong.
    """
    view = view_class(config.view.name)
    settings = checked(view, config.view.settings, "view")
    return view(train.index.classes, train.index.instances and config.data.boundaries, **settings)


def _roles(
    config: conf.Config, task: Task, train: DataSet, view: View
) -> tuple[dict[str, NetworkRole], dict[str, Spec]]:
    """What the task needs networks for, and what rebuilds the generators that are kept."""
    with contract_checks.own_code(f"view.name: {config.view.name}"):
        channels = view.channels(*train.channels)
    with contract_checks.own_code(f"task.name: {config.task.name}"):
        roles = task.networks(*channels)
        contract_checks.roles(config.task.name, task, roles)
        return roles, {name: _spec(config, roles, name, task, view, train) for name in task.generators()}


def _net(config: conf.Config, role: NetworkRole) -> Net:
    part = getattr(config, role.section)
    return Net(part.name, part.settings, (role.c_in, role.c_out))


def _spec(
    config: conf.Config, roles: dict[str, NetworkRole], name: str, task: Task, view: View, train: DataSet
) -> Spec:
    """What rebuilds a generator, and what it is trained on."""
    kept = task.generators()[name]
    d, G = config.data, _net(config, roles[kept.network])
    x, y = train.channels
    return Spec(
        G.name,
        G.settings,
        G.channels,
        d.crop,
        any(sides(d.load)),
        d.reverse != kept.reverse,
        view.reversed() if kept.reverse else view,
        _net(config, roles[kept.encoder]) if kept.encoder else None,
        (y, x) if kept.reverse else (x, y),
        task.paired,
        name,
    )


def build_networks(experiment: Experiment, device: torch.device) -> dict[str, Forward]:
    """The networks by name: those that learn with their first weights, the same on every rank, in the engines of their
    optimisers; and the frozen ones."""
    config = experiment.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        nets = {name: net.build(experiment.roles[name].section) for name, net in experiment.nets.items()}
    for name, role in experiment.roles.items():
        if config.engine.recompute and role.section != "D":
            set_recompute(nets[name])
    called: dict[str, Forward] = {}
    for names in experiment.optimizers.values():
        called |= _engine(experiment, {name: nets[name] for name in names}, device)
    return {name: called[name] for name in nets} | _frozen(experiment, device)


def _engine(experiment: Experiment, nets: dict[str, nn.Module], device: torch.device) -> dict[str, Forward]:
    """The networks of one optimiser, which call and update them."""
    c, net = experiment.config, together(nets)
    make: Any = Engine
    if c.engine.name == "deepspeed":
        make = partial(ZeRO, stage=c.engine.zero_stage, offload=c.engine.offload)
    if experiment.alone and any(experiment.roles[name].section == "G" for name in nets):
        for name, weight in net.named_parameters():
            weight.requires_grad_(name.startswith(part_alone(net)))
    engine = make(
        net,
        lr=c.optimizer.lr,
        betas=(c.optimizer.beta1, c.optimizer.beta2),
        parts=parts(net),
        reduction=c.engine.reduction,
        **_settings(c.engine, device),
    )
    called: dict[str, Forward] = engine.networks() if len(nets) > 1 else dict.fromkeys(nets, engine)
    for name, forward in called.items():
        forward.recompute = name in experiment.task.waiting() and 0 < experiment.micro < max(experiment.shares)
    return called


def _frozen(experiment: Experiment, device: torch.device) -> dict[str, Forward]:
    engine, nets = experiment.config.engine, experiment.task.frozen()
    if engine.channels_last:
        nets = {name: net.to(memory_format=torch.channels_last) for name, net in nets.items()}
    return {name: Forward(net.requires_grad_(False).eval(), **_settings(engine, device)) for name, net in nets.items()}


def _settings(engine: conf.Engine, device: torch.device) -> dict[str, Any]:
    """How networks are called."""
    return {
        "device": device, "precision": engine.precision, "channels_last": engine.channels_last,
        "compile": engine.compile,
    }  # fmt: skip
