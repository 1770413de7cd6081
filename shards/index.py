"""Index other people's WebDataset tars, without packing them again: `python -m shards.index WHERE [NAMES] ...`.

Each tar is read once, from its first byte to its last. OUT gets `index.json` and a row file for each tar; the tars
stay where they are. Exit codes: 0 indexed, 2 something is bad or a mistake, 130 interrupted.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from braceexpand import braceexpand

from p2p.data.encoded import walk
from p2p.data.format import INDEX, Index, parse_index, read_index
from p2p.data.rows import rows_name
from p2p.data.stores import is_remote
from shards import dali
from shards.argv import Parser, classes, cpus, positive
from shards.roles import Roles
from shards.survey import Survey, survey
from shards.work import guarded, progress, workers
from shards.writer import aside

SHOWN = 20
"""Bad samples that are named."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = _parser()
    args = parser.parse_intermixed_args(argv)
    if mistake := _mistake(args):
        parser.error(mistake)
    return guarded(
        lambda: (index if args.pairs or args.target else dali_of_set)(args), "interrupted; nothing is indexed"
    )


def _parser() -> Parser:
    parser = Parser(prog="p2p-index", description="Index WebDataset tars of pairs where they lie.")
    parser.add_argument("where", metavar="WHERE", help="folder or URL of the tars; pipe:COMMAND with {} for the name")
    parser.add_argument("names", nargs="*", metavar="NAME", help="tars below WHERE, as train-{000000..000009}.tar")
    parser.add_argument("--input", type=_extension, metavar="EXT", help="of the input x, such as edges.png")
    parser.add_argument("--target", type=_extension, metavar="EXT", help="of the target y, such as jpg")
    parser.add_argument("--pairs", type=_extension, metavar="EXT", help="of pictures with both sides")
    parser.add_argument("--side", choices=("left", "right"), help="the half of --pairs that is the input x")
    parser.add_argument("--instances", type=_extension, metavar="EXT", help="of instance maps")
    parser.add_argument("--classes", type=classes, default=0, metavar="N", help="x are label maps of ids below N")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for the index; a local WHERE itself, if not given")
    parser.add_argument("--dali", action="store_true", help="write DALI's .idx, too; alone, those of an indexed set")
    parser.add_argument("--skip-bad", action="store_true", help="pass over samples that cannot be used")
    parser.add_argument("--processes", type=positive, default=cpus(), metavar="N", help="(%(default)s)")
    return parser


def _extension(text: str) -> str:
    extension = text.removeprefix(".").lower()
    if not extension or "/" in extension:
        raise argparse.ArgumentTypeError(f"{text} is not an extension; give for instance jpg or edges.png")
    return extension


def _mistake(args: argparse.Namespace) -> str:
    """What is wrong with the options, one with another."""
    two = args.input or args.target or args.classes or args.instances
    if is_remote(args.where) and not args.out:
        return f"{args.where}: give --out FOLDER for the index"
    if args.pairs and (two or not args.side):
        return "--pairs goes with --side left or right, and with no other member"
    if not args.pairs and (args.side or (two and not (args.input and args.target))):
        return "give --input and --target, or --pairs and --side"
    if not args.pairs and not two and (not args.dali or args.names or args.skip_bad):
        return "say what the members are: --input and --target, or --pairs and --side"
    given = [extension for extension in (args.input, args.target, args.instances) if extension]
    return "two members have the same extension" if len(set(given)) < len(given) else ""


def index(args: argparse.Namespace) -> int:
    """Read every tar; write the index if all is well, or what is not may be passed over."""
    out = args.out or Path(args.where)
    if (out / INDEX).exists():
        raise ValueError(f"{out}: holds an {INDEX} already, which is never changed; give another --out")
    names, roles = find_names(args.where, args.names), _roles(args)
    read = partial(survey, args.where, roles, args.skip_bad, out if args.dali else None)
    with workers(args.processes) as pool:
        found = list(progress(pool.map(read, names), total=len(names), done="read", unit="tars"))
    tell(found, skipped=args.skip_bad)
    if not all(one.fits(args.skip_bad) for one in found):
        return 2
    made = write(out, make_index(args.where, out, roles, found), found)
    print(f"indexed: {made.samples} pairs in {len(found)} tars, {sum(one.bytes for one in found)} bytes: {out}")
    return 0


def _roles(args: argparse.Namespace) -> Roles:
    given = {"ab": args.pairs, "a": args.input, "b": args.target, "inst": args.instances}
    members = {role: extension for role, extension in given.items() if extension}
    return Roles(args.side or "two", members, args.classes, bool(args.instances))


def find_names(where: str, given: Sequence[str]) -> list[str]:
    """The tars to read, below `where`: braces expanded, or all of a local folder in the order of their names.

    Raises:
        ValueError: there are none, or a name is no tar below a folder, or comes twice.
    """
    if not given and is_remote(where):
        raise ValueError(f"{where}: give the names of the tars, such as train-{{000000..000009}}.tar")
    names = [name for pattern in given for name in braceexpand(pattern)] or sorted(
        path.relative_to(where).as_posix() for path in walk(Path(where)) if path.suffix == ".tar"
    )
    for name in names:
        if not name.endswith(".tar") or str(PurePosixPath(name)) != name or {"..", "/"} & {*PurePosixPath(name).parts}:
            raise ValueError(f"{name}: not the name of a .tar below {where}; compressed ones must be unpacked first")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{where}: {'a tar is named twice' if names else 'no .tar here'}; name each tar once")
    return names


def tell(found: Sequence[Survey], *, skipped: bool) -> None:
    """Name the first problems on stderr, and what training will not do with the pictures."""
    problems = [problem for one in found for problem in one.problems]
    for problem in problems[:SHOWN]:
        print(problem, file=sys.stderr)
    if len(problems) > SHOWN:
        print(f"... and {len(problems) - SHOWN} more", file=sys.stderr)
    if problems:
        remedy = (
            "passed over" if skipped else "nothing is indexed; --skip-bad passes over bad samples, not damaged tars"
        )
        print(f"{len(problems)} found bad: {remedy}", file=sys.stderr)
    notes: Counter[str] = sum((one.notes for one in found), Counter())
    for note, count in notes.items():
        print(f"note: {count} pictures with {note}", file=sys.stderr)


def make_index(where: str, out: Path, roles: Roles, found: Sequence[Survey]) -> Index:
    """The index of tars that were read."""
    remote = is_remote(where)
    beside = where.startswith("pipe:") or (not remote and Path(where).resolve() == out.resolve())
    channels, smallest, largest = (
        np.array([getattr(one, name) for one in found]) for name in ("channels", "smallest", "largest")
    )
    return Index(
        roles.layout, 0, _pair(channels.max(0)), _pair(smallest.min(0)), _pair(largest.max(0)),
        tuple(one.info for one in found), roles.classes, roles.instances,
        "" if beside else where if remote else str(Path(where).resolve()), roles.members,
    )  # fmt: skip


def _pair(values: np.ndarray) -> tuple[int, int]:
    return int(values[0]), int(values[1])


def write(out: Path, made: Index, found: Sequence[Survey]) -> Index:
    """Write the rows, and last the index, which says that all else is there.

    Raises:
        ValueError: the index cannot be; nothing is written.
    """
    text = made.dumps().encode()
    parse_index(text, str(out / INDEX))
    for one in found:
        (out / rows_name(one.name)).parent.mkdir(parents=True, exist_ok=True)
        with aside(out / rows_name(one.name)) as file:
            np.save(file, one.array)
    with aside(out / INDEX) as file:
        file.write(text)
    return made


def dali_of_set(args: argparse.Namespace) -> int:
    """Write DALI's index of each tar of a set that has an index."""
    held = read_index(args.where)
    one = partial(dali.write_for, args.where, args.out or Path(args.where), replace(held, shards=()))
    with workers(args.processes) as pool:
        for _ in progress(pool.map(one, held.shards), total=len(held.shards), done="read", unit="tars"):
            pass
    print(f"wrote {len(held.shards)} .idx: {args.out or args.where}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
