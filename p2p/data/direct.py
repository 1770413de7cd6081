"""Shards in a folder of this machine, read in place."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


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

    A file is opened for each read, which costs a hundredth of a decode, so that no number of shards is too many.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def read(self, extent: Extent, at: int, size: int) -> bytearray:
        """Bytes [at, at + size) of the shard.

        Raises:
            ValueError: the file is gone, cut, or cannot be read.
        """
        data = bytearray(size)
        try:
            with open(self.folder / extent.name, "rb", buffering=0) as file:
                found = os.preadv(file.fileno(), [data], at)
        except OSError as error:
            raise ValueError(f"{self.folder / extent.name}: cannot be read ({error.strerror})") from error
        if found != size:
            raise ValueError(f"{self.folder / extent.name}: ends before byte {at + size}; it was whole at the start")
        return data

    def ensure(self, extent: Extent) -> None:
        """Have the system read it ahead, all in one piece; not needed for `read`."""
        try:
            with open(self.folder / extent.name, "rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), extent.offset, extent.size, os.POSIX_FADV_WILLNEED)
        except (OSError, AttributeError):  # not on every system; `read` says what is wrong
            pass

    def drop(self, extent: Extent) -> None:
        """Forget what was kept of it: nothing is."""

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
