"""The bytes of a set of shards in any store, sample by sample, each checked against the index. No torch."""

import os
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from p2p.data import format as form
from p2p.data.cache import Cache
from p2p.data.direct import Direct, Extent
from p2p.data.epochs import SampleOrder, Sequential
from p2p.data.rows import check_shards, parse_rows, rows_name
from p2p.data.stores import is_remote, open_store
from p2p.data.tars import crc

ROWS_BYTES = 2**27
"""Of rows that are kept in memory: those of 8,000 shards of 1,000 samples."""
TRIES = 2
"""Readings of a sample whose bytes are not those that were packed; what a cache holds may be wrong by itself."""
FETCHERS = 8
"""Transfers at once from a remote store."""
SOME = 64
"""Samples of a whole shard that tell when it is needed next."""


def own_folder() -> Path:
    """A cache below the system's folder of temporary files.

    Raises:
        ValueError: somebody else has made it, who could change what is read.
    """
    folder = Path(tempfile.gettempdir()) / f"p2p-cache-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise ValueError(f"{folder}: belongs to somebody else; name another cache with data.cache")
    return folder


@dataclass(frozen=True)
class Keep:
    """Where what comes from a remote store is kept on this machine, and how many bytes of it at most."""

    folder: str = ""
    """Empty: one below the system's folder of temporary files."""
    part: str = ""
    """Folder inside, of its own for each set that is read beside others."""
    limit: int = 20 * 2**30

    @property
    def path(self) -> Path:
        """The folder."""
        return (Path(self.folder) if self.folder else own_folder()) / self.part


@dataclass
class Samples:
    """The samples of a set of shards as bytes; threads may share it.

    Args:
        folder: what `shards.pack` or `shards.index` wrote: a folder or a URL, or an index file in it, which is of one
            generation.
        root: folder or URL of the tars, where they do not lie where the index says.
        generation: of the index; None for the newest.
        keep: the cache of a remote set.

    Raises:
        ValueError: the index is missing or damaged, or a shard does not fit it.
        StoreError: the store does not answer.
    """

    folder: str
    root: str = field(default="", kw_only=True)
    generation: int | None = field(default=None, kw_only=True)
    keep: Keep = field(default_factory=Keep, kw_only=True)
    report: Callable[[str], None] = field(default=lambda line: None, kw_only=True)
    """Told of what a store does that is worth knowing, such as a transfer that has to be tried again."""
    index: form.Index = field(init=False)

    def __post_init__(self) -> None:
        folder, _, name = self.folder.rpartition("/")
        if (named := form.generation_of(name)) is not None:
            self.folder, self.generation = folder or ".", named
        beside = open_store(self.folder, self._tell)
        if self.generation is None:
            self.generation = form.newest_generation(beside)
        self.index = form.read_index(beside, self.generation)
        root = self.root or self.index.root or self.folder
        if is_remote(self.folder) and not self.root and not is_remote(root):
            raise ValueError(
                f"{self.folder}: its index names {root}, a folder of another machine; say where the tars lie"
            )
        check_shards(self.folder, self.index, root)
        self._beside = self._open(self.folder)
        self._tars = self._beside if root == self.folder else self._open(root)
        self._rows: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()
        self.follow(Sequential(self.counts))

    def _tell(self, line: str) -> None:
        self.report(line)

    def _open(self, where: str) -> Cache | Direct:
        if not is_remote(where):
            return Direct(where)
        store = open_store(where, self._tell)
        return Cache(store, self.keep.path, self.keep.limit, self.fingerprint, self._check, self._next, self._tell)

    @cached_property
    def counts(self) -> list[int]:
        """Samples in each shard."""
        return [shard.samples for shard in self.index.shards]

    @cached_property
    def fingerprint(self) -> str:
        """Of the sequence of samples that the order is cut from."""
        return f"{crc(repr([(s.samples, s.sha256) for s in self.index.shards]).encode()):08x}"

    @property
    def fetchers(self) -> int:
        """Threads that read ahead: a store answers late, a disk does not, and its system reads ahead by itself."""
        return FETCHERS if isinstance(self._tars, Cache) else 0

    @cached_property
    def seekable(self) -> bool:
        """Parts of a shard can be read."""
        if not isinstance(self._tars, Cache):
            return True
        with suppress(FileNotFoundError):
            self._tars.store.size(self.index.shards[0].name)  # a web server shows by its answer what it can
        return self._tars.store.seekable

    @property
    def generations(self) -> list[int]:
        """That of the index; see `Mixed.generations`."""
        return [self.generation or 0]

    def report_to(self, tell: Callable[[str], None]) -> None:
        """From here on `tell` is told instead of `report`."""
        self.report = tell

    def follow(self, order: SampleOrder, position: int = 0) -> None:
        """From here on samples are asked for in this order: it says what is read at once, and what is kept longest."""
        self.order, self.position = order, position

    def fetch(self, shard: int, sample: int) -> tuple[bytearray, str]:
        """The tar bytes of a sample, and where they are, in words.

        Raises:
            ValueError: they are not those that were packed; says shard and byte.
            StoreError: the store does not answer.
        """
        for _ in range(TRIES):
            offset, size, expected = self.rows(shard)[sample].item()
            extent = self.extent(shard, sample)
            data = self._tars.read(extent, offset, size)
            if crc(data) == expected:
                return data, f"{extent.name} at byte {offset}"
            self._tars.drop(extent)
            self._forget_rows(shard)  # which may be what is wrong
        raise ValueError(
            f"{extent.name} at byte {offset}: the {size} bytes of sample {sample} are not those that were packed"
        )

    def extent(self, shard: int, sample: int) -> Extent:
        """What is read at once where a sample is: as many samples as the order keeps together, or the whole tar."""
        info, together = self.index.shards[shard], self._together
        if not together:
            return Extent(shard, -1, info.name, 0, info.bytes)
        run = sample // together
        rows = self.rows(shard)[run * together : (run + 1) * together]
        first = int(rows[0]["offset"])
        return Extent(shard, run, info.name, first, int(rows[-1]["offset"]) + int(rows[-1]["size"]) - first)

    @property
    def _together(self) -> int:
        return self.order.run if self.seekable else 0

    def rows(self, shard: int) -> np.ndarray:
        """The rows of a shard, `[samples]` of `format.ROW`.

        Raises:
            ValueError: they are damaged.
        """
        if (rows := self._rows.get(shard)) is None:
            info = self.index.shards[shard]
            name = rows_name(info.name)
            parse = partial(parse_rows, shard=info, where=f"{self.folder}/{name}")
            rows = parse(self._beside.whole(name, parse))
            with self._lock:
                while len(self._rows) > ROWS_BYTES // max(rows.nbytes, 1):
                    del self._rows[next(iter(self._rows))]
                self._rows[shard] = rows
        return rows

    def _forget_rows(self, shard: int) -> None:
        self._rows.pop(shard, None)
        self._beside.forget(rows_name(self.index.shards[shard].name))

    def ensure(self, extent: Extent) -> None:
        """Have it read, or fetched, before it is needed."""
        self._tars.ensure(extent)

    def _check(self, extent: Extent, data: memoryview) -> None:
        """Raises ValueError where bytes that came from a store are not those that were packed."""
        first = extent.run * self._together if extent.run >= 0 else 0
        rows = self.rows(extent.shard)[first:]
        for row in rows[rows["offset"] + rows["size"] <= extent.offset + extent.size]:
            offset = int(row["offset"]) - extent.offset
            if crc(data[offset : offset + int(row["size"])]) != row["crc"]:
                raise ValueError(f"{extent.name} at byte {row['offset']}: the bytes are not those that were packed")

    def _next(self, extents: np.ndarray) -> np.ndarray:
        """Position at which each `(shard, run)` is needed next: int64 `[n, 2]` -> `[n]`."""
        shard, run = extents.T
        counts = np.asarray(self.counts)[shard]
        if together := self._together:
            sample = run[:, None] * together + np.arange(together)
        else:
            sample = counts[:, None] * np.arange(SOME) // SOME
        sample = np.clip(sample, 0, counts[:, None] - 1)
        when = self.order.when(np.repeat(shard, sample.shape[1]), sample.ravel(), self.position)
        return when.reshape(sample.shape).min(axis=1)
