"""Weights in the layout of the authors' pix2pixHD (NVIDIA/pix2pixHD) become ours: which network they are of, with its
settings, from names and shapes alone; and its tensors under our names.

Their modules are numbered in nn.Sequentials, where padding, norm and activation count, too: of `model`, 1 is the first
convolution, 4, 7, ... go down, then each residual block has a number, and each step up three. An instance norm has no
tensors; a batch norm has the number after its convolution's.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from p2p.networks.patchgan import STRIDED
from p2p.spec import Net

Found = tuple[Net, dict[str, Tensor]]
"""A network with what rebuilds it, and its weights."""
Places = dict[str, str]
"""Modules that have tensors: our name -> theirs."""
PREFIXES = re.compile(r"^(module\.|_orig_mod\.)+")
"""What nn.DataParallel and torch.compile put before every name."""
REMEDY = "give a file that pix2pixHD's training has written for one of its own networks"
FIELDS = {strided: field for field, strided in STRIDED.items() if strided}


def generator(given: Mapping[str, Tensor]) -> Found:
    """G, global or with any number of local enhancers. Tensors stay as they are, on any device.

    Raises:
        ValueError: it is none; names the first tensor that does not fit, what it should be, and the remedy.
    """
    state = bare(given)
    enhancers = _count(state, r"model(\d+)_1\.")
    norm, downs, blocks = _trunk_of(state, head=not enhancers)
    inside = {"downs": downs, "blocks": blocks, "norm": norm, "bias": True}
    if not enhancers:
        places = _trunk(downs, blocks) | {"head.conv": f"model.{_end(downs, blocks)}"}
        net = Net("global", {"width": _shape(state, "model.1")[0], **inside}, _channels(state, places["head.conv"]))
        return net, _fitted(net, "G", places, state)
    local = _count(state, r"model1_2\.(\d+)\.conv_block\.")
    places = _trunk(downs, blocks) | {"head.conv": f"model{enhancers}_2.{local + 4}"}
    for n in range(enhancers):
        places |= _enhancer(n, local)
    width = _shape(state, f"model{enhancers}_1.1")[0]
    settings = {"width": width, "enhancers": enhancers, "local_blocks": local, **inside}
    net = Net("local", settings, _channels(state, places["head.conv"]))
    return net, _fitted(net, "G", places, state)


def encoder(given: Mapping[str, Tensor]) -> Found:
    """E, the encoder of instance features. Raises as `generator`."""
    state = bare(given)
    norm, downs, _ = _trunk_of(state, head=True)
    places = _trunk(downs, 0) | {"head.conv": f"model.{_end(downs, 0)}"}
    settings = {"width": _shape(state, "model.1")[0], "downs": downs, "norm": norm, "bias": True}
    net = Net("instance", settings, _channels(state, places["head.conv"]))
    return net, _fitted(net, "E", places, state)


def discriminator(given: Mapping[str, Tensor]) -> Found:
    """D of any number of scales, from either of its layouts: a name for each layer, where the authors' code compares
    feature maps, or one Sequential a scale. In both number 0 is the coarsest, as in ours. Raises as `generator`."""
    state = bare(given)
    apart = any(name.startswith("scale") for name in state)
    scales = _count(state, r"scale(\d+)_layer" if apart else r"layer(\d+)\.")
    convs = _convs(state, r"scale0_layer\d+\.0" if apart else r"layer0\.\d+")
    if convs - 2 not in FIELDS:
        raise ValueError(f"scale 0 has {convs} convolutions, {min(FIELDS) + 2} to {max(FIELDS) + 2} expected; {REMEDY}")
    places: Places = {}
    for scale in range(scales):
        places |= _patchgan(scale, convs - 1, apart=apart)
    c_in, width = _shape(state, places["scales.0.convs.0"])[1::-1]
    norm = _norm(state, places["scales.0.norms.1"])
    settings = {"scales": scales, "field": FIELDS[convs - 2], "width": width, "norm": norm, "padding": 2, "bias": True}
    net = Net("multiscale", settings, (c_in, 1))
    return net, _fitted(net, "D", places, state)


def bare(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without what wrappers have put before their names.

    Raises:
        ValueError: it is no mapping of names to tensors.
    """
    if not isinstance(given, Mapping) or not given:
        raise ValueError(f"holds no weights by name; {REMEDY}")
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"{name} is no tensor, and only tensors are expected; {REMEDY}")
    return {PREFIXES.sub("", name): value for name, value in given.items()}


# What their names and shapes say


def _trunk_of(state: Mapping[str, Tensor], *, head: bool) -> tuple[str, int, int]:
    """Kind of norm, steps down and residual blocks of `model`, which ends with a last convolution or without."""
    downs = (_convs(state, r"model\.\d+") - 1 - head) // 2
    return _norm(state, "model.2"), max(downs, 1), _count(state, r"model\.(\d+)\.conv_block\.")


def _norm(state: Mapping[str, Tensor], module: str) -> str:
    # Instance norms of torch before 0.4 left averages, which nothing used, but no weights.
    return "batch" if f"{module}.weight" in state else "instance"


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many numbers there are at the group of `pattern`."""
    return len({match[1] for name in state if (match := re.match(pattern, name))})


def _convs(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many convolutions there are by names that are all of `pattern`."""
    return sum(bool(re.fullmatch(rf"{pattern}\.weight", name)) and value.ndim == 4 for name, value in state.items())


def _channels(state: Mapping[str, Tensor], last: str) -> tuple[int, int]:
    """In and out of a network of which `model.1` is the first convolution."""
    return _shape(state, "model.1")[1], _shape(state, last)[0]


def _shape(state: Mapping[str, Tensor], conv: str) -> tuple[int, ...]:
    name = f"{conv}.weight"
    if name not in state or state[name].ndim != 4:
        found = tuple(state[name].shape) if name in state else "missing"
        raise ValueError(f"{name} is {found}, the weight of a convolution expected; {REMEDY}")
    return tuple(state[name].shape)


# Where their modules are


def _trunk(downs: int, blocks: int) -> Places:
    places, first = _normed("trunk.0", "model", 1), 4 + 3 * downs
    for k in range(downs):
        places |= _normed(f"trunk.{1 + k}", "model", 4 + 3 * k)
        places |= _normed(f"trunk.{1 + downs + blocks + k}", "model", first + blocks + 3 * k)
    for k in range(blocks):
        places |= _block(f"trunk.{1 + downs + k}", f"model.{first + k}")
    return places


def _end(downs: int, blocks: int) -> int:
    """The last convolution of a net that is no more than a trunk and a head."""
    return 4 + 3 * downs + blocks + 3 * downs + 1


def _enhancer(n: int, blocks: int) -> Places:
    """Enhancer `n` from the inside; theirs count from 1."""
    ours, down, up = f"enhancers.{n}", f"model{n + 1}_1", f"model{n + 1}_2"
    places = _normed(f"{ours}.down.0", down, 1) | _normed(f"{ours}.down.1", down, 4)
    for k in range(blocks):
        places |= _block(f"{ours}.blocks.{k}", f"{up}.{k}")
    return places | _normed(f"{ours}.up", up, blocks)


def _block(ours: str, theirs: str) -> Places:
    inside = f"{theirs}.conv_block"
    return _normed(f"{ours}.convs.0", inside, 1) | _normed(f"{ours}.convs.1", inside, 5)


def _normed(ours: str, sequence: str, at: int) -> Places:
    return {f"{ours}.conv": f"{sequence}.{at}", f"{ours}.norm": f"{sequence}.{at + 1}"}


def _patchgan(scale: int, layers: int, *, apart: bool) -> Places:
    """One scale of `layers` convolutions and the last. Where a layer has no name of its own, convolution, norm and
    activation of all follow each other in one Sequential, and the first has no norm."""

    def at(k: int, norm: int) -> str:
        return f"scale{scale}_layer{k}.{norm}" if apart else f"layer{scale}.{max(3 * k - 1, 0) + norm}"

    convs = {f"scales.{scale}.convs.{k}": at(k, 0) for k in range(layers)}
    norms = {f"scales.{scale}.norms.{k}": at(k, 1) for k in range(1, layers)}
    return convs | norms | {f"scales.{scale}.last": at(layers, 0)}


# Ours from theirs


def _fitted(net: Net, where: str, places: Places, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `net` by our names; all of theirs must be used."""
    left = {name for name in state if not name.endswith(".num_batches_tracked")}
    made = {}
    for name, shape in _shapes(net, where).items():
        module, _, tensor = name.rpartition(".")
        theirs = f"{places[module]}.{tensor}"
        left.discard(theirs)
        if net.settings["norm"] == "instance" and tensor.startswith("running_"):
            made[name] = torch.full(shape, float(tensor == "running_var"))
            continue
        found = tuple(state[theirs].shape) if theirs in state else "missing"
        if found != shape:
            raise ValueError(f"{theirs} is {found}, {shape} expected in a {_words(net, where)}; {REMEDY}")
        made[name] = state[theirs]
    for name in state:
        if name in left:
            raise ValueError(f"{name} is not expected in a {_words(net, where)}; {REMEDY}")
    return made


def _shapes(net: Net, where: str) -> dict[str, tuple[int, ...]]:
    try:
        with torch.device("meta"):
            return {name: tuple(tensor.shape) for name, tensor in net.build(where).state_dict().items()}
    except (ValueError, RuntimeError, TypeError, OverflowError) as error:  # numbers may be absurd
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"its names are those of a {_words(net, where)}, which cannot be ({reason}); {REMEDY}"
        ) from error


def _words(net: Net, where: str) -> str:
    """`local G of width 32, downs 4, ...`."""
    shown: dict[str, Any] = {name: value for name, value in net.settings.items() if name not in ("bias", "padding")}
    return f"{net.name} {where} of " + ", ".join(f"{name} {value}" for name, value in shown.items())
