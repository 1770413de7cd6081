"""From the sizes that a run states to its order; the training and whoever looks it up ask here."""

from collections.abc import Sequence
from math import ceil

from p2p.data import keyed
from p2p.data.epochs import Epochs, SampleOrder, WholeShards
from p2p.data.mix import Mix
from p2p.data.order import Order

LANES, WHOLE_LANES = 1024, 64
"""At least so many where nothing else is said: of blocks, and of whole shards, which are kept in full."""


def lanes_for(batch: int, block: int) -> int:
    """Lanes where nothing else is said: the least multiple of the batch that is enough."""
    return ceil((LANES if block else WHOLE_LANES) / batch) * batch


def ordered(
    counts: Sequence[Sequence[int]], weights: Sequence[int], *, seed: int, lanes: int, block: int, window: int
) -> SampleOrder:
    """The order of one set, or of several.

    Args:
        counts: samples in each shard of each set.
        weights: of the sets, in whole numbers.
        block: consecutive samples that stay together; 0: whole shards.

    Raises:
        ValueError: there are no samples, or a size does not fit.
    """
    # a set mixed with itself must not come twice in the same order
    seeds = [keyed.number(seed, n) for n in range(len(counts))] if len(counts) > 1 else [seed]
    orders: list[Epochs] = [
        Order(one, own, lanes, block, window) if block else WholeShards(one, own, lanes)
        for one, own in zip(counts, seeds, strict=True)
    ]
    return Mix(orders, weights, seed) if len(orders) > 1 else orders[0]
