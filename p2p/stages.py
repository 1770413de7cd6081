"""Coarse to fine: the stages of an experiment, each an experiment with smaller networks, and what one takes over
from the one before (Wang et al. 2018, section 3.2)."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from inspect import signature
from typing import Any, NamedTuple

from torch import Tensor, nn

from p2p import config as conf
from p2p.data.augment import Size, sides
from p2p.engine import parameter_of
from p2p.networks.network import has_coarser, is_in_parts, newest_part
from p2p.spec import network_class
from p2p.strict import checked

Shape = tuple[int, ...]


class Stage(NamedTuple):
    """A part of an experiment in which the networks stay the same."""

    config: conf.Config
    """As if this stage were all there is."""
    alone: bool
    """Of G only the newest part learns, beside networks that have no parts."""


def stages(config: conf.Config) -> Iterator[Stage]:
    """The stages of an experiment in order: `coarse`, then `schedule`, each with its first part `alone` where it has
    one.

    Raises:
        ValueError: there is nothing coarser than these networks, or the sizes cannot be halved.
    """
    schedules = [*config.coarse, config.schedule]
    for at, schedule in enumerate(schedules):
        coarser = len(schedules) - 1 - at
        where = "schedule" if not coarser else f"coarse.{at}"
        own = replace(coarsened(config, coarser) if coarser else config, schedule=schedule, coarse=())
        if not schedule.epochs + schedule.decay:
            raise ValueError(f"{where}.epochs: this stage has no length; give more than 0")
        if schedule.alone > schedule.epochs + schedule.decay:
            raise ValueError(f"{where}.alone: {schedule.alone} epochs are more than this stage has; give less")
        if schedule.alone and not is_in_parts(network_class("G", own.G.name)):
            raise ValueError(f"{where}.alone: is for a local G, whose enhancers can learn alone; leave it out")
        if schedule.alone:
            yield Stage(own, alone=True)
        if schedule.alone < schedule.epochs + schedule.decay:
            yield Stage(own, alone=False)


def coarsened(config: conf.Config, by: int) -> conf.Config:
    """The experiment with the networks that are trained `by` stages before these, at sizes halved as often; a D that
    knows no coarser one stays."""
    if not has_coarser(network_class("G", config.G.name)):
        raise ValueError("coarse: is for a local G, whose inner nets are trained first; leave it out, or G.name=local")
    G, D = (_coarser(section, getattr(config, section), by) for section in "GD")
    data = replace(config.data, load=halved(config.data.load, by, "load"), crop=halved(config.data.crop, by, "crop"))
    return replace(config, G=G, D=D, data=data)


def _coarser(section: str, part: conf.Part, by: int) -> conf.Part:
    network = network_class(section, part.name)
    if not has_coarser(network):
        return part
    name, settings = network.coarser(complete(network, part.settings, section), by)
    return conf.Part(name=name, settings=settings)


def complete(network: type[nn.Module], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Every setting of a network, those that are not given by their defaults.

    Raises:
        ValueError: one that is given is none of its, or of another type.
    """
    parameters = signature(network).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    return defaults | checked(network, dict(given), where)


def halved(size: Size, by: int, name: str) -> Size:
    """A setting in pixels, halved `by` times."""
    if not any(sides(size)):
        raise ValueError(f"data.{name}: coarse stages halve it, so it must be stated; 0 has no half")
    if any(side % 2**by for side in sides(size)):
        raise ValueError(f"data.{name}: {size} cannot be halved {by} times; use multiples of {2**by}")
    return size >> by if isinstance(size, int) else (size[0] >> by, size[1] >> by)


def taken_over(net: nn.Module, old: Mapping[str, Shape]) -> list[str]:
    """Names of the weights that `net` takes over from a network with the weights `old`: all where they are the same,
    else all but those that an enhancer or a scale less does not have.

    Raises:
        ValueError: names the first that does not fit.
    """
    own = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    if own == dict(old):
        return list(own)
    newest = newest_part(net)
    for name in sorted(own.keys() | old.keys()):
        if own.get(name) != old.get(name) and not name.startswith(newest):
            there, here = (str(shapes.get(name, "missing")) for shapes in (old, own))
            raise ValueError(f"{name} is {there} there and {here} here")
    return [name for name in own if not name.startswith(newest)]


def grown(net: nn.Module, own: Mapping[str, Tensor], old: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of an engine of `net` that begins as `own`, with weights and Adam's moments taken over from `old`.

    Raises:
        ValueError: as `taken_over`.
    """
    weights = {name[4:]: tuple(tensor.shape) for name, tensor in old.items() if name.startswith("net/")}
    names = set(taken_over(net, weights))
    fresh = {name: tensor for name, tensor in own.items() if name.startswith("net/")}
    return fresh | {name: tensor for name, tensor in old.items() if parameter_of(name) in names}
