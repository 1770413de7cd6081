"""The command line of the packer: four source forms, and what they have in common."""

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.argv import Parser, byte_count, classes, count, cpus, positive, positive_float, size
from shards.sources import Settings

SOURCES = "FOLDER may be a folder, a .tar, .tar.gz or .zip, or FILE.parquet#COLUMN. OUT may be a URL, such as s3://..."
BYTES = "at most in one shard, K, M or G; cut by the sizes of the source files, so shards that convert some are uneven"


@dataclass(frozen=True)
class Arguments:
    """The command line, checked."""

    sources: tuple[str, ...]
    out: str
    """A folder, or the URL of one."""
    processes: int
    settings: Settings


def parse(argv: list[str] | None) -> Arguments:
    """Read argv; a mistake, and `--help`, end the program as argparse does."""
    parser = Parser(prog="p2p-pack", description=f"Pack picture pairs into tar shards. {SOURCES}")
    forms = parser.add_subparsers(dest="form", required=True, metavar="pairs|folders|photos|labels")
    common = _common()
    _add_pairs(forms, common)
    _add_folders(forms, common)
    _add_photos(forms, common)
    _add_labels(forms, common)
    args = parser.parse_args(argv)
    sources = tuple(getattr(args, name) for name in ("folder", "target") if hasattr(args, name))
    weights = getattr(args, "edges", None) or ""
    settings = Settings(
        form=args.form, layout=args.input, seed=args.seed, samples=0 if args.bytes else args.samples,
        bytes=args.bytes, val=args.val, size=args.size, sigma=getattr(args, "sigma", 0.0),
        classes=getattr(args, "classes", 0), instances=getattr(args, "instances", False),
        edges=weights, edges_sha256=_sha256(weights), append=args.append,
    )  # fmt: skip
    return Arguments(sources, args.out, args.processes, settings)


def _add_pairs(forms: Any, common: argparse.ArgumentParser) -> None:
    form = forms.add_parser("pairs", parents=[common], help="pictures with both sides, one beside the other")
    form.add_argument("folder", metavar="FOLDER")
    form.add_argument("out", metavar="OUT")
    form.add_argument("--input", choices=("left", "right"), required=True, help="the half that is the input x")


def _add_folders(forms: Any, common: argparse.ArgumentParser) -> None:
    form = forms.add_parser("folders", parents=[common], help="two folders, matched by name")
    form.add_argument("folder", metavar="INPUT_FOLDER")
    form.add_argument("target", metavar="TARGET_FOLDER")
    form.add_argument("out", metavar="OUT")
    form.set_defaults(input="two")


def _add_photos(forms: Any, common: argparse.ArgumentParser) -> None:
    form = forms.add_parser("photos", parents=[common], help="photographs; the input is their edges")
    form.add_argument("folder", metavar="FOLDER")
    form.add_argument("out", metavar="OUT")
    form.add_argument("--sigma", type=positive_float, default=2.0, help="blur before the edges, pixels (%(default)s)")
    form.add_argument("--edges", type=_file, metavar="FILE", help="weights of a network that draws them")
    form.set_defaults(input="two")


def _add_labels(forms: Any, common: argparse.ArgumentParser) -> None:
    form = forms.add_parser("labels", parents=[common], help="label maps, instance maps and photos")
    form.add_argument("folder", metavar="ROOT", help="holds train_label and so on, or Cityscapes")
    form.add_argument("out", metavar="OUT")
    form.add_argument("--classes", type=classes, required=True, metavar="N", help="ids are below N; 0: pictures")
    form.add_argument("--no-instances", dest="instances", action="store_false", help="leave instance maps out")
    form.set_defaults(input="two")


def _common() -> argparse.ArgumentParser:
    common = Parser(add_help=False)
    common.add_argument("--seed", type=int, default=0, help="of the order (%(default)s)")
    limit = common.add_mutually_exclusive_group()
    limit.add_argument("--samples", type=positive, default=1000, help="in one shard (%(default)s)")
    limit.add_argument("--bytes", type=byte_count, default=0, metavar="256M", help=BYTES)
    common.add_argument("--val", type=count, default=0, metavar="N", help="hold out N pairs into OUT/val")
    common.add_argument("--size", type=size, default=(0, 0), metavar="HxW", help="of one side, if all must have it")
    common.add_argument("--append", action="store_true", help="add to the set that OUT holds, as further shards")
    common.add_argument("--processes", type=positive, default=cpus(), metavar="N", help="(%(default)s)")
    return common


def _file(text: str) -> str:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"{text}: no such file; give the weights of PiDiNet or LDC")
    return text


def _sha256(path: str) -> str:
    if not path:
        return ""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
