"""Sequences of samples that never end: epoch follows epoch, and each holds every sample once."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np

from p2p.data import keyed

EPOCH, BLOCKS, LANE, TAIL, SOURCE = range(5)
"""What a key is for, so that no two permutations share one."""

Places = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Epoch, shard and sample in the shard, each int64 `[n]`."""


class SampleOrder(Protocol):
    """Which sample stands at which position: a pure function, epoch after epoch."""

    @property
    def size(self) -> int:
        """Samples in an epoch."""
        ...

    @property
    def run(self) -> int:
        """Consecutive samples of a shard that are read at once; 0: all of them."""
        ...

    def at(self, positions: np.ndarray) -> Places:
        """`positions` int64 `[n]` >= 0 -> epoch, shard and sample in the shard of each."""
        ...

    def when(self, shard: np.ndarray, sample: np.ndarray, position: int) -> np.ndarray:
        """The first position, from `position` on, at which each sample comes: int64 `[n]`."""
        ...


@dataclass(frozen=True)
class Epochs(ABC):
    """A sequence of all samples, epoch after epoch.

    Raises:
        ValueError: there are no samples.
    """

    counts: Sequence[int]
    """Samples in each shard."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError("order: the shards hold no samples; pack some first")

    @property
    @abstractmethod
    def run(self) -> int:
        """Consecutive samples of a shard that are read at once; 0: all of them."""

    @abstractmethod
    def _find(self, place: np.ndarray, epoch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place in an epoch -> (shard, sample)."""

    @abstractmethod
    def _place(self, shard: np.ndarray, sample: np.ndarray, epoch: np.ndarray) -> np.ndarray:
        """The inverse of `_find`."""

    @cached_property
    def size(self) -> int:
        """Samples in an epoch."""
        return int(self._counts.sum())

    @cached_property
    def _counts(self) -> np.ndarray:
        return np.asarray(self.counts, np.int64)

    def at(self, positions: np.ndarray) -> Places:
        """`positions` int64 `[n]` >= 0 -> what stands there."""
        epoch, place = np.divmod(np.asarray(positions, np.int64), self.size)
        shard, sample = self._find(place, epoch)
        return epoch, shard, sample

    def when(self, shard: np.ndarray, sample: np.ndarray, position: int) -> np.ndarray:
        """The first position, from `position` on, at which each sample comes: int64 `[n]`."""
        shard, sample = np.asarray(shard, np.int64), np.asarray(sample, np.int64)
        epoch = np.full(shard.shape, position // self.size)
        now = epoch * self.size + self._place(shard, sample, epoch)
        late = now < position
        now[late] = (epoch[late] + 1) * self.size + self._place(shard[late], sample[late], epoch[late] + 1)
        return now


@dataclass(frozen=True)
class Sequential(Epochs):
    """Every sample in the order of the shards: validation, translation."""

    run = 16

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum(self._counts)

    def _find(self, place: np.ndarray, epoch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shard = np.searchsorted(self._ends, place, side="right")
        return shard, place - (self._ends - self._counts)[shard]

    def _place(self, shard: np.ndarray, sample: np.ndarray, epoch: np.ndarray) -> np.ndarray:
        return (self._ends - self._counts)[shard] + sample


@dataclass(frozen=True)
class WholeShards(Epochs):
    """The order for stores that cannot be read in parts: a shard is one block.

    The shards of an epoch stand in a keyed order, one after the other; their samples are cut into `lanes` runs whose
    lengths differ by one, and position p belongs to lane p mod lanes. So a lane reads shard after shard, and a shard
    is read by one lane, or two where it is cut. What a lane has of a shard comes in a keyed order.
    """

    seed: int = 0
    lanes: int = 64
    run = 0

    def __post_init__(self) -> None:
        if self.lanes < 1:
            raise ValueError(f"order: lanes {self.lanes}: must be >= 1")
        super().__post_init__()

    @cached_property
    def _sequence(self) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
        """Of an epoch: the shards as they follow each other, and the number of samples to the end of each."""

        @lru_cache(maxsize=2)
        def sequence(epoch: int) -> tuple[np.ndarray, np.ndarray]:
            many = len(self.counts)
            shards = keyed.permute(np.arange(many), np.asarray(many), keyed.key(self.seed, BLOCKS, epoch))
            return shards, np.cumsum(self._counts[shards])

        return sequence

    def _find(self, place: np.ndarray, epoch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shard, sample = np.empty_like(place), np.empty_like(place)
        for e in np.unique(epoch):
            of = epoch == e
            shard[of], sample[of] = self._find_in(int(e), place[of])
        return shard, sample

    def _find_in(self, epoch: int, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shards, ends = self._sequence(epoch)
        j, lane = np.divmod(place, self.lanes)
        number = share(self.size, self.lanes, lane)[0] + j
        nth = np.searchsorted(ends, number, side="right")
        first, length, keys = self._piece(epoch, lane, nth, shards, ends)
        number = first + keyed.permute(number - first, length, keys)
        return shards[nth], number - (ends - self._counts[shards])[nth]

    def _place(self, shard: np.ndarray, sample: np.ndarray, epoch: np.ndarray) -> np.ndarray:
        place = np.empty_like(shard)
        for e in np.unique(epoch):
            of = epoch == e
            place[of] = self._place_in(int(e), shard[of], sample[of])
        return place

    def _place_in(self, epoch: int, shard: np.ndarray, sample: np.ndarray) -> np.ndarray:
        shards, ends = self._sequence(epoch)
        nth = np.argsort(shards)[shard]
        number = (ends - self._counts[shards])[nth] + sample
        lane = sharer(self.size, self.lanes, number)
        first, length, keys = self._piece(epoch, lane, nth, shards, ends)
        j = first + keyed.unpermute(number - first, length, keys) - share(self.size, self.lanes, lane)[0]
        return j * self.lanes + lane

    def _piece(
        self, epoch: int, lane: np.ndarray, nth: np.ndarray, shards: np.ndarray, ends: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What a lane has of the nth shard: first number, length, key."""
        start, run = share(self.size, self.lanes, lane)
        first = np.maximum(start, (ends - self._counts[shards])[nth])
        return first, np.minimum(start + run, ends[nth]) - first, keyed.key(self.seed, LANE, epoch, lane, nth)


def share(total: int, parts: int, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and length (at least 1) of a part, where `total` is cut into `parts` whose lengths differ by one."""
    length, longer = divmod(total, parts)
    return part * length + np.minimum(part, longer), np.maximum(length + (part < longer), 1)


def sharer(total: int, parts: int, number: np.ndarray) -> np.ndarray:
    """The part in which a number below `total` lies."""
    length, longer = divmod(total, parts)
    in_longer = number // (length + 1)
    return np.where(in_longer < longer, in_longer, longer + (number - longer * (length + 1)) // max(length, 1))
