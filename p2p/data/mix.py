"""Several sets in one order, each with its share of every cycle."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import gcd, lcm

import numpy as np

from p2p.data import keyed
from p2p.data.epochs import SOURCE, Epochs, Places

CYCLE = 1000
"""Positions in which every set has its share, at most."""


@dataclass(frozen=True)
class Mix:
    """Sequences mixed by weight: a cycle of sum(weights) positions holds exactly weights[s] samples of sequence s.

    Each sequence goes on by itself, its own positions rising, so that each of its epochs holds every sample once,
    whatever the others do. A pure function of the position, as the sequences are.

    Args:
        orders: the sequences.
        weights: whole numbers of a small sum, see `whole`.
        seed: of the places in a cycle.
    """

    orders: Sequence[Epochs]
    weights: Sequence[int]
    seed: int = 0

    @cached_property
    def size(self) -> int:
        """Samples of all sets together, which is what counts as an epoch of the mix."""
        return sum(order.size for order in self.orders)

    @cached_property
    def counts(self) -> list[int]:
        """Samples in each shard, those of the first set first."""
        return [count for order in self.orders for count in order.counts]

    @property
    def run(self) -> int:
        """As `Epochs.run`; the same for all."""
        return self.orders[0].run

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum(np.asarray(self.weights, np.int64))

    @cached_property
    def first_shards(self) -> np.ndarray:
        """Number of the first shard of each set."""
        return np.cumsum([0, *(len(order.counts) for order in self.orders[:-1])])

    def at(self, positions: np.ndarray) -> Places:
        """As `Epochs.at`; shards are numbered through all sets, epochs are those of the sample's own set."""
        source, own = self.own(np.asarray(positions, np.int64))
        epoch, shard, sample = (np.empty_like(own) for _ in range(3))
        for s, order in enumerate(self.orders):
            of = source == s
            epoch[of], shard[of], sample[of] = order.at(own[of])
            shard[of] += self.first_shards[s]
        return epoch, shard, sample

    def own(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which sequence has each position, and the position in it."""
        cycle, slot = np.divmod(positions, self._ends[-1])
        cycles, row = np.unique(cycle, return_inverse=True)
        places = np.arange(self._ends[-1])[None].repeat(len(cycles), 0)
        keys = keyed.key(self.seed, SOURCE, cycles)[:, None]
        shuffled = keyed.permute(places.ravel(), self._ends[-1], keys.repeat(places.shape[1], 1).ravel())
        dealt = np.searchsorted(self._ends, shuffled.reshape(places.shape), side="right")  # slot -> sequence
        before = np.zeros_like(dealt)  # slot -> how many of its sequence came before it in the cycle
        for s in range(len(self.orders)):
            before += np.where(dealt == s, np.cumsum(dealt == s, axis=1) - 1, 0)
        source = dealt[row, slot]
        return source, cycle * np.asarray(self.weights, np.int64)[source] + before[row, slot]

    def when(self, shard: np.ndarray, sample: np.ndarray, position: int) -> np.ndarray:
        """As `Epochs.when`, but to a cycle: where in its cycle a sample comes is not looked up."""
        source = np.searchsorted(self.first_shards, shard, side="right") - 1
        cycle = position // int(self._ends[-1])
        coming = np.empty(np.shape(shard), np.int64)
        for s, (order, weight) in enumerate(zip(self.orders, self.weights, strict=True)):
            of = source == s
            own = order.when(shard[of] - self.first_shards[s], sample[of], cycle * weight)
            coming[of] = own // weight * self._ends[-1]
        return coming


def whole(weights: Sequence[float]) -> list[int]:
    """Whole numbers in the ratio of the weights, to a thousandth of all: the least where they are exact.

    Raises:
        ValueError: a weight is not above 0, or less than a thousandth of all.
    """
    if not all(0 < weight < float("inf") for weight in weights):
        raise ValueError(f"weights {list(weights)}: each must be above 0; leave a set out that is not to be seen")
    exact = [Fraction(str(weight)) for weight in weights]
    shares = [share / sum(exact) for share in exact]
    many = min(lcm(*(share.denominator for share in shares)), CYCLE)
    ends = [round(many * sum(shares[: i + 1])) for i in range(len(shares))]
    numbers = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    if min(numbers) < 1:
        raise ValueError(f"weights {list(weights)}: one is less than a thousandth of all; use closer ones")
    return [number // gcd(*numbers) for number in numbers]
