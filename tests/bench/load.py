"""Loading for training by four ways, in turn, on the same pairs and cores: `python -m tests.bench.load [FOLDER]`.

Each way ends in batches of pairs that were read, decoded, cut in two, cropped and mirrored: ours in 2 threads, the
PyTorch port's folder and WebDataset in a DataLoader of 2 processes each; the limit is the bare decoder in 2 threads.
What each does is said in `tests/bench/loaders.py`. FOLDER holds JPEG pairs of 512x256, below it perhaps `train`;
without one, 1,000 crops of a photograph are made.
"""

import argparse
import os
import sys
from pathlib import Path

import torch

from p2p.data.shardset import ShardSet
from tests.bench import alternate, loaders, machine, median, sets

WORKERS, PASSES = 2, 3
LOADS = {"no jitter": 256, "jitter 286": 286}
GOALS = {"bare decode": 0.65, "WebDataset": 1.8, "PyTorch port": 10.0}
"""What our pairs per second are to be, in units of each one's."""


def ways(pairs: Path, shards: ShardSet, batch: int, load: int) -> dict[str, loaders.Run]:
    """What is compared, `PASSES` times through the set each; those with processes first, for these are forked."""
    return {
        "PyTorch port": loaders.port(pairs, WORKERS, batch, load, PASSES),
        "WebDataset": loaders.webdataset(shards, WORKERS, batch, load, PASSES),
        "bare decode": loaders.bare(loaders.encoded(shards) * PASSES, WORKERS),
        "ours": loaders.ours(shards, WORKERS, batch, load, PASSES),
    }


def compare(runs: dict[str, loaders.Run], pairs: int, rounds: int, what: str) -> None:
    """Print a row for each way: pairs per second, and ours in units of it."""
    seconds = alternate(runs, rounds)
    for name, values in seconds.items():
        ratio = median([theirs / mine for theirs, mine in zip(values, seconds["ours"], strict=True)])
        goal = f"{GOALS[name]:.2f}" if name in GOALS and what == "no jitter" else ""
        print(f"| {what} | {name} | {pairs / median(values):,.0f} | {ratio:.2f} | {goal} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:WORKERS])
    with sets.packed(args.folder) as (pairs, folder):
        shards = ShardSet(str(folder))
        count, size = sum(shards.counts), sum(info.bytes for info in shards.index.shards)
        print(f"{count} pairs of {size / count / 1000:.0f} kB, batch {args.batch}, {WORKERS} cores of {machine()}")
        print("\n| | way | pairs/s | ours in units of it | goal |\n|---|---|---|---|---|")
        for what, load in LOADS.items():
            compare(ways(pairs, shards, args.batch, load), count * PASSES, args.rounds, what)


if __name__ == "__main__":
    sys.exit(main())
