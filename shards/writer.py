"""Files of a shard set, each complete or absent: tars that depend on nothing but the samples, and rows."""

import hashlib
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from p2p.data.format import HEADER_BYTES, ROW, ShardInfo, crc, read_rows, rows_name


@contextmanager
def aside(path: Path) -> Iterator[BinaryIO]:
    """Write under a hidden name beside `path`, and rename once the bytes are on the disk."""
    hidden = path.with_name(f".{path.name}.tmp")
    with open(hidden, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(hidden, path)


def tar_header(name: str, size: int) -> bytes:
    """A ustar header with nothing of this machine or day in it: mode 0644, no owner, time 0.

    Raises:
        ValueError: the name does not fit the 100 + 155 bytes of a ustar header.
    """
    info = tarfile.TarInfo(name)
    info.size = size
    try:
        return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")
    except ValueError as error:
        raise ValueError(f"name too long for a tar ({len(os.fsencode(name))} bytes); shorten it") from error


def tar_sample(key: str, members: Mapping[str, bytes]) -> bytes:
    """The run of tar bytes that is one sample: `{"ab.jpg": ..., "json": ...}` with headers and padding."""
    parts = []
    for extension, data in members.items():
        padding = bytes(-len(data) % HEADER_BYTES)
        parts += [tar_header(f"{key}.{extension}", len(data)), data, padding]
    return b"".join(parts)


def tar_bytes(content: int) -> int:
    """Size of a tar whose samples have `content` bytes: two zero blocks more, padded to tar's records."""
    return -(-(content + 2 * HEADER_BYTES) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def write_shard(path: Path, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> ShardInfo:
    """Write a tar of `(key, members)` and, after it, its rows: where these are, the shard is complete."""
    rows: list[tuple[int, int, int]] = []
    digest = hashlib.sha256()
    offset = 0
    with aside(path) as file:
        for key, members in samples:
            data = tar_sample(key, members)
            rows.append((offset, len(data), crc(data)))
            offset += len(data)
            digest.update(data)
            file.write(data)
        end = bytes(tar_bytes(offset) - offset)
        digest.update(end)
        file.write(end)
    with aside(path.with_name(rows_name(path.name))) as file:
        np.save(file, np.array(rows, dtype=ROW))
    return ShardInfo(path.name, len(rows), tar_bytes(offset), digest.hexdigest())


def finished_shard(path: Path, samples: int) -> ShardInfo | None:
    """The shard that an interrupted run completed here, read for its checksum; None if it did not."""
    if not path.is_file():
        return None
    shard = ShardInfo(path.name, samples, path.stat().st_size, "")
    try:
        last = read_rows(path.parent, shard)[-1]
    except ValueError:
        return None
    if tar_bytes(int(last["offset"]) + int(last["size"])) != shard.bytes:
        return None
    with open(path, "rb") as file:
        return ShardInfo(path.name, samples, shard.bytes, hashlib.file_digest(file, "sha256").hexdigest())
