"""What is read from the disk for an epoch: `python -m tests.bench.locality [FOLDER]`.

Computed, not counted: from the order, and from the sizes of real packed pairs (of FOLDER, or generated). A read is an
extent as the reader asks for it, all samples of a shard that the order keeps together; a rank reads an extent once
for all samples of it that the order gives to that rank. The set has as many pairs as edges2handbags.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from p2p.data import format as form
from p2p.data.order import Order
from p2p.data.rows import read_rows
from p2p.data.steps import rank_slice
from p2p.data.tars import split_members
from tests.bench import sets

COUNTS = [1000] * 138 + [567]
BATCH = 64


def sizes(folder: Path) -> np.ndarray:
    """Bytes in the tar, and of the picture alone, of each sample of a packed set: int64 `[n, 2]`."""
    found = []
    for shard in form.read_index(folder).shards:
        data = (folder / shard.name).read_bytes()
        for offset, size, _ in read_rows(folder, shard).tolist():
            members = split_members(data[offset : offset + size])
            found.append((size, sum(len(value) for name, value in members.items() if name.startswith("ab."))))
    return np.asarray(found)


def reads(order: Order, ranks: int) -> tuple[np.ndarray, np.ndarray]:
    """Shard and block of each read of an epoch, by all ranks."""
    _, shard, sample = order.at(np.arange(order.size))
    starts = [rank_slice(0, BATCH, rank, ranks).start for rank in range(ranks)]
    rank = np.searchsorted(starts, np.arange(order.size) % BATCH, side="right") - 1
    _, shard, block = np.unique([rank, shard, sample // order.run], axis=1)
    return shard, block


def measure(order: Order, ranks: int, of_samples: np.ndarray) -> tuple[float, float, float]:
    """Block reads over blocks, bytes read over bytes of pictures, bytes of a read in the mean."""
    ends = np.cumsum(order.counts)
    bytes_, payload = np.resize(of_samples, (order.size, 2)).T
    upto = np.concatenate([[0], np.cumsum(bytes_)])
    shard, block = reads(order, ranks)
    first = ends[shard] - np.asarray(order.counts)[shard] + block * order.run
    size = upto[np.minimum(first + order.run, ends[shard])] - upto[first]
    return len(shard) / len(reads(order, 1)[0]), size.sum() / payload.sum(), size.mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER")
    with sets.packed(parser.parse_args().folder) as (_, shards):
        of_samples = sizes(shards)
    tar, picture = of_samples.mean(axis=0) / 1000
    print(f"{sum(COUNTS):,} pairs of {picture:.1f} kB, {tar:.1f} in the tar; batch {BATCH}, 1024 lanes, window 2\n")
    print("| block | ranks | block reads / blocks | bytes read / pictures | mean run, kB |\n|---|---|---|---|---|")
    for block in (16, 32, 64):
        for ranks in (1, 2, 4, 8):
            again, over, run = measure(Order(COUNTS, seed=1, block=block), ranks, of_samples)
            print(f"| {block} | {ranks} | {again:.2f} | {over:.3f} | {run / 1000:,.0f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
