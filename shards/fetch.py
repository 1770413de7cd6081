"""One .tar.gz out of a store onto this disk: the rest of it where a transfer broke, whole, and checked."""

import gzip
import hashlib
import shutil
import sys
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from p2p.data.stores import Store, open_store
from shards.work import progress

PIECE = 2**23
"""Bytes of one request."""
MB = 10**6


def get(url: str, archive: Path, sha256: str | None, *, beside: float) -> None:
    """Have the archive, whole and checked; what comes of it is in ARCHIVE.part until then.

    Args:
        url: of the folder where it lies.
        archive: where it is to lie, under the same name.
        sha256: that it must have, if it is known.
        beside: bytes that must be free for each of its own, for what is made of it.

    Raises:
        ValueError: there is none at `url`, it is not whole, not the one of `sha256`, or the disk is too small.
        StoreError: the server does not answer.
    """
    if archive.is_file():
        if sha256:
            compare_digest(archive, sha256)
        return
    archive.parent.mkdir(parents=True, exist_ok=True)
    part = archive.with_name(f"{archive.name}.part")
    fetch(open_store(url, partial(print, file=sys.stderr)), archive.name, part, beside)
    print(f"checking {part}")
    check_whole(part)
    compare_digest(part, sha256)
    part.rename(archive)


def fetch(store: Store, name: str, part: Path, beside: float) -> None:
    """Bring the rest of a file; all of it where the server has no ranges.

    Raises:
        ValueError: the server has no such file, less of it than is here, or it does not fit on the disk.
        StoreError: the server does not answer.
    """
    try:
        size = store.size(name)
    except FileNotFoundError as error:
        raise ValueError(f"{error}; give a mirror by --from URL") from error
    if size is None:
        raise ValueError(f"{store.url}/{name}: the server does not say how long it is; give a mirror by --from URL")
    held = part.stat().st_size if part.is_file() and store.seekable else 0
    if held > size:
        raise ValueError(f"{part}: has {held} bytes, {store.url}/{name} only {size}; delete it and run again")
    check_room(part.parent, int(size - held + beside * size))
    print(f"{store.url}/{name}: {size} bytes, {held} of them are here")
    pieces = _parts(store, name, held, size) if store.seekable else store.chunks(name)
    with open(part, "ab" if held else "wb") as file:
        megabytes = _written(pieces, file)
        for _ in progress(megabytes, total=size // MB - held // MB, done="fetched", unit="MB"):
            pass
    if part.stat().st_size != size:
        raise ValueError(f"{part}: has {part.stat().st_size} bytes, the server said {size}; run again")


def check_room(folder: Path, needed: int) -> None:
    """Raises ValueError where the disk lacks so many bytes."""
    if (free := shutil.disk_usage(folder).free) < needed:
        raise ValueError(
            f"{folder}: {needed // MB} MB are needed for the archive and what is made of it, {free // MB} MB are free;"
            " free some, or give a folder of another disk"
        )


def _parts(store: Store, name: str, start: int, size: int) -> Iterator[bytes]:
    for offset in range(start, size, PIECE):
        yield store.part(name, offset, min(PIECE, size - offset))


def _written(pieces: Iterable[bytes], file: BinaryIO) -> Iterator[int]:
    """Write the pieces; one item for each megabyte that is full."""
    for piece in pieces:
        before = file.tell()
        file.write(piece)
        yield from range(before // MB, file.tell() // MB)


def check_whole(part: Path) -> None:
    """Read a .tar.gz to the checksum at its end; its headers are the packer's matter.

    Raises:
        ValueError: it is cut short, or damaged.
    """
    try:
        with gzip.open(part) as plain:
            while plain.read(PIECE):
                pass
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{part}: is no whole .tar.gz ({error}); delete it and run again") from error


def compare_digest(file: Path, sha256: str | None) -> None:
    """Print the SHA-256 of a file.

    Raises:
        ValueError: it is not the expected one.
    """
    with open(file, "rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if sha256 not in (None, digest):
        raise ValueError(
            f"{file}: has the SHA-256 {digest}, not {sha256}; correct --sha256, or delete it and run again"
        )
    print(f"sha256 {digest}: {file}")
