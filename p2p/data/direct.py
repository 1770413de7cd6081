"""Shards in a folder of this machine, read in place."""

import os
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import NamedTuple

OPEN_FILES = 256
ANNOUNCED = 4096
"""Extents that the system was told of lately."""


class Extent(NamedTuple):
    """A stretch of a tar that is read at once."""

    shard: int
    run: int
    """Its number in the shard; -1: the whole tar."""
    name: str
    offset: int
    size: int


class Direct:
    """A folder; the page cache is its cache. As `p2p.data.cache.Cache`, which has the same methods.

    A few files stay open; one is closed when the last thread that reads it lets go. The first read in an extent has
    the system read all of it, in one piece.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._file = lru_cache(OPEN_FILES)(lambda name: FileIO(self.folder / name))
        self._announce = lru_cache(ANNOUNCED)(self.ensure)

    def read(self, extent: Extent, at: int, size: int) -> bytearray:
        """Bytes [at, at + size) of the shard.

        Raises:
            ValueError: the file is gone, cut, or cannot be read.
        """
        data = bytearray(size)
        try:
            file = self._file(extent.name)  # held here, so that no other thread closes it
            self._announce(extent)
            found = os.preadv(file.fileno(), [data], at)
        except OSError as error:
            raise ValueError(f"{self.folder / extent.name}: cannot be read ({error.strerror})") from error
        if found != size:
            raise ValueError(f"{self.folder / extent.name}: ends before byte {at + size}; it was whole at the start")
        return data

    def ensure(self, extent: Extent) -> None:
        """Have the system read it in one piece; not needed for `read`."""
        with suppress(OSError, AttributeError):  # not on every system; `read` says what is wrong
            file = self._file(extent.name)
            os.posix_fadvise(file.fileno(), extent.offset, extent.size, os.POSIX_FADV_WILLNEED)

    def drop(self, extent: Extent) -> None:
        """Forget what was kept of it: a file that was exchanged is opened anew."""
        self._file.cache_clear()

    def forget(self, name: str) -> None:
        """Forget what was kept of a small file: nothing is."""

    def whole(self, name: str, check: Callable[[bytes], object] = lambda data: None) -> bytes:
        """A small file; `check` raises ValueError where its bytes are wrong.

        Raises:
            ValueError: it cannot be read, or is wrong.
        """
        try:
            data = (self.folder / name).read_bytes()
        except OSError as error:
            raise ValueError(f"{self.folder / name}: cannot be read ({error.strerror})") from error
        check(data)
        return data
