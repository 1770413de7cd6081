"""Packing against `tar cf` over the same files: `python -m tests.bench.pack`.

Pairs of 512x256 as JPEG of quality 85, `--distinct` of them under many names, in one folder, in the page cache. What
the packer does more than tar: it checks every picture, shuffles, hashes each shard (SHA-256) and each sample (CRC-32),
and waits until the disk has the bytes; tar leaves them in the page cache, so it is also timed followed by `sync -f`.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from tests.bench import alternate, machine, median


def make_pairs(folder: Path, count: int, distinct: int) -> int:
    """Bytes of `count` pairs of photograph-like colours, of which `distinct` differ."""
    folder.mkdir()
    size = 0
    for number in range(count):
        path = folder / f"{number:06d}.jpg"
        if number < distinct:
            coarse = np.random.default_rng(number).integers(0, 256, (32, 64, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((512, 256), Image.Resampling.BICUBIC).save(path, quality=85)
        else:
            shutil.copyfile(folder / f"{number % distinct:06d}.jpg", path)
        size += path.stat().st_size
    return size


def run(*command: object, out: Path) -> None:
    """Run a command that writes `out`, which must not be there before."""
    shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)
    subprocess.run(list(map(str, command)), check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--distinct", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), args)


def measure(root: Path, args: argparse.Namespace) -> None:
    """Print a line for each command."""
    size = make_pairs(root / "pairs", args.pairs, args.distinct)
    print(
        f"{args.pairs} pairs of 512x256, {size / args.pairs / 1000:.1f} kB each, on {os.cpu_count()} cores: {machine()}"
    )
    tar, out = ("tar", "cf", root / "a.tar", "-C", root, "pairs"), root / "set"
    pack = (sys.executable, "-m", "shards.pack", "pairs", root / "pairs", out, "--input", "right", "--processes")

    def synced() -> None:
        run(*tar, out=root / "a.tar")
        subprocess.run(["sync", "-f", str(root)], check=True)

    seconds = alternate(
        {
            "tar cf": lambda: run(*tar, out=root / "a.tar"),
            "tar cf, sync -f": synced,
            "pack --processes 1": lambda: run(*pack, 1, out=out),
            "pack --processes 2": lambda: run(*pack, 2, out=out),
        },
        args.rounds,
    )
    for name, taken in seconds.items():
        ratios = [a / b for a, b in zip(taken, seconds["tar cf"], strict=True)]
        rate = args.pairs / median(taken)
        print(f"{name:20} {median(taken):6.2f} s  {rate:8.0f} pairs/s  {median(ratios):5.2f} times the time of tar cf")


if __name__ == "__main__":
    main()
