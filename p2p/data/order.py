"""The one global order: position -> (epoch, shard, sample), a pure function of the seed and the shard counts.

The position never resets. Step t takes positions [t*B, (t+1)*B), whatever the number of ranks; epochs follow each
other without a gap, so nothing is dropped, repeated or padded. No table of samples is ever built: memory and start
time depend on the number of shards only.

How an epoch is cut. Each shard is cut into *blocks* of `block` consecutive samples; the tails of the shards are
joined and cut likewise. The block numbers are permuted by a keyed Feistel network. `lanes` lanes each take `window`
blocks at a time and emit their samples in a keyed order; position p belongs to lane p mod lanes. What is left after
the last full round of all lanes is cut into `lanes` runs, each in a keyed order. A set that fits into one round
(lanes * window * block samples) is permuted whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from p2p.data import keyed

EPOCH, BLOCKS, LANE, TAIL = range(4)
"""What a key is for, so that no two permutations share one."""


@dataclass(frozen=True)
class Order:
    """The order of a training run.

    Raises:
        ValueError: there are no samples, or a size is not positive.
    """

    counts: Sequence[int]
    """Samples in each shard."""
    seed: int = 0
    lanes: int = 1024
    block: int = 16
    window: int = 2

    def __post_init__(self) -> None:
        if min(self.lanes, self.block, self.window) < 1:
            raise ValueError(f"order: lanes {self.lanes}, block {self.block}, window {self.window}: each must be >= 1")
        if self.size < 1:
            raise ValueError("order: the shards hold no samples; pack some first")

    @cached_property
    def size(self) -> int:
        """Samples in an epoch."""
        return int(self._counts.sum())

    @cached_property
    def _counts(self) -> np.ndarray:
        return np.asarray(self.counts, np.int64)

    @cached_property
    def _full(self) -> np.ndarray:
        return self._counts // self.block  # full blocks of each shard

    @cached_property
    def _full_ends(self) -> np.ndarray:
        return np.cumsum(self._full)

    @cached_property
    def _tail_ends(self) -> np.ndarray:
        return np.cumsum(self._counts % self.block)

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`positions` int64 `[n]` >= 0 -> (epoch, shard, sample in the shard), each int64 `[n]`."""
        positions = np.asarray(positions, np.int64)
        epoch, p = np.divmod(positions, self.size)
        shard, sample = self._locate(self._shuffle(epoch, p))
        return epoch, shard, sample

    def _shuffle(self, epoch: np.ndarray, p: np.ndarray) -> np.ndarray:
        """Place in the epoch -> number of the sample, counting block by block (see `_locate`)."""
        keys = keyed.key(self.seed, EPOCH, epoch)
        per_round = self.lanes * self.window * self.block
        if self.size <= per_round:
            return keyed.permute(p, np.asarray(self.size), keys)
        num_blocks = self.size // self.block
        rounds = num_blocks // (self.lanes * self.window)
        round_, slot = np.divmod(p, per_round)
        inside = round_ < rounds
        nth = np.where(inside, self._in_round(round_, slot, keys), self._in_tail(p - rounds * per_round, rounds, keys))
        block, rest = np.divmod(nth, self.block)
        shuffled = keyed.permute(np.minimum(block, num_blocks - 1), np.asarray(num_blocks), keyed.key(BLOCKS, keys))
        return np.where(block < num_blocks, shuffled, block) * self.block + rest

    def _in_round(self, round_: np.ndarray, slot: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Place in a full round -> place in the epoch's sequence of permuted blocks."""
        per_lane = self.window * self.block
        j, lane = np.divmod(slot, self.lanes)
        turn = round_ * self.lanes + lane
        return turn * per_lane + keyed.permute(j, np.asarray(per_lane), keyed.key(LANE, keys, turn))

    def _in_tail(self, p: np.ndarray, rounds: int, keys: np.ndarray) -> np.ndarray:
        """Place in the last, incomplete round -> place in the sequence: `lanes` runs whose lengths differ by one."""
        start = rounds * self.lanes * self.window * self.block
        length, longer = divmod(self.size - start, self.lanes)
        p = np.maximum(p, 0)  # places outside the tail are thrown away by the caller
        j, lane = np.divmod(p, self.lanes)
        first = lane * length + np.minimum(lane, longer)
        run = np.maximum(length + (lane < longer), 1)
        return start + first + keyed.permute(j % run, run, keyed.key(TAIL, keys, lane))

    def _locate(self, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Number of a sample -> (shard, sample): full blocks of all shards first, then their joined tails."""
        last = len(self._counts) - 1
        block, rest = np.divmod(number, self.block)
        shard = np.minimum(np.searchsorted(self._full_ends, block, side="right"), last)
        sample = (block - (self._full_ends - self._full)[shard]) * self.block + rest
        tail = number - self._full_ends[-1] * self.block
        tail_shard = np.minimum(np.searchsorted(self._tail_ends, tail, side="right"), last)
        tail_sample = self._counts[tail_shard] + tail - self._tail_ends[tail_shard]
        return np.where(tail < 0, shard, tail_shard), np.where(tail < 0, sample, tail_sample)


@dataclass(frozen=True)
class Sequential:
    """Every sample once in the order of the shards: validation, translation."""

    counts: Sequence[int]

    @property
    def size(self) -> int:
        return sum(self.counts)

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `Order.at`, without a shuffle."""
        ends = np.cumsum(np.asarray(self.counts, np.int64))
        epoch, p = np.divmod(np.asarray(positions, np.int64), self.size)
        shard = np.searchsorted(ends, p, side="right")
        return epoch, shard, p - (ends - np.asarray(self.counts))[shard]


def rank_slice(step_start: int, batch: int, rank: int, world: int, unit: int = 1) -> range:
    """Positions of one rank in the step that starts at `step_start`: [t + r*B//W, t + (r+1)*B//W), counted in units of
    consecutive positions that stay together."""
    first, last = (r * (batch // unit) // world * unit if r < world else batch for r in (rank, rank + 1))
    return range(step_start + first, step_start + last)
