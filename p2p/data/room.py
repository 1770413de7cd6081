"""A folder of bounded size that processes share: room is made before a file is written, and it is whole or absent.

SET/SHARD.RUN.OFFSET.SIZE    an extent of a set
SET/small-HASH               a small file of a set, which does not count
.aside/UNIQUE.SIZE           being written, locked by who writes it
.account                     the sum of these sizes; too high after a kill, so counted again before anything goes
"""

import errno
import fcntl
import os
import uuid
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

import numpy as np
from filelock import FileLock

FULL = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
"""Errors of a disk, or a quota, that takes no more."""
BATCH = 10
"""A tenth of what there is goes at once: to look at all of it costs a second where there are a million files."""
STRIPES = 1024
"""Lock files of a kind. Two names that share one wait for each other without need."""
POLL_S = 0.01
SMALL = "small-"

NextUse = Callable[[np.ndarray], np.ndarray]
"""int64 `[n,2]` of (shard, run) -> position at which each is needed next, `[n]`."""


class Room:
    """The folder, as one set uses it.

    Args:
        limit: bytes of all sets together.
        mine: name of the set.
        next_use: what is needed last goes first; but before it the files of other sets, the oldest first.
    """

    def __init__(self, folder: Path, limit: int, mine: str, next_use: NextUse) -> None:
        self.folder, self.limit, self.mine, self._next_use = folder, limit, folder / mine, next_use
        self._aside, self._locks = folder / ".aside", folder / ".locks"
        with self.account_lock():
            self._clean()

    def alone(self, path: Path) -> FileLock:
        """To be held, by one thread of one process of this machine, while a file is made."""
        kind = SMALL if path.name.startswith(SMALL) else "extent-"  # who holds an extent may ask for a small file
        return self._lock(f"{kind}{crc32(path.name.encode()) % STRIPES}")

    @contextmanager
    def aside(self, size: int) -> Iterator[BinaryIO]:
        """A new file with room for `size` bytes, to write to and to rename; if it is not renamed, it is removed.

        Raises:
            OSError: of `FULL`, where there is no room even after others went.
        """
        file = self._reserve(size)
        with file:
            try:
                yield file
            finally:
                Path(file.name).unlink(missing_ok=True)

    def _reserve(self, size: int) -> BinaryIO:
        if size > self.limit:
            raise OSError(errno.ENOSPC, f"{size} bytes are over the limit of {self.limit}; raise data.cache_bytes")
        try:
            return self._created(size, forced=False)
        except OSError as error:
            if error.errno not in FULL:
                raise
            return self._created(size, forced=True)

    def _created(self, size: int, forced: bool) -> BinaryIO:
        with self.account_lock():
            used = self._used()
            if forced or used + size > self.limit:
                used = self._evict(size, forced)
            if used + size > self.limit:
                raise OSError(
                    errno.ENOSPC, f"{self.limit} bytes are less than what is being fetched; raise it (data.cache_bytes)"
                )
            file = open(self._aside / f"{uuid.uuid4().hex}.{size}", "x+b")  # noqa: SIM115 # `aside` closes it
            fcntl.flock(file, fcntl.LOCK_EX)
            self._account(used + size)
        try:
            if size:
                os.posix_fallocate(file.fileno(), 0, size)  # before the transfer, which would be for nothing
        except OSError as error:
            if error.errno in FULL:  # else this disk cannot tell
                Path(file.name).unlink()
                file.close()
                raise
        return file

    def _evict(self, size: int, forced: bool) -> int:
        """Remove files until `size` bytes fit below the limit, or, forced, are freed in any case; the bytes left."""
        self._clean()
        written = sum(map(_size, self._aside.iterdir()))  # first: what is renamed meanwhile may count twice, never not
        extents, others = self._extents(), self._others()
        used = written + int(extents[:, 3].sum()) + sum(size for _, size, _ in others)
        missing = size if forced else used + size - self.limit
        wanted = max(missing, used // BATCH) if missing > 0 else 0
        freed = 0
        for path, bytes_ in self._victims(extents, others):
            if freed >= wanted:
                break
            path.unlink(missing_ok=True)  # who reads it now has it open
            freed += bytes_
        return used - freed

    def _victims(self, extents: np.ndarray, others: list[tuple[int, int, Path]]) -> Iterator[tuple[Path, int]]:
        yield from ((path, size) for _, size, path in sorted(others))
        when = self._next_use(extents[:, :2]) if len(extents) else np.empty(0)
        for row in np.argsort(-np.asarray(when), kind="stable"):
            yield self.mine / ".".join(map(str, extents[row])), int(extents[row, 3])

    def _extents(self) -> np.ndarray:
        """Of this set: shard, run, offset, size, int64 `[n,4]`."""
        numbers = array("q")
        with os.scandir(self.mine) as entries:
            for entry in entries:
                if _size(entry):
                    numbers.extend(map(int, entry.name.split(".")))
        return np.array(numbers, np.int64).reshape(-1, 4)

    def _others(self) -> list[tuple[int, int, Path]]:
        """Time, size and path of every file of other sets."""
        found = []
        for folder in self.folder.iterdir():
            if folder.is_dir() and folder != self.mine and not folder.name.startswith("."):
                for path in folder.iterdir():
                    with suppress(FileNotFoundError):  # a process of that set removes, too
                        found.append((path.stat().st_mtime_ns, _size(path), path))
        return found

    def _clean(self) -> None:
        """Remove what killed processes were writing: its lock is free."""
        for path in self._aside.iterdir():
            with suppress(OSError), open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()

    def _used(self) -> int:
        try:
            return int((self.folder / ".account").read_bytes())
        except (FileNotFoundError, ValueError):
            return self.limit + 1  # to be counted

    def _account(self, used: int) -> None:
        file = os.open(self.folder / ".account", os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            os.pwrite(file, b"%20d" % used, 0)  # in place: a full disk takes it
        finally:
            os.close(file)

    def account_lock(self) -> FileLock:
        """To be held while room is made."""
        return self._lock("account")

    def _lock(self, name: str) -> FileLock:
        for place in (self.mine, self._aside, self._locks):
            place.mkdir(parents=True, exist_ok=True)  # each time: some machines tidy up
        return FileLock(self._locks / name, poll_interval=POLL_S)  # a new one, so that threads exclude each other


def _size(file: os.DirEntry[str] | Path) -> int:
    """Bytes of an extent, as its name says; 0 of any other file."""
    last = file.name.rpartition(".")[2]
    return int(last) if last.isdecimal() else 0
