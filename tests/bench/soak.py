"""Memory while a stream is read for long: `python -m tests.bench.soak`.

A set of 4,000 pairs of 512x256 is read for 100,000 samples; resident memory is looked at every 5,000 of them. The
slope is of a line through all but the first fifth, by when everything was allocated once.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from p2p.data.augment import Augment
from p2p.data.order import Order
from p2p.data.reader import Holes, Stream
from p2p.data.shardset import ShardSet
from tests.bench import machine, sets
from tests.bench.memory import resident

SAMPLES, EVERY, PAIRS, BATCH = 100_000, 5_000, 4_000, 50
"""Images; a look comes after whole batches."""


def soak(folder: Path, samples: int = SAMPLES, every: int = EVERY) -> np.ndarray:
    """Bytes in memory after each `every` samples: int64 `[samples / every]`."""
    shards = ShardSet(str(folder))
    order = Order(shards.counts, lanes=100, block=4)
    stream = Stream(shards, order, Augment(286, 256, mirror=True), Holes(0, print), BATCH)
    looks = (batch["position"] + BATCH for batch in stream.batches(0, samples))
    return np.asarray([resident() for seen in looks if seen % every == 0])


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    with sets.packed(None) as (_, few):
        found = soak(sets.linked(few, few.parent / "many", PAIRS)) / 1e6
    settled = found[len(found) // 5 :]
    slope, _ = np.polyfit(np.arange(len(settled)) * EVERY / 1000, settled, 1)
    print(f"{SAMPLES:,} samples, jitter and mirror, batch {BATCH}, on {machine()}")
    print(f"resident MB every {EVERY:,}: {' '.join(f'{mb:.0f}' for mb in found)}")
    print(f"first {found[0]:.1f} MB, last {found[-1]:.1f} MB, most {found.max():.1f} MB, ", end="")
    print(f"slope {1000 * slope:+.1f} kB per 1,000 samples")


if __name__ == "__main__":
    sys.exit(main())
