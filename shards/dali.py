"""The index of a tar in the form of DALI's `wds2idx`: `readers.webdataset` reads it as one of its `index_paths`.

The first line is `v1.2` and the number of samples; then comes a line a sample, with extension, first byte, number of
bytes and name of each of its files.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from p2p.data.format import Index, ShardInfo
from p2p.data.rows import parse_rows, rows_name
from p2p.data.stores import open_store
from shards.scan import DamageError, Entry, Sample, Tape, parse
from shards.writer import aside

VERSION = "v1.2"


def line(sample: Sample) -> str:
    """The line of a sample.

    Raises:
        ValueError: a name has a blank in it, which this form cannot hold.
    """
    return " ".join(_component(entry) for entry in sample.entries)


def _component(entry: Entry) -> str:
    name = entry.name.decode(errors="surrogateescape")
    if len(name.split()) != 1:
        raise ValueError(f"{name!r} has blanks in it, which DALI's index cannot hold; leave --dali out")
    extension = name.rpartition("/")[2].partition(".")[2]  # DALI knows small letters from capitals
    return f"{extension} {entry.at} {entry.size} {name}"


def write(folder: Path, shard: str, lines: Sequence[str]) -> None:
    """Write the index of a tar into a folder: of `train/00001.tar`, `train/00001.idx`."""
    path = folder / PurePosixPath(shard).with_suffix(".idx")
    path.parent.mkdir(parents=True, exist_ok=True)
    with aside(path) as file:
        file.write("\n".join([f"{VERSION} {len(lines)}", *lines, ""]).encode(errors="surrogateescape"))


def write_for(where: str, out: Path, index: Index, shard: ShardInfo) -> None:
    """Write the index of a tar of a set that has rows.

    Raises:
        ValueError: the tar or its rows are damaged, or a name has a blank in it.
        StoreError: a store does not answer.
    """
    root = index.root or where
    rows = parse_rows(open_store(where).read(rows_name(shard.name)), shard, f"{where}/{rows_name(shard.name)}")
    tape = Tape(open_store(root).chunks(shard.name))
    try:
        write(out, shard.name, [line(parse(tape.take(int(row["size"])), int(row["offset"]))) for row in rows])
    except DamageError as error:
        raise ValueError(f"{root}/{shard.name} at {error}") from error
