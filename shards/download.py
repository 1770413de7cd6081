"""Get a public set and pack it: `python -m shards.download NAME OUT`, see `--help`.

The archive comes to lie beside OUT, as NAME.tar.gz, and stays there. An interrupted transfer, or packing, goes on
with the same command. Options that are not listed go to `shards.pack pairs`. The authors publish no checksums: the
archive is checked by its size and its own checksum, and its SHA-256 is printed for who has one to compare. Exit
codes: 0 all is packed, 2 something is bad or a mistake, 130 interrupted.
"""

import re
import sys
from argparse import ArgumentTypeError, Namespace
from pathlib import Path
from typing import NamedTuple

from p2p.data.format import read_index
from p2p.data.rows import check_shards
from p2p.data.stores import StoreError, is_remote
from shards import arguments, pack
from shards.argv import Parser
from shards.fetch import get

URL = "https://efrosgans.eecs.berkeley.edu/pix2pix/datasets"
"""Of the authors of pix2pix."""
BESIDE = 2.3
"""Bytes on the disk for each of the archive: the packer's hidden tar, and the shards."""


class PublicSet(NamedTuple):
    """What is known of a set."""

    input: str
    """The half of a picture that is the input of the recipe."""
    pairs: dict[str, int]
    """As published, by folder."""
    recipe: str
    """That of `configs/` which trains it."""


SETS = {
    "facades": PublicSet("right", {"train": 400, "val": 100, "test": 106}, "facades"),
    "maps": PublicSet("left", {"train": 1_096, "val": 1_098}, "maps"),
    "edges2shoes": PublicSet("left", {"train": 49_825, "val": 200}, "edges2shoes"),
    "edges2handbags": PublicSet("left", {"train": 138_567, "val": 200}, "edges2handbags"),
    "night2day": PublicSet("right", {"train": 17_823, "val": 10, "test": 2_287}, "day2night"),  # night is on the left
}


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    try:
        return download(*_parse(argv))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    except StoreError as error:
        print(f"{error}; the same command goes on where it stopped", file=sys.stderr)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
    return 2


def _parse(argv: list[str] | None) -> tuple[Namespace, list[str]]:
    parser = Parser(
        prog="p2p-download", description="Get a public set of pairs and pack it.",
        epilog="All other options are those of `p2p-pack pairs`.",
    )  # fmt: skip
    parser.add_argument("name", choices=SETS, metavar="NAME", help=", ".join(SETS))
    parser.add_argument("out", type=_local, metavar="OUT", help="folder of the shards; the archive stays beside it")
    parser.add_argument("--from", dest="url", default=URL, metavar="URL", help="of a mirror (%(default)s)")
    parser.add_argument("--input", choices=("left", "right"), help="the half that is the input x; else the recipe's")
    parser.add_argument("--sha256", type=_digest, metavar="HEX", help="that the archive must have")
    args, others = parser.parse_known_args(argv)
    args.input = args.input or SETS[args.name].input
    arguments.parse(_packing(args, others))  # a mistake in them is told before the transfer
    return args, others


def _local(text: str) -> Path:
    if is_remote(text):
        raise ArgumentTypeError(f"{text} is no folder of this machine; from one, p2p-pack writes anywhere")
    return Path(text)


def _digest(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ArgumentTypeError("give 64 hexadecimal digits")
    return text.lower()


def _packing(args: Namespace, others: list[str]) -> list[str]:
    return ["pairs", str(_archive(args)), str(args.out), "--input", args.input, *others]


def _archive(args: Namespace) -> Path:
    return Path(args.out).parent / f"{args.name}.tar.gz"


def download(args: Namespace, others: list[str]) -> int:
    """Get and pack what is not there yet, and compare it with what is published; the exit code."""
    known = SETS[args.name]
    code = 0
    if not is_packed(args.out, known):
        get(args.url, _archive(args), args.sha256, beside=BESIDE)
        code = pack.main(_packing(args, others))
        if code == 130 or not is_packed(args.out, known):
            return code or 2
    code = max(code, compare(args.out, known, args.input))
    sets = f"--set data.train={args.out}/train --set data.val={args.out}/val"
    print(f"train it: p2p-train --config configs/{known.recipe}.yaml {sets} --run runs/{known.recipe}")
    return code


def is_packed(out: Path, known: PublicSet) -> bool:
    """Whether OUT holds all folders of a set, complete: their indexes are what the packer writes last.

    Raises:
        ValueError: one is damaged.
    """
    folders = [out / name for name in known.pairs]
    if not all((folder / "index.json").is_file() for folder in folders):
        return False
    for folder in folders:
        check_shards(folder, read_index(folder))
    return True


def compare(out: Path, known: PublicSet, side: str) -> int:
    """Say how many pairs OUT holds; 2 where that is not what is published.

    Raises:
        ValueError: it was packed with the other half for the input.
    """
    code = 0
    for name, published in known.pairs.items():
        index = read_index(out / name)
        if index.layout != side:
            raise ValueError(
                f"{out / name}: has the {index.layout} half for its input, not the {side}; give another OUT"
            )
        if index.samples == published:
            print(f"{out / name}: {index.samples} pairs, as published")
        else:
            print(f"{out / name}: {index.samples} pairs, but {published} are published", file=sys.stderr)
            code = 2
    return code


if __name__ == "__main__":
    sys.exit(main())
