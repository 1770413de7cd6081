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

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from p2p.data import keyed
from p2p.data.epochs import BLOCKS, EPOCH, LANE, TAIL, Epochs, share, sharer


@dataclass(frozen=True)
class Order(Epochs):
    """The order of a training run.

    Raises:
        ValueError: there are no samples, or a size is not positive.
    """

    seed: int = 0
    lanes: int = 1024
    block: int = 16
    window: int = 2

    def __post_init__(self) -> None:
        if min(self.lanes, self.block, self.window) < 1:
            raise ValueError(f"order: lanes {self.lanes}, block {self.block}, window {self.window}: each must be >= 1")
        super().__post_init__()

    @property
    def run(self) -> int:
        """As `Epochs.run`."""
        return self.block

    @cached_property
    def _full(self) -> np.ndarray:
        return self._counts // self.block  # full blocks of each shard

    @cached_property
    def _full_ends(self) -> np.ndarray:
        return np.cumsum(self._full)

    @cached_property
    def _tail_ends(self) -> np.ndarray:
        return np.cumsum(self._counts % self.block)

    @property
    def _per_round(self) -> int:
        return self.lanes * self.window * self.block

    @property
    def _rounds(self) -> int:
        return self.size // self.block // (self.lanes * self.window)

    def _find(self, place: np.ndarray, epoch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._locate(self._shuffle(place, keyed.key(self.seed, EPOCH, epoch)))

    def _place(self, shard: np.ndarray, sample: np.ndarray, epoch: np.ndarray) -> np.ndarray:
        return self._unshuffle(self._number(shard, sample), keyed.key(self.seed, EPOCH, epoch))

    def _shuffle(self, p: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Place in the epoch -> number of the sample, counting block by block (see `_locate`)."""
        if self.size <= self._per_round:
            return keyed.permute(p, np.asarray(self.size), keys)
        num_blocks, start = self.size // self.block, self._rounds * self._per_round
        nth = np.where(p < start, self._in_round(p, keys), self._in_tail(p - start, keys))
        block, rest = np.divmod(nth, self.block)
        shuffled = keyed.permute(np.minimum(block, num_blocks - 1), np.asarray(num_blocks), keyed.key(BLOCKS, keys))
        return np.where(block < num_blocks, shuffled, block) * self.block + rest

    def _unshuffle(self, number: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Number of the sample -> place in the epoch."""
        if self.size <= self._per_round:
            return keyed.unpermute(number, np.asarray(self.size), keys)
        num_blocks, start = self.size // self.block, self._rounds * self._per_round
        block, rest = np.divmod(number, self.block)
        nth = keyed.unpermute(np.minimum(block, num_blocks - 1), np.asarray(num_blocks), keyed.key(BLOCKS, keys))
        nth = np.where(block < num_blocks, nth, block) * self.block + rest
        return np.where(nth < start, self._from_round(nth, keys), self._from_tail(nth - start, keys))

    def _in_round(self, p: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Place in a full round -> place in the epoch's sequence of permuted blocks."""
        per_lane = self.window * self.block
        round_, slot = np.divmod(p, self._per_round)
        j, lane = np.divmod(slot, self.lanes)
        turn = round_ * self.lanes + lane
        return turn * per_lane + keyed.permute(j, np.asarray(per_lane), keyed.key(LANE, keys, turn))

    def _from_round(self, nth: np.ndarray, keys: np.ndarray) -> np.ndarray:
        per_lane = self.window * self.block
        turn, j = np.divmod(nth, per_lane)
        round_, lane = np.divmod(turn, self.lanes)
        j = keyed.unpermute(j, np.asarray(per_lane), keyed.key(LANE, keys, turn))
        return round_ * self._per_round + j * self.lanes + lane

    def _in_tail(self, p: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Place in the last, incomplete round -> place in the sequence: `lanes` runs whose lengths differ by one."""
        start = self._rounds * self._per_round
        j, lane = np.divmod(np.maximum(p, 0), self.lanes)  # places outside the tail are thrown away by the caller
        first, run = share(self.size - start, self.lanes, lane)
        return start + first + keyed.permute(j % run, run, keyed.key(TAIL, keys, lane))

    def _from_tail(self, nth: np.ndarray, keys: np.ndarray) -> np.ndarray:
        start = self._rounds * self._per_round
        lane = sharer(self.size - start, self.lanes, np.maximum(nth, 0))
        first, run = share(self.size - start, self.lanes, lane)
        return start + keyed.unpermute((nth - first) % run, run, keyed.key(TAIL, keys, lane)) * self.lanes + lane

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

    def _number(self, shard: np.ndarray, sample: np.ndarray) -> np.ndarray:
        in_block = (self._full_ends - self._full)[shard] * self.block + sample
        in_tail = self._full_ends[-1] * self.block + self._tail_ends[shard] - self._counts[shard] + sample
        return np.where(sample < self._full[shard] * self.block, in_block, in_tail)
