"""Files of a shard set, each complete or absent: tars that depend on nothing but the samples, and rows."""

import hashlib
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from p2p.data.format import ShardInfo
from p2p.data.rows import ROW, rows_name
from p2p.data.tars import HEADER_BYTES, crc


@contextmanager
def aside(path: Path) -> Iterator[BinaryIO]:
    """Write under a hidden name beside `path`, and rename once the bytes are on the disk."""
    hidden = path.with_name(f".{path.name}.tmp")
    with open(hidden, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(hidden, path)


_BLANK = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
"""A header without name, size, and checksum of these."""
_SUM = sum(_BLANK[:148]) + 8 * ord(" ") + sum(_BLANK[156:]) - sum(_BLANK[124:135])
_NAME, _SIZE = 100, 8**11


def tar_header(name: str, size: int) -> bytes:
    """A ustar header with nothing of this machine or day in it: mode 0644, no owner, time 0.

    Raises:
        ValueError: the name does not fit the 100 + 155 bytes of a ustar header.
    """
    encoded = name.encode("utf-8", "surrogateescape")
    if len(encoded) > _NAME or size >= _SIZE:
        return _long_header(name, size)
    digits = b"%011o" % size
    check = b"%06o" % (_SUM + sum(encoded) + sum(digits))
    return encoded.ljust(_NAME, b"\0") + _BLANK[100:124] + digits + _BLANK[135:148] + check + _BLANK[154:]


def _long_header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    try:
        return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")
    except ValueError as error:
        raise ValueError(f"name too long for a tar ({len(os.fsencode(name))} bytes); shorten it") from error


def tar_padding(size: int) -> bytes:
    """What follows so many bytes of a file in a tar."""
    return bytes(-size % HEADER_BYTES)


def tar_sample(key: str, members: Mapping[str, bytes]) -> bytes:
    """The run of tar bytes that is one sample: `{"ab.jpg": ..., "json": ...}` with headers and padding."""
    parts = []
    for extension, data in members.items():
        parts += [tar_header(f"{key}.{extension}", len(data)), data, tar_padding(len(data))]
    return b"".join(parts)


def run_bytes(sizes: Iterable[int]) -> int:
    """Bytes of the run of a sample whose members have these sizes."""
    return sum(HEADER_BYTES + size + -size % HEADER_BYTES for size in sizes)


def tar_bytes(content: int) -> int:
    """Size of a tar whose samples have `content` bytes: two zero blocks more, padded to tar's records."""
    return -(-(content + 2 * HEADER_BYTES) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def tar_end(content: int) -> bytes:
    """The zeros that end a tar whose samples have `content` bytes."""
    return bytes(tar_bytes(content) - content)


def write_shard(path: Path, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> ShardInfo:
    """Write a tar of `(key, members)` and, after it, its rows."""
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
        digest.update(tar_end(offset))
        file.write(tar_end(offset))
    with aside(path.with_name(rows_name(path.name))) as file:
        np.save(file, np.array(rows, dtype=ROW))
    return ShardInfo(path.name, len(rows), tar_bytes(offset), digest.hexdigest())
