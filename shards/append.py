"""New data become further shards of a set: what it is, which keys it holds, where its numbers go on."""

import re
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from p2p.data.format import Index, newest_generation, read_index
from p2p.data.rows import parse_rows, rows_name
from p2p.data.stores import open_store
from shards.sources import Settings
from shards.tasks import Extent

READERS = 16
"""Headers that are read at once; a store of another machine takes its time for each."""


@dataclass(frozen=True)
class Base:
    """A set that new data join."""

    at: str | Path
    generation: int
    index: Index

    @property
    def first(self) -> int:
        """Number of the first new shard."""
        numbers = [re.match(r"shard-(\d+)", shard.name) for shard in self.index.shards]
        return 1 + max(int(number[1]) for number in numbers if number)

    @property
    def extent(self) -> Extent:
        """Of all that it holds."""
        return Extent(self.index.channels, self.index.smallest, self.index.largest)

    def read_keys(self) -> Iterator[str]:
        """Of every sample, from the first header of each."""
        store = open_store(self.at)
        with ThreadPoolExecutor(READERS) as threads:
            for shard in self.index.shards:
                name = rows_name(shard.name)
                rows = parse_rows(store.read(name), shard, f"{self.at}/{name}")
                read = partial(store.part, shard.name, size=tarfile.BLOCKSIZE)
                yield from map(_key, threads.map(read, rows["offset"].tolist()))


def find_base(at: str | Path, settings: Settings, generation: int | None) -> Base:
    """The set at a place, of a generation or as it is now.

    Raises:
        ValueError: there is none, or it is of another kind.
    """
    if generation is None:
        generation = newest_generation(open_store(at))
    index = read_index(at, generation)
    if index.root or index.members or not all(re.match(r"shard-\d+", shard.name) for shard in index.shards):
        raise ValueError(f"{at}: is an index of other people's tars; pack into a set of its own, and mix them")
    for name in ("layout", "classes", "instances"):
        if (held := getattr(index, name)) != (new := getattr(settings, name)):
            raise ValueError(f"{at}: has {name} {held}, the new data {new}; they must agree")
    return Base(at, generation, index)


def _key(header: bytes) -> str:
    name = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").name
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{base.partition('.')[0]}"
