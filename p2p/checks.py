"""What has to fit together in an experiment; every mistake is one line that names the setting, the rule, the remedy."""

from importlib.util import find_spec
from math import ceil, lcm
from pathlib import Path

import torch

from p2p import checkpoint
from p2p import config as conf
from p2p import sets as data_sets
from p2p.data.augment import sides
from p2p.data.mixed import Shards
from p2p.exact import PARTS
from p2p.networks.blocks import Segment
from p2p.networks.encoder import Encoder
from p2p.networks.norm import SyncNorm
from p2p.networks.vgg import LEAST, load_vgg, weights_file
from p2p.plan import Plan
from p2p.stages import taken_over
from p2p.tasks.pix2pix import Pix2Pix


def sets(data: conf.Data, train: Shards, val: Shards | None) -> None:
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


def _whole_shards(data: conf.Data, train: Shards) -> None:
    """The cache holds the shards that all lanes read at a time, one each, and one that is being fetched."""
    lanes, sizes = data_sets.lanes(data), [shard.bytes for shard in train.index.shards]
    needed = (min(lanes, len(sizes)) + 1) * max(sizes)
    if data.cache_bytes * data_sets.PARTS["train"] < needed:
        raise ValueError(
            f"data.cache_bytes: {data.cache_bytes} are too few for the whole shards that {lanes} lanes read at a time;"
            f" use at least {ceil(needed / data_sets.PARTS['train'])}, or fewer data.lanes"
        )


def task(game: Pix2Pix, train: Shards) -> None:
    """The task finds what it needs: instance maps, a VGG.

    Raises:
        ValueError: it does not.
    """
    if game.features and not train.index.instances:
        raise ValueError(f"task.features: {train.folder} has no instance maps; pack it with them, or use features=0")
    if game.features and not find_spec("sklearn"):
        raise ValueError("task.features: are clustered by scikit-learn; pip install 'p2p[features]', or use features=0")
    if game.perceptual:
        if train.channels[1] not in (1, 3):
            raise ValueError(f"task.perceptual: VGG sees 1 or 3 channels, y has {train.channels[1]}; use perceptual=0")
        load_vgg(game.vgg, game.vgg_input, weights_file(game.vgg, game.vgg_weights))


def init_from(plan: Plan) -> None:
    """What the first stage begins with fits its networks.

    Raises:
        ValueError: it does not, or is not there; names it.
    """
    given = plan.experiment.init_from
    if not given:
        return
    try:
        folder = checkpoint.resolve(Path(given))
        held = checkpoint.read_state(folder)["files"]
    except ValueError as error:
        raise ValueError(f"init_from: {error}") from error
    for name, net in plan.shapes.items():
        if f"{name}.safetensors" in held:
            old = checkpoint.shapes(folder, name)
            try:
                taken_over(net, old)
            except ValueError as error:
                raise ValueError(
                    f"init_from: {folder} has another {name}: {error}; give a run of the same networks, or of those"
                    " with one enhancer and one scale less"
                ) from error
        elif name == "G":
            raise ValueError(f"init_from: {folder} has no G.safetensors; give a run, or a checkpoint of one")


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
    if plan.total == plan.begin:
        what = f"schedule.epochs: {plan.config.schedule.epochs} of {plan.order.size} pairs is no image; give more"
        stage = f"schedule.alone: leaves stage {plan.stage}{plan.name} no step of {d.batch} images; use another"
        raise ValueError(stage if plan.alone or plan.origin < plan.begin else what)
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
    if d.decode == "gpu" and device.type != "cuda":
        raise ValueError("data.decode: gpu needs a GPU; use cpu")
    for name, net in plan.players.items():
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
    if e.recompute and not any(isinstance(m, Segment) for m in plan.shapes["G"].modules()):
        raise ValueError(
            f"engine.recompute: {plan.generator.name} keeps its activations; leave it out, or G.name=global or local"
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


def pixels(data: conf.Data, sets: list[Shards]) -> None:
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


def networks(plan: Plan) -> None:
    """Each network takes the crop; tried on shapes alone.

    Raises:
        ValueError: it does not.
    """
    crop = plan.config.data.crop
    if plan.task.perceptual and min(sides(crop)) < LEAST:
        raise ValueError(f"data.crop: VGG needs {LEAST} pixels, and {crop} is less; use more, or task.perceptual=0")
    channels = {name: net.channels[0] for name, net in plan.networks.items()}
    if plan.generator.encoder:
        channels["E"] = plan.generator.encoder.channels[0]
    for name, net in plan.players.items():
        pictures = torch.empty(1, channels[name], *sides(crop), device="meta")
        try:
            (net.eval().maps if isinstance(net, Encoder) else net.eval())(pictures)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{name}: does not take pictures of data.crop {crop} pixels ({error})") from error
