"""What has to fit together in an experiment; every mistake is one line that names the setting, the rule, the remedy."""

from importlib.util import find_spec
from math import ceil, lcm
from pathlib import Path

import torch

from p2p import checkpoint
from p2p import config as conf
from p2p import sets as data_sets
from p2p.data.augment import sides
from p2p.data.dataset import DataSet
from p2p.exact import PARTS
from p2p.experiment import Experiment
from p2p.networks.blocks import has_segments
from p2p.networks.norm import is_synced
from p2p.stages import taken_over


def sets(data: conf.Data, train: DataSet, val: DataSet | None) -> None:
    """Training and validation shards hold the same kind of pairs, and can be read as the settings say.

    Raises:
        ValueError: they do not, or cannot.
    """
    if data.block and not train.seekable:
        raise ValueError(f"data.train: {train.folder} cannot be read in parts; use data.block=0, for whole shards")
    if not data.block and train.fetchers:
        _whole_shards(data, train)
    for what in ("channels", "classes", "instances"):
        ours, theirs = (getattr(s if what == "channels" else s.index, what) for s in (train, val or train))
        if ours != theirs:
            raise ValueError(f"data.val: {what} {theirs}, data.train has {ours}; pack both alike")


def _whole_shards(data: conf.Data, train: DataSet) -> None:
    """The cache holds the shards that all lanes read at a time, one each, and one that is being fetched."""
    lanes, sizes = data_sets.lanes(data), [shard.bytes for shard in train.index.shards]
    needed = (min(lanes, len(sizes)) + 1) * max(sizes)
    if data.cache_bytes * data_sets.PARTS["train"] < needed:
        raise ValueError(
            f"data.cache_bytes: {data.cache_bytes} are too few for the whole shards that {lanes} lanes read at a time;"
            f" use at least {ceil(needed / data_sets.PARTS['train'])}, or fewer data.lanes"
        )


def init_from(experiment: Experiment) -> None:
    """What the first stage begins with fits its networks.

    Raises:
        ValueError: it does not, or is not there; names it.
    """
    given = experiment.given.init_from
    if not given:
        return
    try:
        folder = checkpoint.resolve(Path(given))
        held = checkpoint.read_state(folder)["files"]
    except ValueError as error:
        raise ValueError(f"init_from: {error}") from error
    kept = {generator.network for generator in experiment.task.generators().values()}
    for name, names in experiment.optimizers.items():
        if f"{name}.safetensors" in held:
            old = checkpoint.shapes(folder, name)
            try:
                taken_over(experiment.weights(name), old)
            except ValueError as error:
                raise ValueError(
                    f"init_from: {folder} has another {name}: {error}; give a run of the same networks, or of those"
                    " with one enhancer and one scale less"
                ) from error
        elif kept & set(names):
            raise ValueError(f"init_from: {folder} has no {name}.safetensors; give a run, or a checkpoint of one")


def batch(experiment: Experiment) -> None:
    """The batch divides over ranks, micro-batches, groups of statistics, and lanes of the order.

    Raises:
        ValueError: it does not.
    """
    d, world = experiment.config.data, experiment.world
    if d.batch < world:
        raise ValueError(f"data.batch: {d.batch} is less than the {world} ranks; use at least {world}, or fewer ranks")
    if d.lanes % d.batch:
        raise ValueError(f"data.lanes: {d.lanes} is not a multiple of data.batch {d.batch}; use 0 to have one chosen")
    experiment.order, experiment.rate  # noqa: B018 - they check their own settings
    if experiment.total == experiment.begin:
        epochs, stage = experiment.config.schedule.epochs, f"{experiment.stage}{experiment.name}"
        if experiment.alone or experiment.origin < experiment.begin:
            raise ValueError(f"schedule.alone: leaves stage {stage} no step of {d.batch} images; use another")
        raise ValueError(f"schedule.epochs: {epochs} of {experiment.order.size} pairs is no image; give more")
    for name, group in experiment.groups.items():
        if d.batch % group or d.micro % group or d.batch // group < world:
            raise ValueError(
                f"{name}.group: {group} images share statistics, but data.batch {d.batch} on {world} ranks in"
                f" micro-batches of {d.micro or 'all'} splits groups; use a batch of {world} x a multiple of {group},"
                f" or {name}.group=1"
            )
    unit = lcm(*experiment.groups.values())
    if len(set(experiment.groups.values())) > 1 and (d.batch % unit or d.micro % unit or d.batch // unit < world):
        groups = " and ".join(f"{name}.group {group}" for name, group in experiment.groups.items())
        raise ValueError(
            f"{groups}: only multiples of {unit} images hold whole groups of both, but data.batch is {d.batch} on"
            f" {world} ranks in micro-batches of {d.micro or 'all'}; use {world} x {unit}, or equal groups"
        )


def engine(experiment: Experiment, device: torch.device) -> None:
    """The engine exists here, and can do what is asked.

    Raises:
        ValueError: it does not, or cannot.
    """
    e, d, world = experiment.config.engine, experiment.config.data, experiment.world
    if d.decode == "gpu" and device.type != "cuda":
        raise ValueError("data.decode: gpu needs a GPU; use cpu")
    for name, net in experiment.shapes.items():
        sync = is_synced(net)
        if sync and world > 1 and device.type == "cpu":
            raise ValueError(f"{name}.norm: sync over {world} ranks needs GPUs; use batch, instance or none on CPUs")
        if sync and world > 1 and d.micro and len(set(experiment.shares)) > 1:
            raise ValueError(
                f"{name}.norm: sync needs as many micro-batches on every rank; use a multiple of {world} images"
            )
        if sync and e.reduction == "exact":
            raise ValueError(f"{name}.norm: sync depends on the number of ranks; use batch, or engine.reduction=fast")
    generators = [net for name, net in experiment.shapes.items() if experiment.roles[name].section == "G"]
    if e.recompute and not any(map(has_segments, generators)):
        raise ValueError(
            f"engine.recompute: {experiment.config.G.name} keeps its activations; leave it out, or G.name=global or"
            " local"
        )
    if e.name == "ddp" and (e.zero_stage or e.offload):
        raise ValueError(
            "engine.zero_stage, engine.offload: are DeepSpeed's; use engine.name=deepspeed, or leave them out"
        )
    if e.offload and not e.zero_stage:
        raise ValueError("engine.offload: stage 0 keeps Adam's state whole; use engine.zero_stage=1 or 2")
    if e.name == "deepspeed" and not find_spec("deepspeed"):
        raise ValueError("engine.name: deepspeed is not installed; pip install 'p2p[deepspeed]', or use ddp")
    if e.reduction == "exact":
        _exact(e, d, experiment.micro, world)


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


def pixels(data: conf.Data, sets: list[DataSet]) -> None:
    """The crop fits the pictures.

    Raises:
        ValueError: it does not.
    """
    (load_h, load_w), (h, w) = sides(data.load), sides(data.crop)
    if bool(load_h) != bool(load_w):
        raise ValueError(f"data.load: [{load_h}, {load_w}] has one side only; give both, or 0 to not resize")
    if load_h and (load_h < h or load_w < w):
        raise ValueError(f"data.load: {data.load} is less than data.crop {data.crop}; use at least {data.crop}, or 0")
    for shards in sets:
        smallest = shards.index.smallest
        if not load_h and (smallest[0] < h or smallest[1] < w):
            raise ValueError(
                f"data.crop: {data.crop} does not fit pictures of {smallest[0]}x{smallest[1]} in {shards.folder};"
                " use data.load"
            )
