"""Several sets as one, its shards those of the first, then of the second, and so on."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import accumulate

import torch

from p2p.data.decode import CPU
from p2p.data.direct import Extent
from p2p.data.epochs import SampleOrder, Sequential
from p2p.data.format import Index
from p2p.data.mix import Mix
from p2p.data.orders import ordered
from p2p.data.shardset import Members, ShardSet
from p2p.data.tars import crc


class Mixed:
    """Several sets as one, with the methods of `ShardSet`.

    Args:
        sets: at least one.
        weights: how often each is seen, in whole numbers; see `p2p.data.mix`.

    Raises:
        ValueError: they do not hold the same kind of pairs.
    """

    def __init__(self, sets: Sequence[ShardSet], weights: Sequence[int]) -> None:
        self.sets, self.weights = sets, weights
        first = sets[0]
        for other in sets[1:]:
            for what, ours, theirs in (
                ("channels", first.channels, other.channels),
                ("classes", first.index.classes, other.index.classes),
                ("instances", first.index.instances, other.index.instances),
            ):
                if ours != theirs:
                    raise ValueError(f"{other.folder}: {what} {theirs}, {first.folder} has {ours}; pack both alike")
        self.folder = " + ".join(one.folder for one in sets)

    @cached_property
    def index(self) -> Index:
        """That of the first set, with the shards and the bounds of all."""
        indexes = [one.index for one in self.sets]
        return replace(
            indexes[0],
            shards=tuple(shard for index in indexes for shard in index.shards),
            smallest=(min(index.smallest[0] for index in indexes), min(index.smallest[1] for index in indexes)),
            largest=(max(index.largest[0] for index in indexes), max(index.largest[1] for index in indexes)),
        )

    @cached_property
    def counts(self) -> list[int]:
        """Samples in each shard."""
        return [count for one in self.sets for count in one.counts]

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(len(one.counts) for one in self.sets))

    @property
    def channels(self) -> tuple[int, int]:
        """As `ShardSet.channels`."""
        return self.sets[0].channels

    @property
    def fingerprint(self) -> str:
        """Of all sequences of samples, and of how they are mixed."""
        parts = [(one.fingerprint, weight) for one, weight in zip(self.sets, self.weights, strict=True)]
        return f"{crc(repr(parts).encode()):08x}"

    @property
    def fetchers(self) -> int:
        """As `Samples.fetchers`."""
        return max(one.fetchers for one in self.sets)

    @property
    def seekable(self) -> bool:
        """As `Samples.seekable`."""
        return all(one.seekable for one in self.sets)

    @property
    def generations(self) -> list[int]:
        """Of the index of each set."""
        return [generation for one in self.sets for generation in one.generations]

    def report_to(self, tell: Callable[[str], None]) -> None:
        """As `Samples.report_to`."""
        for one in self.sets:
            one.report_to(tell)

    def follow(self, order: SampleOrder, position: int = 0) -> None:
        """As `ShardSet.follow`; under a `Mix` each set follows its own sequence."""
        for number, one in enumerate(self.sets):
            if isinstance(order, Mix):
                share = order.weights[number] / sum(order.weights)
                one.follow(order.orders[number], int(position * share))
            else:
                one.follow(Sequential(one.counts), 0)

    @property
    def members(self) -> frozenset[str]:
        """As `ShardSet.members`; the same of all."""
        return self.sets[0].members

    side_by_side = False
    """The sets may have other layouts, so samples are read one by one."""

    def training_order(self, *, seed: int, lanes: int, block: int, window: int) -> SampleOrder:
        """As `ShardSet.training_order`."""
        counts = [one.counts for one in self.sets]
        return ordered(counts, self.weights, seed=seed, lanes=lanes, block=block, window=window)

    def read_together(self, places: Sequence[tuple[int, int]]) -> tuple[list[str], Members]:
        """Raises ValueError: it is not `side_by_side`."""
        raise ValueError("samples of several sets are read one by one")

    def read(self, shard: int, sample: int, device: torch.device = CPU) -> tuple[str, Members]:
        """As `ShardSet.read`."""
        one, first = self._of(shard)
        return one.read(shard - first, sample, device)

    def extent(self, shard: int, sample: int) -> Extent:
        """As `ShardSet.extent`."""
        one, first = self._of(shard)
        return one.extent(shard - first, sample)._replace(shard=shard)

    def ensure(self, extent: Extent) -> None:
        """As `ShardSet.ensure`."""
        one, first = self._of(extent.shard)
        one.ensure(extent._replace(shard=extent.shard - first))

    def _of(self, shard: int) -> tuple[ShardSet, int]:
        """The set that has a shard, and the number of its first."""
        number = bisect_right(self._ends, shard)
        return self.sets[number], self._ends[number] - len(self.sets[number].counts)
