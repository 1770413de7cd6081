"""Verify a shard set, local or remote: `python -m shards.verify SET [--images] [--against OTHER] [--json FILE]`.

Every tar is read once, whole: headers, end, rows, checksums, members, keys, equal pictures; with `--images` every
picture is decoded. Exit codes: 0 no error (there may be warnings), 2 an error was found or a mistake, 130 interrupted.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path

from p2p.data.encoded import walk
from p2p.data.format import Index, index_name, newest_generation, read_index
from p2p.data.stores import is_remote, open_store
from shards.argv import Parser, cpus, positive
from shards.examine import Where, examine
from shards.findings import Finding, Findings
from shards.known import Known
from shards.pixels import load_hash
from shards.work import guarded, progress, workers
from shards.writer import aside

SHOWN = 20
"""Findings of one kind that are named on stderr."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    args = _parser().parse_args(argv)
    return guarded(lambda: verify(args), "interrupted")


def _parser() -> Parser:
    parser = Parser(prog="p2p-verify", description="Verify a shard set.")
    parser.add_argument("set", metavar="SET", help="folder or URL of a shard set")
    parser.add_argument("--against", metavar="OTHER", help="set that must have nothing in common, such as val")
    parser.add_argument("--images", action="store_true", help="decode every picture; find constant and similar ones")
    parser.add_argument("--root", default="", help="where the tars lie, if not where the index says; pipe:COMMAND")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings there, too")
    parser.add_argument("--processes", type=positive, default=cpus(), metavar="N", help="(%(default)s)")
    return parser


def verify(args: argparse.Namespace) -> int:
    """Examine the set, then what its samples have in common; say it, and write it.

    Raises:
        ValueError: an index cannot be used.
        StoreError: a store does not answer when the index is read.
    """
    if args.images:
        load_hash()
    where, other = _where(args.set, args, args.root), _where(args.against, args) if args.against else None
    findings, started = Findings(), time.monotonic()
    findings.add(_generations(args.set))
    findings.add(_unlisted(where))
    with workers(args.processes) as pool, Known() as known:
        findings.add(_examine(pool, where, known))
        findings.add(known.inside(where.index))
        seconds = time.monotonic() - started
        if other:
            with Known() as others:
                bad = sum(1 for one in _examine(pool, other, others) if one.severity == "error")
                findings.add([Finding("against", args.against, f"{bad} errors; verify it by itself")] if bad else [])
                findings.add(known.across(where.index, others, other))
    return _tell(args, where.index, findings, seconds)


def _where(url: str, args: argparse.Namespace, root: str = "") -> Where:
    index = read_index(url)
    return Where(url, root or index.root or url, index, args.images)


def _examine(pool: Executor, where: Where, known: Known) -> Iterator[Finding]:
    """Examine every tar; its findings, while its samples become known."""
    count = len(where.index.shards)
    light = replace(where, index=replace(where.index, shards=()))  # all shards, for each of them, would be much to send
    tars = pool.map(partial(examine, light), range(count), where.index.shards)
    for one in progress(tars, total=count, done="verified", unit="tars"):
        known.add(one.marks, one.keys)
        yield from one.findings


def _generations(url: str) -> Iterator[Finding]:
    """Whether each index lists the shards of the one before first, unchanged."""
    store = open_store(url)
    newest = newest_generation(store)
    for number in range(newest):
        try:
            old, new = (read_index(store, n).shards for n in (number, number + 1))
        except ValueError as error:
            yield Finding("index", index_name(number), str(error))
            continue
        if new[: len(old)] != old:
            yield Finding("index", index_name(number + 1), f"does not begin with the shards of {index_name(number)}")


def _unlisted(where: Where) -> Iterator[Finding]:
    """Tars of a local set that its index does not list; strangers' folders may hold others."""
    if is_remote(where.root) or where.index.members:
        return
    listed = {shard.name for shard in where.index.shards}
    for path in sorted(walk(Path(where.root))):
        name = path.relative_to(where.root).as_posix()
        if path.suffix == ".tar" and name not in listed:
            yield Finding("unlisted", name, "is not in the index, and is not read")


def _tell(args: argparse.Namespace, index: Index, findings: Findings, seconds: float) -> int:
    """Name the first findings of each kind on stderr, sum up on stdout; the exit code."""
    for kind, count in findings.counts.items():
        lines = [one.line() for one in findings.listed if one.kind == kind]
        print("\n".join(lines[:SHOWN]), file=sys.stderr)
        if count > SHOWN:
            print(f"... and {count - SHOWN} more: {kind}", file=sys.stderr)
    errors, warnings = findings.total("error"), findings.total("warning")
    speed = f"{index.samples / max(seconds, 1e-9):.0f} pairs/s"
    print(f"verified: {index.samples} pairs in {len(index.shards)} tars, {errors} errors, {warnings} warnings, {speed}")
    if args.json:
        facts = {"set": args.set, "samples": index.samples, "shards": len(index.shards), "images": args.images}
        with aside(args.json) as file:
            file.write(findings.dumps(facts).encode())
    return 2 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
