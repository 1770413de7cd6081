"""The command line of the packer: four source forms, and what they have in common."""

import argparse
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from p2p.data.format import CLASSES
from shards.sources import Settings

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


@dataclass(frozen=True)
class Arguments:
    """The command line, checked."""

    roots: tuple[Path, ...]
    out: Path
    processes: int
    settings: Settings


class Parser(argparse.ArgumentParser):
    """Says a mistake in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def parse(argv: list[str] | None) -> Arguments:
    """Read argv; a mistake, and `--help`, end the program as argparse does."""
    parser = Parser(prog="p2p-pack", description="Pack picture pairs into tar shards.")
    forms = parser.add_subparsers(dest="form", required=True, metavar="pairs|folders|photos|labels")
    common = _common()
    _add_pairs(forms, common)
    _add_folders(forms, common)
    _add_photos(forms, common)
    _add_labels(forms, common)
    args = parser.parse_args(argv)
    roots = tuple(getattr(args, name) for name in ("folder", "target") if hasattr(args, name))
    settings = Settings(
        form=args.form, layout=args.input, seed=args.seed, samples=0 if args.bytes else args.samples,
        bytes=args.bytes, val=args.val, size=args.size, sigma=getattr(args, "sigma", 0.0),
        classes=getattr(args, "classes", 0), instances=getattr(args, "instances", False),
    )  # fmt: skip
    return Arguments(roots, args.out, args.processes, settings)


def _add_pairs(forms: Any, common: argparse.ArgumentParser) -> None:
    form = forms.add_parser("pairs", parents=[common], help="pictures with both sides, one beside the other")
    form.add_argument("folder", type=Path, metavar="FOLDER")
    form.add_argument("out", type=Path, metavar="OUT")
    form.add_argument("--input", choices=("left", "right"), required=True, help="the half that is the input x")


def _add_folders(forms: Any, common: argparse.ArgumentParser) -> None:
    form = forms.add_parser("folders", parents=[common], help="two folders, matched by name")
    form.add_argument("folder", type=Path, metavar="INPUT_FOLDER")
    form.add_argument("target", type=Path, metavar="TARGET_FOLDER")
    form.add_argument("out", type=Path, metavar="OUT")
    form.set_defaults(input="two")


def _add_photos(forms: Any, common: argparse.ArgumentParser) -> None:
    form = forms.add_parser("photos", parents=[common], help="photographs; the input is their Canny edges")
    form.add_argument("folder", type=Path, metavar="FOLDER")
    form.add_argument("out", type=Path, metavar="OUT")
    form.add_argument("--sigma", type=_positive_float, default=2.0, help="blur before the edges, pixels (%(default)s)")
    form.set_defaults(input="two")


def _add_labels(forms: Any, common: argparse.ArgumentParser) -> None:
    form = forms.add_parser("labels", parents=[common], help="label maps, instance maps and photos")
    form.add_argument("folder", type=Path, metavar="ROOT", help="holds train_label and so on, or Cityscapes")
    form.add_argument("out", type=Path, metavar="OUT")
    form.add_argument("--classes", type=_classes, required=True, metavar="N", help="ids are below N; 0: pictures")
    form.add_argument("--no-instances", dest="instances", action="store_false", help="leave instance maps out")
    form.set_defaults(input="two")


def _common() -> argparse.ArgumentParser:
    common = Parser(add_help=False)
    common.add_argument("--seed", type=int, default=0, help="of the order (%(default)s)")
    limit = common.add_mutually_exclusive_group()
    limit.add_argument("--samples", type=_positive, default=1000, help="in one shard (%(default)s)")
    limit.add_argument("--bytes", type=_bytes, default=0, metavar="256M", help="at most in one shard; K, M or G")
    common.add_argument("--val", type=_count, default=0, metavar="N", help="hold out N pairs into OUT/val")
    common.add_argument("--size", type=_size, default=(0, 0), metavar="HxW", help="of one side, if all must have it")
    common.add_argument("--processes", type=_positive, default=_cpus(), metavar="N", help="(%(default)s)")
    return common


def _cpus() -> int:
    # what a scheduler grants may be less than what the machine has
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _count(text: str) -> int:
    if not re.fullmatch(r"\d+", text):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number; give for instance 200")
    return int(text)


def _classes(text: str) -> int:
    if _count(text) > CLASSES:
        raise argparse.ArgumentTypeError(f"there can be {CLASSES} at most")
    return int(text)


def _positive(text: str) -> int:
    if not _count(text):
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(text)


def _positive_float(text: str) -> float:
    if not re.fullmatch(r"\d*\.?\d+", text) or not float(text):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number; give for instance 2.0")
    return float(text)


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+)([KMG]?)", text.upper())
    if not match or not int(match[1]):
        raise argparse.ArgumentTypeError(f"{text} is not a size; give for instance 256M")
    return int(match[1]) * UNITS[match[2]]


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text} is not HEIGHTxWIDTH; give for instance 256x256")
    return int(match[1]), int(match[2])
