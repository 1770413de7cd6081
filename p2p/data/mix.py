"""Several sets in one order, each with its share of every cycle."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import gcd, lcm

import numpy as np

from p2p.data import keyed
from p2p.data.epochs import SOURCE, Epochs, Places


@dataclass(frozen=True)
class Mix:
    """Sequences mixed by weight: a cycle of sum(weights) positions holds exactly weights[s] samples of sequence s.

    Each sequence goes on by itself, so that each of its epochs holds every sample once, whatever the others do; at the
    border of two epochs their samples may be exchanged within a cycle. A pure function of the position, as the
    sequences are.

    Args:
        orders: the sequences.
        weights: whole numbers, see `whole`.
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
        weights = np.asarray(self.weights, np.int64)
        cycle, slot = np.divmod(positions, self._ends[-1])
        place = keyed.permute(slot, self._ends[-1], keyed.key(self.seed, SOURCE, cycle))
        source = np.searchsorted(self._ends, place, side="right")
        return source, cycle * weights[source] + place - (self._ends - weights)[source]

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
    """The least whole numbers in the ratio of the weights.

    Raises:
        ValueError: a weight is not above 0, or they are more than a million to one.
    """
    if not all(0 < weight < float("inf") for weight in weights):
        raise ValueError(f"weights {list(weights)}: each must be above 0; leave a set out that is not to be seen")
    exact = [Fraction(str(weight)).limit_denominator(10**6) for weight in weights]
    if not all(exact) or max(exact) / min(exact) > 10**6:
        raise ValueError(f"weights {list(weights)}: differ by more than a million; use closer ones")
    many = lcm(*(fraction.denominator for fraction in exact))
    numbers = [int(fraction * many) for fraction in exact]
    return [number // gcd(*numbers) for number in numbers]
