"""Loading for training against a bare JPEG decode loop over the same bytes: `python -m tests.bench.load [SHARDS]`.

All on one core, then on all cores. Loading is everything up to batches: order, read, checksum, decode, cut in two,
stack, as the edges recipes have it; and the same with the jitter and mirror of the other recipes. Without shards
given, it packs 1,000 JPEG pairs of 512x256 cut out of a photograph.
"""

import argparse
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torchvision.io import decode_image

from p2p.data import format as form
from p2p.data.augment import Augment
from p2p.data.order import Order
from p2p.data.reader import Holes, Stream
from p2p.data.shardset import ShardSet
from shards import pack
from tests.bench import alternate, machine, median

PAIRS, BATCH = 1000, 4


def make_shards(folder: Path) -> Path:
    """Pairs of neighbouring crops of a photograph, JPEG of quality 90."""
    import skimage.data
    from PIL import Image

    photo = Image.fromarray(skimage.data.astronaut()).resize((1024, 1024))
    (folder / "pairs").mkdir()
    for i in range(PAIRS):
        top, left = i * 7 % 768, i * 13 % 512
        photo.crop((left, top, left + 512, top + 256)).save(folder / "pairs" / f"{i:04d}.jpg", quality=90)
    assert pack.main(["pairs", str(folder / "pairs"), str(folder / "shards"), "--input", "left"]) == 0
    return folder / "shards"


def encoded(shards: ShardSet) -> list[torch.Tensor]:
    """The JPEG bytes of every pair, in memory."""
    found = []
    for info in shards.index.shards:
        data = (Path(shards.folder) / info.name).read_bytes()
        for row in form.read_rows(shards.folder, info):
            members = form.split_members(data[int(row["offset"]) : int(row["offset"]) + int(row["size"])])
            (picture,) = (value for name, value in members.items() if name.startswith("ab."))
            found.append(torch.frombuffer(bytearray(picture), dtype=torch.uint8))
    return found


def loader(shards: ShardSet, threads: int, augment: Augment):
    holes = Holes(0, print)
    stream = Stream(shards, Order(shards.counts), augment, holes, BATCH, threads=threads)
    pairs = sum(shards.counts) // BATCH * BATCH

    def run():
        for _ in stream.batches(0, pairs):
            pass

    return run


def bare(pictures: list[torch.Tensor], threads: int):
    def some(part: list[torch.Tensor]) -> None:
        for picture in part:
            decode_image(picture)

    def run():
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(some, [pictures[i::threads] for i in range(threads)]))

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        shards = ShardSet(str(args.shards or make_shards(Path(folder))))
        pictures = encoded(shards)
        size = sum(map(len, pictures)) / len(pictures) / 1000
        print(f"{len(pictures)} pairs of {size:.0f} kB, batch {BATCH}, on {machine()}")
        cores = sorted(os.sched_getaffinity(0))
        for some in (cores[:1], cores):
            os.sched_setaffinity(0, some)
            compare(shards, pictures, len(some), args.rounds)


def compare(shards: ShardSet, pictures: list[torch.Tensor], cores: int, rounds: int) -> None:
    """Print a line each for a number of cores and as many threads."""
    runs = {
        "bare decode": bare(pictures, cores),
        "loading": loader(shards, cores, Augment(256, 256, mirror=False)),
        "loading with jitter and mirror": loader(shards, cores, Augment(286, 256, mirror=True)),
    }
    seconds = alternate(runs, rounds)
    for name, values in seconds.items():
        ratio = median([a / b for a, b in zip(seconds["bare decode"], values, strict=True)])
        rate = len(pictures) / median(values)
        print(f"{cores} core{'s' * (cores > 1)}  {name:32} {rate:6.0f} pairs/s  {ratio:4.0%} of the bare decode")


if __name__ == "__main__":
    sys.exit(main())
