"""What came from a store, kept on this machine for all its processes: each extent is transferred once."""

import hashlib
import mmap
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from p2p.data.direct import Extent
from p2p.data.remote import after
from p2p.data.room import FULL, SMALL, NextUse, Room
from p2p.data.stores import Store

REST_S = 60.0
"""Until a disk that was full is tried again."""


class Cache:
    """The extents of one set, in a folder that other sets and processes share.

    A process may be killed at any time: what it was fetching, another fetches. Disks may be full, and what they hold
    may be lost or wrong: then the store is asked again.

    Args:
        folder: on a disk of this machine.
        limit: bytes of extents in the folder, of all sets together.
        set_name: of the folder inside, one for each fingerprint.
        verify: raises ValueError where the bytes of an extent are wrong. It may call `whole`.
        next_use: see `NextUse`; runs may be of an earlier start, with other blocks.
        report: told in a line of what had to be fetched again, and of a disk that is full.
    """

    def __init__(
        self,
        store: Store,
        folder: str | Path,
        limit: int,
        set_name: str,
        verify: Callable[[Extent, memoryview], None],
        next_use: NextUse,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.store, self._verify, self._report = store, verify, report
        self._room = Room(Path(folder), limit, set_name, next_use)
        self._wrong: set[Extent] = set()
        self._rest_until = 0.0
        self._told_full = False

    def read(self, extent: Extent, at: int, size: int) -> bytearray:
        """Bytes [at, at + size) of the shard, which lie in the extent.

        An extent that is wrong in the store, too, is not refused: the caller may find the part sound.

        Raises:
            ValueError: the shard is gone, or ends before.
            StoreError: the store does not answer.
        """
        start = at - extent.offset
        if (kept := self._kept(extent, start, size)) is not None:
            return kept
        fetched = self._fetch(extent)
        data = self._through(extent, at, size) if fetched is None else bytearray(fetched[start : start + size])
        if len(data) != size:
            raise ValueError(f"{self._where(extent)}: ends before byte {at + size}")
        return data

    def ensure(self, extent: Extent) -> None:
        """Fetch it before it is needed.

        Raises:
            StoreError: the store does not answer.
        """
        if not self._path(extent).exists():
            self._fetch(extent)

    def drop(self, extent: Extent) -> None:
        """Forget it: what was read is wrong. A whole tar that is wrong in the store, too, is kept."""
        if extent.run < 0 and extent in self._wrong:
            return
        self._path(extent).unlink(missing_ok=True)

    def whole(self, name: str, check: Callable[[bytes], object] = lambda data: None) -> bytes:
        """A small file, which is kept outside the limit; `check` raises ValueError where its bytes are wrong.

        Raises:
            ValueError: there is none, or it is wrong, twice.
            StoreError: the store does not answer.
        """
        path = self._small(name)
        if (kept := _sound(path, check)) is not None:
            return kept
        try:
            with self._room.alone(path):
                if (kept := _sound(path, check)) is None:
                    kept = self._fetch_small(name, check)
                    with self._room.aside(0) as file:
                        file.write(kept)
                        file.flush()
                        os.replace(file.name, path)
        except OSError as error:
            self._full(error)
        return self._fetch_small(name, check) if kept is None else kept

    def forget(self, name: str) -> None:
        """Forget a small file: what it says is wrong."""
        self._small(name).unlink(missing_ok=True)

    def _small(self, name: str) -> Path:
        return self._room.mine / f"{SMALL}{hashlib.sha256(name.encode()).hexdigest()}"

    def _fetch_small(self, name: str, check: Callable[[bytes], object]) -> bytes:
        try:
            data = self.store.read(name)
            try:
                check(data)
            except ValueError as error:
                self._report(f"{error}; transferred again")
                check(data := self.store.read(name))
        except FileNotFoundError as error:
            raise ValueError(str(error)) from error
        return data

    def _kept(self, extent: Extent, start: int, size: int) -> bytearray | None:
        """A part of an extent that is here."""
        data = bytearray(size)
        try:
            with open(self._path(extent), "rb", buffering=0) as file:
                if os.preadv(file.fileno(), [data], start) == size:
                    return data
        except FileNotFoundError:
            return None
        if extent in self._wrong:
            raise ValueError(f"{self._where(extent)}: ends before byte {extent.offset + start + size}")
        self.drop(extent)  # this machine went down before it was on the disk
        return None

    def _fetch(self, extent: Extent) -> memoryview | None:
        """All of it, transferred and kept, unless another did meanwhile; None where it cannot be kept."""
        if (extent.run >= 0 and extent in self._wrong) or time.monotonic() < self._rest_until:
            return None
        path = self._path(extent)
        try:
            with self._room.alone(path):
                with suppress(FileNotFoundError):
                    return _mapped(path)
                with self._room.aside(extent.size) as file:
                    return self._fetch_into(file, extent)
        except OSError as error:
            self._full(error)
            return None

    def _fetch_into(self, file: BinaryIO, extent: Extent) -> memoryview | None:
        wrong = self._transfer(file, extent)
        if wrong:
            self._report(f"{wrong}; transferred again")
            wrong = self._transfer(file, extent)
        if wrong:
            self._report(f"{wrong}, again; its samples are looked at one by one")
            self._wrong.add(extent)
            if extent.run >= 0 or not file.tell():
                return None
        data = _mapped(file.name)
        os.replace(file.name, self._path(extent))
        return data

    def _transfer(self, file: BinaryIO, extent: Extent) -> str:
        """Write what the store sends; returns what is wrong with it, if anything is."""
        name, offset, size = extent.name, extent.offset, extent.size
        file.seek(0)
        try:
            for piece in [self.store.part(name, offset, size)] if extent.run >= 0 else self.store.chunks(name):
                file.write(piece[: size - file.tell()])
            file.truncate()
            file.flush()
            if file.tell() != size:
                raise ValueError(f"{self._where(extent)}: {file.tell()} bytes came of {size}")
            self._verify(extent, _mapped(file.name))
        except (ValueError, FileNotFoundError) as error:
            return str(error)
        return ""

    def _through(self, extent: Extent, at: int, size: int) -> bytearray:
        """A part, without the cache; less of it where the file ends."""
        try:
            if extent.run >= 0:
                return bytearray(self.store.part(extent.name, at, size))
            data = bytearray()
            for piece in after(self.store.chunks(extent.name), at):
                data += piece[: size - len(data)]
                if len(data) == size:
                    break
            return data
        except FileNotFoundError as error:
            raise ValueError(str(error)) from error

    def _full(self, error: OSError) -> None:
        """Go on without a disk that is full; raises any other error."""
        if error.errno not in FULL:
            raise error
        self._rest_until = time.monotonic() + REST_S
        if not self._told_full:
            self._told_full = True
            self._report(
                f"{self._room.folder}: {error.strerror}; read straight from {self.store.url} until there is room"
            )

    def _path(self, extent: Extent) -> Path:
        return self._room.mine / f"{extent.shard}.{extent.run}.{extent.offset}.{extent.size}"

    def _where(self, extent: Extent) -> str:
        return f"{self.store.url}/{extent.name}"


def _mapped(path: str | Path) -> memoryview:
    """The bytes of a file, which stay readable when it is removed."""
    with open(path, "rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))


def _sound(path: Path, check: Callable[[bytes], object]) -> bytes | None:
    with suppress(FileNotFoundError, ValueError):
        if data := path.read_bytes():
            check(data)
            return data
    return None
