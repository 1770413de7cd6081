"""The rows of a shard: where each sample lies, and its checksum."""

from functools import lru_cache
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np

from p2p.data.format import INDEX, Index, ShardInfo
from p2p.data.stores import is_remote

ROW = np.dtype([("offset", "<u8"), ("size", "<u4"), ("crc", "<u4")])
"""One sample in a shard's .npy: first byte, number of bytes, CRC-32 of them."""

FEW = 1000
"""Shards whose rows are checked before anything starts; those of more are checked as they come."""


def rows_name(shard: str) -> str:
    """Path of the row file that belongs to a tar: `shard-000000.tar` -> `shard-000000.npy`."""
    return str(PurePosixPath(shard).with_suffix(".npy"))


def check_shards(folder: str | Path, index: Index, root: str | Path = "") -> None:
    """Compare the size of each shard and of its rows with the index, where they are on this machine; of few shards the
    rows are read, too.

    Raises:
        ValueError: a shard or its rows are missing, cut short, or do not fit the index.
    """
    tars = root or index.root or folder
    for shard in index.shards:
        path = Path(tars) / shard.name
        if not is_remote(tars) and (size := _size(path)) != shard.bytes:
            raise ValueError(f"{path}: has {size} bytes, {INDEX} says {shard.bytes}; copy it again or pack again")
        if not is_remote(folder):
            _check_rows(Path(folder), shard, read=len(index.shards) <= FEW)


def _check_rows(folder: Path, shard: ShardInfo, *, read: bool) -> None:
    path = folder / rows_name(shard.name)
    if _size(path) != len(_header(shard.samples)) + shard.samples * ROW.itemsize:
        raise ValueError(f"{path}: does not hold the {shard.samples} rows that {INDEX} says; pack the set again")
    if read:
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
    header = _header(shard.samples)
    if not data.startswith(header) or len(data) != len(header) + shard.samples * ROW.itemsize:
        raise ValueError(f"{where}: does not hold the {shard.samples} rows that {INDEX} says; pack the set again")
    rows = np.frombuffer(data, ROW, offset=len(header))
    ends = np.cumsum(rows["size"], dtype=np.uint64)
    if not np.array_equal(rows["offset"], ends - rows["size"]) or ends[-1] > shard.bytes:
        raise ValueError(f"{where}: its rows do not follow each other inside {shard.name}; pack the set again")
    return rows


@lru_cache(maxsize=256)
def _header(samples: int) -> bytes:
    """What numpy writes before so many rows.

    It is compared, not read: numpy reads it with `ast`, which CPython 3.11 now and then fails to do in two threads.
    """
    file = BytesIO()
    form = {"descr": np.lib.format.dtype_to_descr(ROW), "fortran_order": False, "shape": (samples,)}
    np.lib.format.write_array_header_1_0(file, form)
    return file.getvalue()
