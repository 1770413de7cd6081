"""Time to the first batch from anywhere, and what planning a billion samples takes: `python -m tests.bench.resume`.

Every figure is of a fresh process, after its imports. The first batch is of a real set of 137,000 pairs of 512x256
(hard links of few shards, under an index of all), all of it: opening the set, planning, reading, decoding. Positions
are taken in turn, so that a machine whose speed drifts slows all alike.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SAMPLES, EPOCHS, BATCH = 137_000, 15, 64
MANY_SHARDS, MANY_SAMPLES = 100_000, 10**9


def first_batch(folder: str, position: str) -> None:
    """Open a set and read one batch at a position."""
    from p2p.data.augment import Augment
    from p2p.data.order import Order
    from p2p.data.reader import Holes, Stream
    from p2p.data.shardset import ShardSet

    began = time.perf_counter()
    shards = ShardSet(folder)
    stream = Stream(shards, Order(shards.counts), Augment(256, 256, mirror=False), Holes(0, print), BATCH)
    start = int(position)
    batch = next(iter(stream.batches(start, start + 100 * BATCH)))
    tell(began, images=len(batch["x"]))


def plan(position: str) -> None:
    """Find the first positions of a billion samples."""
    import numpy as np

    from p2p.data.order import Order

    began = time.perf_counter()
    order = Order([MANY_SAMPLES // MANY_SHARDS] * MANY_SHARDS)
    order.at(np.arange(int(position), int(position) + BATCH))
    tell(began)


def index(folder: str) -> None:
    """Read an index of many shards."""
    from p2p.data.format import read_index

    began = time.perf_counter()
    found = read_index(folder)
    tell(began, shards=len(found.shards))


def both(folder: str, position: str) -> None:
    """Read an index of many shards, and find the first positions."""
    import numpy as np

    from p2p.data.format import read_index
    from p2p.data.order import Order

    began = time.perf_counter()
    order = Order([shard.samples for shard in read_index(folder).shards])
    order.at(np.arange(int(position), int(position) + BATCH))
    tell(began)


def tell(began: float, **more: Any) -> None:
    """Print what was measured, as JSON. The peak is that of this program alone, without what it was forked from."""
    seconds = time.perf_counter() - began
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(json.dumps({"seconds": seconds, "megabytes": int(lines["VmHWM"].split()[0]) * 1024 / 1e6, **more}))


def ask(function: Any, *arguments: Any) -> dict[str, float]:
    """What a function tells in a process of its own."""
    # by its path, for the package `tests.bench` imports torch
    command = [sys.executable, "-P", __file__, "--child", function.__name__, *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def many_index(folder: Path) -> Path:
    """An index of many shards, and nothing else."""
    from p2p.data import format as form

    each = MANY_SAMPLES // MANY_SHARDS
    shards = (form.ShardInfo(f"shard-{i:06d}.tar", each, 25_000 * each, f"{i:064x}") for i in range(MANY_SHARDS))
    folder.mkdir()
    (folder / form.INDEX).write_text(form.Index("left", 0, (3, 3), (256, 256), (256, 256), tuple(shards)).dumps())
    return folder


def measure_first(folder: Path, rounds: int) -> None:
    """Print seconds to the first batch from the start, from random positions, and from near the end."""
    from tests.bench import median

    anywhere = sorted(random.Random(0).sample(range(EPOCHS * SAMPLES), 4))
    starts = [p // BATCH * BATCH for p in (0, *anywhere, (EPOCHS - 1) * SAMPLES + SAMPLES // 2)]
    seconds: dict[int, list[float]] = {start: [] for start in starts}
    for _ in range(rounds):
        for start in starts:
            seconds[start].append(ask(first_batch, folder, start)["seconds"])
    print(f"first batch of {BATCH} of {SAMPLES:,} pairs, {rounds} fresh processes each")
    print("\n| position | epoch | median s | over the fresh start |\n|---|---|---|---|")
    for start, values in seconds.items():
        late = median([b - a for a, b in zip(seconds[0], values, strict=True)])
        print(f"| {start:,} | {start // SAMPLES} | {median(values):.3f} | {late:+.3f} |", flush=True)


def measure_planning(folder: Path, rounds: int) -> None:
    """Print seconds and peak memory of planning a billion samples at the start, and deep inside."""
    from tests.bench import median

    deep = EPOCHS * MANY_SAMPLES - 12_345
    cases = [(plan, 0), (plan, deep), (index, folder), (both, folder, deep)]
    names = "order at 0", f"order at {deep:,}", "index read", f"index read, order at {deep:,}"
    print(f"\n{MANY_SAMPLES:,} samples in {MANY_SHARDS:,} shards; limits 2 s, 200 MB")
    print("\n| | median s | peak MB |\n|---|---|---|")
    for name, case in zip(names, cases, strict=True):
        found = [ask(*case) for _ in range(rounds)]
        seconds, megabytes = (median([f[key] for f in found]) for key in ("seconds", "megabytes"))
        print(f"| {name} | {seconds:.3f} | {megabytes:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        function, *arguments = args.child
        globals()[function](*arguments)
        return
    from tests.bench import machine, sets

    print(machine())
    with tempfile.TemporaryDirectory() as scratch, sets.packed(None) as (_, few):
        measure_first(sets.linked(few, few.parent / "many", SAMPLES), args.rounds)
        measure_planning(many_index(Path(scratch, "index")), args.rounds)


if __name__ == "__main__":
    sys.exit(main())
