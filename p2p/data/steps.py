"""Which sample goes to which rank at which step: what the training reads, and what anybody can look up."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np

from p2p.data.epochs import SampleOrder

PLANNED = 1024
"""Positions that are looked up at once; numpy is slow on a few numbers at a time."""


class Place(NamedTuple):
    """One sample of the stream: its position in the global order, and where it lies."""

    position: int
    epoch: int
    shard: int
    sample: int


def rank_slice(step_start: int, batch: int, rank: int, world: int, unit: int = 1) -> range:
    """Positions of one rank in the step that starts at `step_start`: [t + r*B//W, t + (r+1)*B//W), counted in units of
    consecutive positions that stay together."""
    first, last = (r * (batch // unit) // world * unit if r < world else batch for r in (rank, rank + 1))
    return range(step_start + first, step_start + last)


def steps(
    order: SampleOrder, start: int, stop: int, batch: int, rank: int = 0, world: int = 1, unit: int = 1
) -> Iterator[list[Place]]:
    """This rank's places of the steps at `start`, `start + batch`, ... below `stop`; the last step may be short."""
    many = batch * -(-PLANNED // batch)  # whole steps
    for chunk in range(start, stop, many):
        firsts = range(chunk, min(chunk + many, stop), batch)
        shares = [rank_slice(f, min(batch, stop - f), rank, world, unit) for f in firsts]
        mine = np.concatenate([np.asarray(share, np.int64) for share in shares])
        places = map(Place, mine.tolist(), *(found.tolist() for found in order.at(mine)))
        yield from (list(islice(places, len(share))) for share in shares)
