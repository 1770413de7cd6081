"""How well orders mix a set whose shards are sorted by class: `python -m tests.bench.shuffle`.

An order is an epoch of sample numbers as the steps consume them, global batch by global batch. Ours is compared with a
full permutation, with WebDataset's own stages, and with py1e of MosaicML Streaming.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from unittest import mock

import numpy as np
from webdataset import filters, shardlists

from p2p.data.epochs import WholeShards
from p2p.data.order import Order

CLASSES, BATCHES = 10, 100
CUTS = (1024, 16, 2), (1024, 16, 1), (1024, 16, 4), (1024, 32, 2), (1024, 64, 2), (64, 64, 4)
"""Lanes, block and window of ours; the first is what a run has by default."""


@dataclass(frozen=True)
class Sorted:
    """A set of equal shards, whose samples are numbered shard by shard and sorted by class."""

    shards: int = 1000
    samples: int = 1000
    """In each shard."""
    batch: int = 64

    @property
    def size(self) -> int:
        return self.shards * self.samples


def permutation(data: Sorted, seed: int) -> np.ndarray:
    """Every sequence equally likely."""
    return np.random.default_rng(seed).permutation(data.size)


def ours(data: Sorted, seed: int, lanes: int, block: int, window: int) -> np.ndarray:
    """`p2p.data.order.Order`."""
    order = Order([data.samples] * data.shards, seed=seed, lanes=lanes, block=block, window=window)
    _, shard, sample = order.at(np.arange(data.size))
    return shard * data.samples + sample


def whole(data: Sorted, seed: int, lanes: int) -> np.ndarray:
    """`p2p.data.epochs.WholeShards`, for stores that cannot be read in parts."""
    _, shard, sample = WholeShards([data.samples] * data.shards, seed=seed, lanes=lanes).at(np.arange(data.size))
    return shard * data.samples + sample


def webdataset(data: Sorted, seed: int, ranks: int, workers: int, buffer: int = 1000) -> np.ndarray:
    """WebDataset's own stages in its sequence, `shardshuffle=100`, `.shuffle(buffer)`, `.batched`: each rank takes
    batches from its workers in turn, and a global batch is one of each rank."""
    share = data.batch // ranks
    queues = [_worker(data, seed, (r, ranks), (w, workers), buffer) for r in range(ranks) for w in range(workers)]
    full = min(map(len, queues)) // share * share
    batches = np.stack([queue[:full].reshape(-1, share) for queue in queues]).reshape(ranks, workers, -1, share)
    return batches.transpose(2, 1, 0, 3).reshape(-1)


def _worker(data: Sorted, seed: int, rank: tuple[int, int], worker: tuple[int, int], buffer: int) -> np.ndarray:
    """What one DataLoader process of one rank delivers in an epoch."""
    names = ("RANK", "WORLD_SIZE", "WORKER", "NUM_WORKERS")
    with mock.patch.dict(os.environ, dict(zip(names, map(str, rank + worker), strict=True))):
        shards = list(shardlists.split_by_worker(shardlists.split_by_node(iter(range(data.shards)))))
    mixed = filters.shuffle(100, seed=seed)(iter(shards))
    samples = chain.from_iterable(range(s * data.samples, (s + 1) * data.samples) for s in mixed)
    return np.fromiter(filters.shuffle(buffer, seed=hash((seed, rank, worker)))(samples), np.int64)


def py1e(data: Sorted, seed: int, window: int, nodes: int) -> np.ndarray:
    """MosaicML Streaming's default: the shuffled shards are cut into a span for each canonical node; in a span every
    sample moves by a uniform distance of at most half a window, not beyond the ends; a batch is of all nodes alike."""
    rng = np.random.default_rng(seed)
    shards = rng.permutation(data.shards)[: data.shards // nodes * nodes].reshape(nodes, -1)
    spans = (shards[..., None] * data.samples + np.arange(data.samples)).reshape(nodes, -1)
    at = np.arange(spans.shape[1])
    low, high = np.maximum(-window / 2, -at), np.minimum(window / 2, at[-1] - at)
    moved = [span[np.argsort(at + rng.uniform(low, high), kind="stable")] for span in spans]
    return np.stack(moved, axis=1).reshape(-1)


@dataclass(frozen=True)
class Mixing:
    """What an order makes of a sorted set."""

    per_batch: float
    """Distinct shards in a batch."""
    per_batches: float
    """Distinct shards in `BATCHES` batches."""
    deviation: float
    """Standard deviation of a class's share of a batch, in units of that of independent draws."""


def measure(data: Sorted, order: np.ndarray) -> Mixing:
    """Of whole batches and whole hundreds of them."""
    shard = (order // data.samples)[: len(order) // data.batch * data.batch].reshape(-1, data.batch)
    share = np.stack([(shard * CLASSES // data.shards == c).mean(axis=1) for c in range(CLASSES)])
    expected = np.sqrt((1 - 1 / CLASSES) / CLASSES / data.batch)
    many = shard[: len(shard) // BATCHES * BATCHES].reshape(-1, BATCHES * data.batch)
    return Mixing(_distinct(shard), _distinct(many), float(np.sqrt(((share - 1 / CLASSES) ** 2).mean()) / expected))


def _distinct(rows: np.ndarray) -> float:
    """How many different numbers a row has, in the mean."""
    ordered = np.sort(rows, axis=1)
    return float(1 + (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1).mean())


def schemes(data: Sorted, seed: int) -> Iterator[tuple[str, int, Callable[[], np.ndarray]]]:
    """Name, samples that are resident in all processes together, and what makes an order."""
    yield "full permutation", data.size, partial(permutation, data, seed)
    for lanes, block, window in (
        (1024, 16, 2),
        (1024, 16, 1),
        (1024, 16, 4),
        (1024, 32, 2),
        (1024, 64, 2),
        (64, 64, 4),
    ):
        name = f"ours, {lanes} lanes, block {block}, window {window}"
        yield name, lanes * block * window, partial(ours, data, seed, lanes, block, window)
    yield "ours, whole shards (`pipe:`), 64 lanes", 64 * data.samples, partial(whole, data, seed, 64)
    for ranks, workers in ((2, 4), (8, 4)):
        name = f"WebDataset, {ranks} ranks x {workers} workers, shuffle(1000)"
        yield name, ranks * workers * 1000, partial(webdataset, data, seed, ranks, workers)
    for nodes in (1, 8):
        name = f"py1e, window {2**18:,}, {nodes} canonical node{'s' * (nodes > 1)}"
        yield name, 2**18 * nodes, partial(py1e, data, seed, 2**18, nodes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    seed = parser.parse_args().seed
    data = Sorted()
    print(f"{data.shards} shards of {data.samples}, batch {data.batch}, {CLASSES} classes in sequence, seed {seed}\n")
    print(f"| order | shards in a batch | in {BATCHES} batches | class share, std / iid | samples resident |")
    print("|---|---|---|---|---|")
    for name, resident, make in schemes(data, seed):
        found = measure(data, make())
        figures = f"{found.per_batch:.1f} | {found.per_batches:.0f} | {found.deviation:.2f} | {resident:,}"
        print(f"| {name} | {figures} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
