"""The command line of `launch.translate`, and which of its options go together."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from launch.argv import Parser, count, positive
from p2p.data.augment import Size, sides
from p2p.members import wants_instances
from p2p.pictures import Source
from p2p.spec import Spec


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    p = Parser(
        prog="p2p-translate",
        description="Translate pictures or label maps with a trained generator, and write a page to look at them.",
        epilog="Exit codes: 0 all translated, 2 something could not be read or a mistake, 130 interrupted.",
    )
    p.add_argument("checkpoint", type=Path, help="run folder, checkpoint folder or generator.safetensors")
    p.add_argument(
        "inputs", type=Path, nargs="+", metavar="INPUT", help="pictures or label maps, folders of them, shard sets"
    )
    p.add_argument("--generator", default="", metavar="NAME", help="of a task that keeps several; if not, its first")
    p.add_argument("--out", type=Path, required=True, help="folder of the result: index.html and PNG files")
    p.add_argument("--overwrite", action="store_true", help="replace an earlier result in OUT")
    _add_members(p)
    p.add_argument(
        "--size",
        type=_size,
        default=0,
        metavar="N|HxW",
        help="resize to NxN, or height x width, pixels first (files as they are, shards as in training)",
    )
    p.add_argument("--batch", type=positive, default=8, metavar="N", help="changes speed only (%(default)s)")
    p.add_argument(
        "--tile",
        type=_size,
        metavar="N|HxW",
        help="make larger pictures in windows of this size, so that memory does not grow with them; norms measure, and"
        " dropout repeats in, each window",
    )
    stored = p.add_argument_group("how the generator is used, if not as stored with it")
    stored.add_argument("--dropout", choices=("on", "off"))
    stored.add_argument("--seed", type=count, metavar="N", help="of dropout, and of sampled features")
    stored.add_argument("--statistics", choices=("batch", "running"), help="that its norms use")
    _add_features(p)
    return p


def _add_members(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--pairs", choices=("left", "right"), default="", help="pictures hold both sides; input is this half"
    )
    p.add_argument(
        "--reverse", action=argparse.BooleanOptionalAction, help="of shard sets, translate y -> x (as in training)"
    )
    by_name = "matched by name: the path without extension, and without Cityscapes' _gtFine_labelIds and the like"
    p.add_argument("--instances", type=Path, metavar="FOLDER", help=f"instance maps of the files, {by_name}")
    p.add_argument("--targets", type=Path, metavar="FOLDER", help="what should come out of them, matched likewise")


def _add_features(p: argparse.ArgumentParser) -> None:
    told = p.add_argument_group("what a generator with instance features is told")
    told.add_argument(
        "--features",
        type=_features,
        metavar="real|sampled|N",
        help="of the target (default where there is one), a random cluster for each instance, or cluster N of each "
        "class, modulo how many it has",
    )
    told.add_argument(
        "--edit",
        type=_edit,
        action="append",
        default=[],
        metavar="INSTANCE=CLUSTER",
        help="give one instance this cluster of its class; may be repeated",
    )


def _size(text: str) -> Size:
    height, x, width = text.partition("x")
    return (positive(height), positive(width)) if x else positive(height)


def _features(text: str) -> str | int:
    if text in ("real", "sampled"):
        return text
    try:
        return count(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{text} is not real, sampled or the number of a cluster") from error


def _edit(text: str) -> tuple[int, int]:
    instance, equals, number = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text}: write it as INSTANCE=CLUSTER, for example 26001=3")
    return count(instance), count(number)


def check_options(args: argparse.Namespace, spec: Spec) -> None:
    """Raises:
    ValueError: an option does not go with the generator.
    """
    if not {1, 3}.issuperset(spec.pictures):
        x, y = spec.pictures
        raise ValueError(f"{args.checkpoint}: makes {x} -> {y} channels; pictures have 1 or 3")
    if len(dict(args.edit)) < len(args.edit):
        raise ValueError("--edit: names an instance twice; give each one cluster")
    if args.instances and not wants_instances(spec):
        raise ValueError("--instances: this G was trained without instance maps; leave it out")
    if args.pairs and spec.view.classes:
        raise ValueError("--pairs: this G translates label maps, which are files of their own; use --targets")
    if args.pairs and args.targets:
        raise ValueError("--targets: with --pairs the targets are in the pictures; leave one of them out")
    for option, given in (("features", args.features is not None), ("edit", args.edit)):
        if given and not spec.encoder:
            raise ValueError(f"--{option}: this G was trained without instance features; leave it out")


def check_sources(args: argparse.Namespace, sources: Sequence[Source], spec: Spec) -> None:
    """Raises:
    ValueError: options do not go with what was given.
    """
    files = not all(source.shards for source in sources)
    if args.reverse and not any(source.shards for source in sources):
        raise ValueError("--reverse: is for shard sets; say with --pairs left or right which half is the input")
    for option in ("pairs", "instances", "targets"):
        if getattr(args, option) and not files:
            raise ValueError(f"--{option}: is for files; a shard set has its own, leave it out")
    if files and wants_instances(spec) and not args.instances:
        raise ValueError("--instances: this G needs the instance map of each input; give the folder that holds them")
    if args.features == "real" and files and not (args.pairs or args.targets):
        raise ValueError("--features real: are those of targets, and not every input has one; give --targets")


def features_of(args: argparse.Namespace, sources: Sequence[Source]) -> str | int | None:
    """What G is told: what was asked for, else `real` where all pictures have a target, `sampled` where none has; None
    where some have."""
    if args.features is not None:
        return args.features
    known = [source.shards or bool(args.pairs or args.targets) for source in sources]
    return "real" if all(known) else None if any(known) else "sampled"


def in_words(size: Size) -> str:
    """A size as `--size` takes it."""
    height, width = sides(size)
    return f"{height}x{width}" if height == width else f"{height}x{width} (height x width)"
