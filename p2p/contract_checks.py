"""The pieces that an experiment is made of keep their contracts: task, view, networks, generators, metrics. Each may be
somebody's own, so each is tried before anything starts, and every mistake is one line that names it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn

from p2p import config as conf
from p2p.data.augment import sides
from p2p.data.views import View
from p2p.evaluate import take
from p2p.experiment import Experiment
from p2p.metrics import METRICS
from p2p.networks import NETWORKS
from p2p.networks.network import multiple_of
from p2p.networks.norm import batch_norms, is_synced, shared_images
from p2p.spec import Spec
from p2p.tasks import NetworkRole, Task, TaskInputs

RESERVED = ("ema", "generator", "task", "state", "config", "clusters")
"""Beginnings of names that other files of a checkpoint have."""
SIDE = 8
"""Of the picture that a view is tried on, pixels."""


@contextmanager
def own_code(where: str) -> Iterator[None]:
    """What somebody's own piece raises, in a line that names the piece.

    Raises:
        ValueError: in place of whatever it is.
    """
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        said = str(error).partition("\n")[0]
        raise ValueError(f"{where} fails ({type(error).__name__}: {said})") from error


def roles(name: str, chosen: Task, networks: Mapping[str, NetworkRole]) -> None:
    """What the task called `name` says of its networks hangs together, and their names can be files.

    Raises:
        ValueError: it does not.
    """
    kept = chosen.generators()
    for network in [*networks, *kept]:
        if not network.isidentifier() or network.startswith(RESERVED):
            raise ValueError(
                f"task.name: {name} calls a network '{network}'; use letters and digits, and not {', '.join(RESERVED)},"
                " with which other files of a checkpoint begin"
            )
    for network, role in networks.items():
        if role.section not in NETWORKS:
            raise ValueError(f"task.name: {name} has {network} in section {role.section}; use {', '.join(NETWORKS)}")
    shared = list(chain.from_iterable(chosen.shared()))
    if any(isinstance(group, str) or not group for group in chosen.shared()) or len(set(shared)) < len(shared):
        raise ValueError(
            f"task.name: {name} shares optimisers of {list(chosen.shared())}; give lists of names, each name in one"
        )
    wanted = {*shared, *(g.network for g in kept.values())}
    wanted |= {g.encoder for g in kept.values() if g.encoder}
    if unknown := sorted(wanted - networks.keys()):
        raise ValueError(
            f"task.name: {name} shares or keeps {', '.join(unknown)}, and its networks are {', '.join(networks)}"
        )
    if not kept:
        raise ValueError(f"task.name: {name} keeps no generator; name one in generators()")


def task(experiment: Experiment) -> None:
    """The task finds what it needs.

    Raises:
        ValueError: it does not.
    """
    chosen, train = experiment.task, experiment.train
    channels, crop = experiment.view.channels(*train.channels), sides(experiment.config.data.crop)
    groups = {name: 0 if is_synced(net) else shared_images(net) for name, net in experiment.shapes.items()}
    with own_code(f"task.name: {experiment.config.task.name}, check()"):
        chosen.check(TaskInputs(train.folder, train.members, channels, crop, groups))
    if missing := sorted(chosen.members - train.members):
        raise ValueError(
            f"task.name: {experiment.config.task.name} reads {' and '.join(missing)} of each sample, and"
            f" {train.folder} has none; pack it with them"
        )


def view(experiment: Experiment) -> None:
    """The view finds its members, makes the channels that it promises, and can be stored with a generator.

    Raises:
        ValueError: it does not.
    """
    name, train = experiment.config.view.name, experiment.train
    if missing := sorted(experiment.view.members - train.members):
        raise ValueError(f"view.name: {name} needs {' and '.join(missing)}, and {train.folder} has none")
    for spec in experiment.generators.values():
        with own_code(f"view.name: {name}"):
            made, target, seen = _decoded(spec.view, spec.pictures)
            expected = spec.view.channels(*spec.pictures)
            found = seen["x"].shape[1], seen["y"].shape[1]
        if found != expected:
            raise ValueError(f"view.name: {name} encodes {found} channels, and says that they are {expected}")
        if made.shape != target.shape:
            raise ValueError(
                f"view.name: {name} decodes to {tuple(made.shape)}, and its target is {tuple(target.shape)}; make them"
                " alike"
            )
        with own_code(f"view.name: {name} cannot be stored with a generator; it"):
            same = Spec.from_tree(json.loads(json.dumps(spec.to_tree()))).view == spec.view
        if not same:
            raise ValueError(f"view.name: {name} is not the same after it was stored; make all its settings fields")


def _decoded(view: View, channels: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """Of a black picture: what the view makes of its y there and back, what it should be, and what networks see."""
    batch: dict[str, Any] = {
        name: torch.zeros(1, count, SIDE, SIDE, dtype=torch.uint8) for name, count in zip("xy", channels, strict=True)
    }
    batch["instances"] = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.int32)
    seen = view.encode(batch)
    return view.decode(seen["y"], seen["x"]), view.target(batch), seen


def networks(experiment: Experiment) -> None:
    """Each network takes the crop, and answers as its role demands; tried on shapes alone.

    Raises:
        ValueError: it does not.
    """
    crop = experiment.config.data.crop
    for name, net in experiment.shapes.items():
        role = experiment.roles[name]
        if role.section != "D":
            _has_size(net, role.section)
        pictures = torch.empty(1, role.c_in, *sides(crop), device="meta")
        if found := batch_norms(net):
            raise ValueError(
                f"{role.section}.name: {type(net).__name__} has {found[0]}, whose statistics depend on ranks and"
                " micro-batches; make norms by p2p.networks.norm.make_norm"
            )
        try:
            answer = _tried(net.eval(), role.section, pictures)
        except (ValueError, RuntimeError, TypeError, AttributeError) as error:
            raise ValueError(f"{name}: does not take pictures of data.crop {crop} pixels ({error})") from error
        _check_answer(name, role, answer, pictures)


def _has_size(net: nn.Module, section: str) -> None:
    try:
        multiple_of(net)
    except ValueError as error:
        raise ValueError(f"{section}.name: {error}") from error


def _tried(net: nn.Module, section: str, pictures: torch.Tensor) -> Any:
    if section == "G":
        return net(pictures, None)
    return net.maps(pictures) if section == "E" else net(pictures)  # type: ignore[operator]


def _check_answer(name: str, role: NetworkRole, answer: Any, pictures: torch.Tensor) -> None:
    if role.section == "D":
        if not (isinstance(answer, list) and answer and all(isinstance(maps, list) and maps for maps in answer)):
            raise ValueError(
                f"{name}: answers with {type(answer).__name__}; D gives a list of scales, each a list of its feature"
                " maps and last the logits"
            )
        return
    expected = (1, role.c_out, *pictures.shape[2:])
    if not isinstance(answer, torch.Tensor) or answer.shape != expected:
        found = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
        raise ValueError(f"{name}: makes {found} of {tuple(pictures.shape)}, and {expected} is needed")


def generators(experiment: Experiment) -> None:
    """Each generator that is kept can be used as `p2p.generator.Generator` does: of x, and the features of y.

    Raises:
        ValueError: it cannot.
    """
    name = experiment.config.task.name
    for kept_as, kept in experiment.task.generators().items():
        spec, role = experiment.generators[kept_as], experiment.roles[kept.network]
        x, y = spec.view.channels(*spec.pictures)
        features = experiment.roles[kept.encoder].c_out if kept.encoder else 0
        sections = role.section + (experiment.roles[kept.encoder].section if kept.encoder else "")
        if sections != "G" + "E" * bool(kept.encoder):
            raise ValueError(f"task.name: {name} keeps {kept_as} of section {' and '.join(sections)}; it is G, with E")
        if (role.c_in, role.c_out) != (x + features, y):
            raise ValueError(
                f"task.name: {name} keeps {kept_as} of {role.c_in} -> {role.c_out} channels; in use it gets"
                f" {x + features} and makes {y}"
            )


def frozen(experiment: Experiment) -> None:
    """Frozen networks have their weights, and names of their own.

    Raises:
        ValueError: they do not.
    """
    name = experiment.config.task.name
    with own_code(f"task.name: {name}, frozen()"):
        both = sorted(experiment.task.frozen().keys() & experiment.roles.keys())
    if both:
        raise ValueError(f"task.name: {name} has {both[0]} both trained and frozen; give one another name")


def validation(settings: conf.ValidationSettings, task: Task, *, measured: bool) -> None:
    """The metrics exist, and there is what they compare; `measured`: there are validation shards.

    Raises:
        ValueError: a name is unknown, or there is no target.
    """
    for name in settings.metrics:
        if name not in METRICS:
            raise ValueError(f"validation.metrics: no metric '{name}'; there is {', '.join(METRICS)}")
        if not all(hasattr(METRICS[name], part) for part in ("values", "result", "pairs")):
            raise ValueError(f"validation.metrics: {name} is no metric; make it a p2p.Metric of your function")
        if METRICS[name].pairs and not task.paired:
            raise ValueError(
                f"validation.metrics: {name} compares G(x) with the y of the same sample, which this task does not"
                " pair; leave it out"
            )
    if settings.metrics and not measured:
        raise ValueError("validation.metrics: there is nothing to measure on; give data.val, or leave them out")
    names = settings.metrics or ("L1",) * task.paired
    if settings.best not in ("", "none", *names):
        raise ValueError(
            f"validation.best: {settings.best} is not measured; add it to validation.metrics, or use one of"
            f" {', '.join([*names, 'none'])}"
        )


def metrics(experiment: Experiment) -> None:
    """Each metric takes pictures of this size and kind; tried on one.

    Raises:
        ValueError: it does not.
    """
    if not experiment.val:
        return
    for spec in experiment.generators.values():
        pictures = torch.zeros(1, _decoded(spec.view, spec.pictures)[0].shape[1], *sides(experiment.config.data.crop))
        for name, metric in experiment.metrics.items():
            with own_code(f"validation.metrics: {name} on pictures of data.crop {experiment.config.data.crop} pixels"):
                take(name, metric, pictures, pictures)
