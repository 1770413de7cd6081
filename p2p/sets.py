"""From the settings of the data to the shards, and to the order in which they are read."""

from collections.abc import Sequence
from typing import Literal

from p2p import config as conf
from p2p.data.dataset import DataSet
from p2p.data.epochs import SampleOrder
from p2p.data.mix import whole
from p2p.data.mixed import Mixed
from p2p.data.orders import lanes_for
from p2p.data.samples import Keep
from p2p.data.shardset import ShardSet

PARTS = {"train": 0.9, "val": 0.1}
"""Of the cache's bytes."""


def open_sets(data: conf.Data, which: Literal["train", "val"] = "train", generations: Sequence[int] = ()) -> DataSet:
    """The shards of the training, or of the validation.

    Args:
        data: names them, and says how they are read.
        which: of the two.
        generations: of the index of each source, where a run goes on with those it began with; else the newest.

    Raises:
        ValueError: a set is missing, damaged, or does not go with the others; names it.
        StoreError: a store does not answer.
    """
    given: conf.Sources = getattr(data, which)
    sources = (conf.Source(at=given),) if isinstance(given, str) else given
    weights = whole([source.weight for source in sources])
    sets = []
    for number, (source, weight) in enumerate(zip(sources, weights, strict=True)):
        keep = Keep(data.cache, f"{which}-{number}", int(data.cache_bytes * PARTS[which] * weight / sum(weights)))
        generation = generations[number] if number < len(generations) else None
        sets.append(ShardSet(source.at, data.reverse, root=source.shards, generation=generation, keep=keep))
    return sets[0] if len(sets) == 1 else Mixed(sets, weights)


def order_of(data: conf.Data, seed: int, dataset: DataSet) -> SampleOrder:
    """The global order of the training samples.

    Raises:
        ValueError: there are none, or a size does not fit.
    """
    return dataset.training_order(seed=seed, lanes=lanes(data), block=data.block, window=data.window)


def lanes(data: conf.Data) -> int:
    """Of the order: as the settings say, or the least multiple of the batch that is enough."""
    return data.lanes or lanes_for(data.batch, data.block)
