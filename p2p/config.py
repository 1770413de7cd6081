"""The settings of an experiment: these dataclasses are the schema, a YAML file says what differs."""

from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Discriminator, Field, Tag, TypeAdapter

from p2p.strict import byte_count, one_or_two, parse, set_value, settings, validated

Count = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[int, Field(ge=1, lt=2**31)]
Size = Annotated[int | tuple[int, int], one_or_two(0)]
Sides = Annotated[int | tuple[int, int], one_or_two(1)]
Real = Annotated[float, Field(ge=0)]
Bytes = Annotated[int, byte_count()]
Fraction = Annotated[float, Field(ge=0, le=1)]


@settings
class Source:
    """A set of shards, one of several that are mixed, or one whose tars lie elsewhere."""

    at: str
    """Folder or URL with its index.json, of which the newest generation is taken; or one of its index files."""
    shards: str = ""
    """Folder or URL of the tars, or `pipe:command {}`, where they do not lie where the index says."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """How much of the stream is of this set, relative to the weights of the others."""


Sources = Annotated[
    Annotated[str, Tag("one")] | Annotated[tuple[Source, ...], Tag("several")],
    Discriminator(lambda given: "one" if isinstance(given, str) else "several"),
]
"""A folder, a URL, or a list of `Source`."""


@settings
class Data:
    """What is read, and in which order."""

    train: Sources
    """Folder or URL of training shards, with its index.json; or a list of `at`, `shards` and `weight`."""
    val: Sources = ""
    """The same of validation shards; empty for no validation."""
    batch: Positive = 1
    """Images per optimiser step over all ranks."""
    micro: Count = 0
    """Images per forward and backward on one rank; 0: all of the rank's share at once."""
    load: Size = 286
    """Resize to this side, or [height, width], pixels; equal to crop: no jitter; 0: do not resize."""
    crop: Sides = 256
    """Side, or [height, width], of the random crop, pixels."""
    mirror: bool = True
    """Mirror half of the pairs."""
    boundaries: bool = True
    """Where the shards have instance maps, x has their boundaries too."""
    reverse: bool = False
    """Train y -> x, where the shards say x -> y."""
    threads: Positive = 2
    """Readers of each rank; no part of the order."""
    max_bad: Fraction = 0.001
    """Share of the samples that may be unreadable before the run stops."""
    lanes: Count = 0
    """Lanes of the order, a multiple of batch; 0: the least multiple that is >= 1024, or >= 64 of whole shards."""
    block: Count = 16
    """Consecutive samples read at once; 0: a whole shard, for stores that cannot be read in parts."""
    window: Positive = 2
    """Blocks that a lane mixes."""
    ahead: Bytes = 2**26
    """Of pictures that are read before they are asked for; one step in any case."""
    cache: str = ""
    """Folder of this machine, shared by its ranks, for what comes from a remote store; empty: below the system's folder
    of temporary files."""
    cache_bytes: Bytes = 20 * 2**30
    """Of the cache, at most."""
    decode: Literal["cpu", "gpu"] = "cpu"
    """Where JPEG is decoded, and jitter computed."""


@settings
class Part:
    """A named view, task or network; `settings` are the keyword arguments of its constructor."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)


@settings
class Optimizer:
    """Adam (Isola et al. 2017, section 3.3)."""

    lr: Real = 2e-4
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.5
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999


@settings
class Schedule:
    """Length of the run, and the learning rate over it; see `p2p.schedule`."""

    name: Literal["constant", "linear", "port", "hd"] = "constant"
    epochs: Real = 200.0
    """Epochs at the full rate."""
    decay: Real = 0.0
    """Further epochs in which the rate falls to 0; none under `constant`."""
    alone: Real = 0.0
    """First epochs of these in which of G only the newest enhancer learns, and the encoder of features."""


@settings
class Engine:
    """How the networks run; changes speed, memory and rounding, never the mathematics."""

    name: Literal["ddp", "deepspeed"] = "ddp"
    zero_stage: Literal[0, 1, 2] = 0
    """What DeepSpeed shards over the ranks: nothing, Adam's state, the gradients too."""
    offload: bool = False
    """Adam's state and step on the CPU; DeepSpeed's stages 1 and 2."""
    reduction: Literal["fast", "exact"] = "fast"
    """`exact`: gradients are summed in fixed point over parts of `data.micro` images, so that the weights have the
    same bits on any number of ranks; slower."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """bf16: autocast around the networks; losses and weights stay float32."""
    channels_last: bool = True
    recompute: bool = False
    """Forget activations inside G and compute them again for the backward: less memory, up to half more time."""
    compile: bool = False


@settings
class Ema:
    """Exponential average of G's weights, used for validation and translation."""

    half_life: Count = 0
    """Images; 0: none."""


@settings
class ValidationSettings:
    """What is measured on the validation pairs; see `p2p.metrics`."""

    metrics: tuple[str, ...] = ()
    """Names; none: L1, where y is what G should make of x."""
    best: str = ""
    """The one of them that says which generator is kept as the best; empty: the first; `none`: none is kept."""


@settings
class Inference:
    """How G is used after training; stored with it. The defaults are the paper's (section 3.3): dropout stays on,
    statistics are those of the one picture. The same seed gives the same picture."""

    dropout: bool = True
    seed: Count = 0
    statistics: Literal["batch", "running"] = "batch"
    """`running`: averages measured over training images when the generator is stored."""


@settings
class Every:
    """Images between two of each; 0: only at the start and at the end."""

    log: Count = 1000
    pictures: Count = 20_000
    validate: Count = 20_000
    save: Count = 100_000
    keep: Positive = 3
    """Newest checkpoints that are kept."""


@settings
class Config:
    """A whole experiment."""

    data: Data
    seed: Count = 0
    """Of weights, order, jitter, mirror and noise."""
    view: Part = Part(name="pixels")
    """What x and y are made of; see `p2p.data.views`."""
    task: Part = Part(name="pix2pix")
    G: Part = Part(name="unet")
    D: Part = Part(name="patch")
    E: Part = Part(name="instance")
    """Encoder of instance features, where `task.features` asks for them."""
    init_from: str = ""
    """Run or checkpoint whose weights and Adam's moments this run begins with: of the same networks, or of those with
    one enhancer less in G, and the same scales or less in D."""
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    coarse: tuple[Schedule, ...] = ()
    """Schedules of G with fewer enhancers, and of D with fewer scales, at 1/2 (or 1/4 and 1/2, ...) of `data.load` and
    `data.crop`, one after the other before `schedule`: first the global net, at last all enhancers but one."""
    engine: Engine = Engine()
    ema: Ema = Ema()
    inference: Inference = Inference()
    validation: ValidationSettings = ValidationSettings()
    every: Every = Every()


DEFAULTS = {"view": "pixels", "task": "pix2pix", "G": "unet", "D": "patch", "E": "instance"}
"""Sections that are a name and that name's own settings, written side by side in YAML; and the usual name."""


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, then apply overrides such as `data.batch=8`.

    Raises:
        ValueError: one line that names the file, the setting, what is wrong with it and the nearest valid one.
    """
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{path}: cannot be read ({reason}); give a file of configs/") from error
    tree = parse(text, str(path))
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: holds no settings; see configs/ for examples")
    for override in overrides:
        set_value(tree, override)
    return from_tree(tree, str(path))


def from_tree(tree: dict[str, Any], where: str = "config") -> Config:
    """Check a tree of plain values against the schema.

    Raises:
        ValueError: as `load`.
    """
    tree = dict(tree)
    for part in DEFAULTS:
        if isinstance(tree.get(part), dict):
            values = dict(tree[part])
            tree[part] = {"name": values.pop("name", DEFAULTS[part]), "settings": values}
    try:
        return validated(Config, tree)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def to_tree(config: Config) -> dict[str, Any]:
    """The whole of a config as plain values, in the form that `from_tree` reads."""
    tree: dict[str, Any] = TypeAdapter(Config).dump_python(config)
    for part in DEFAULTS:
        tree[part] = {"name": tree[part]["name"], **tree[part]["settings"]}
    return tree


def dump(config: Config) -> str:
    """YAML of every setting, defaults included."""
    return yaml.safe_dump(to_tree(config), sort_keys=False)
