"""The rows of a shard: where each sample lies, and its checksum."""

from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np

from p2p.data.encoded import first_line
from p2p.data.format import INDEX, Index, ShardInfo

ROW = np.dtype([("offset", "<u8"), ("size", "<u4"), ("crc", "<u4")])
"""One sample in a shard's .npy: first byte, number of bytes, CRC-32 of them."""

FEW = 1000
"""Shards whose rows are checked before anything starts; those of more are checked as they come."""


def rows_name(shard: str) -> str:
    """Path of the row file that belongs to a tar: `shard-000000.tar` -> `shard-000000.npy`."""
    return str(PurePosixPath(shard).with_suffix(".npy"))


def check_shards(folder: str | Path, index: Index, root: str | Path = "") -> None:
    """Compare the size of each shard and of its rows with the index; of few shards the rows are read, too.

    Raises:
        ValueError: a shard or its rows are missing, cut short, or do not fit the index.
    """
    tars = Path(root or index.root or folder)
    for shard in index.shards:
        if (size := _size(tars / shard.name)) != shard.bytes:
            raise ValueError(
                f"{tars / shard.name}: has {size} bytes, {INDEX} says {shard.bytes}; copy it again or pack again"
            )
        path = Path(folder) / rows_name(shard.name)
        header = _size(path) - shard.samples * ROW.itemsize
        if header < 64 or header % 64:  # numpy's header is padded to 64 bytes
            raise ValueError(f"{path}: does not hold the {shard.samples} rows that {INDEX} says; pack the set again")
        if len(index.shards) <= FEW:
            read_rows(folder, shard)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise ValueError(f"{path}: missing, but {INDEX} lists it; restore it or pack the set again") from error


def read_rows(folder: str | Path, shard: ShardInfo) -> np.ndarray:
    """The rows of one shard of a local set, `[samples]` of `ROW`; see `parse_rows`.

    Raises:
        ValueError: the file is missing, or as `parse_rows`.
    """
    path = Path(folder) / rows_name(shard.name)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); pack the set again") from error
    return parse_rows(data, shard, str(path))


def parse_rows(data: bytes, shard: ShardInfo, where: str) -> np.ndarray:
    """The rows of one shard, `[samples]` of `ROW`, from their file's bytes, checked against the index.

    Raises:
        ValueError: they are not of `ROW`, or the samples do not stand side by side in the shard; says `where`.
    """
    try:
        rows: np.ndarray = np.load(BytesIO(data), allow_pickle=False)
        fits = rows.dtype == ROW and rows.shape == (shard.samples,)
    except Exception as error:  # numpy raises whatever a damaged header makes it raise
        raise ValueError(f"{where}: cannot be read ({first_line(error)}); pack the set again") from error
    if not fits:
        raise ValueError(f"{where}: does not hold the {shard.samples} rows that {INDEX} says; pack the set again")
    ends = np.cumsum(rows["size"], dtype=np.uint64)
    if not np.array_equal(rows["offset"], ends - rows["size"]) or ends[-1] > shard.bytes:
        raise ValueError(f"{where}: its rows do not follow each other inside {shard.name}; pack the set again")
    return rows
