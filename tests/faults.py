"""Inject faults into small shard sets and their stores, and prove that none passes unseen:
`python -m tests.faults --count 10000 [--seed N]`, or `--only KIND NUMBER` for one trial again.

Each trial injects one fault of a kind of `faultkinds.KINDS` at a place that its dice choose, and reads whole epochs
through `Stream`, with real threads, files, servers and commands, twice: with other numbers of ranks and threads.

* A fault is seen if the set is refused before reading (`refused`), if exactly the damaged samples become holes
  (`holes`), if the store stops the run after all its tries (`stopped`), or if it is reported and all samples come as
  they were packed (`retried`). Each time it is one line that names file and place: the byte, or the URL or path.
* A fault that no delivered byte shows, such as one after the last sample of a tar, is named by a verification
  (`verified`); so is any other in the files of a set.
* Where nothing is wrong in the end, nothing is said (`healed`): a slow command, a cache that is mended from its store.
* Every healthy sample comes at its position, with its key and pixels; what stands in for a damaged one is healthy, and
  the same in both readings.
* Each trial has a watchdog.

Exit codes: 0 all seen, 1 something is not as it must be; each with the command that repeats it.
"""

import argparse
import atexit
import faulthandler
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch

from tests.faultbench import Bench, DisplacedError, UnseenError, bench
from tests.faultkinds import KINDS

HUNG_S = 120
"""Seconds of a trial after which it counts as hung."""
GOOD = "refused", "holes", "retried", "stopped", "verified", "healed"
BAD = "unseen", "displaced", "hung", "failed"
PART = 20
"""Trials that a process takes at once."""


class HungError(BaseException):
    """A trial that does not end; no handler of the code under test may catch it."""


class Result(NamedTuple):
    """What became of a trial: one of GOOD or BAD, and of these the reason."""

    kind: str
    number: int
    outcome: str
    reason: str = ""


def plan(count: int) -> list[tuple[str, int]]:
    """Kind and number of so many trials: each kind by its weight, and once at least."""
    unit = sum(kind.weight for kind in KINDS.values())
    shares = {name: min(kind.most, max(1, count * kind.weight // unit)) for name, kind in KINDS.items()}
    first = next(iter(KINDS))
    shares[first] += max(count - sum(shares.values()), 0)
    return [(name, number) for name, share in shares.items() for number in range(share)]


@contextmanager
def watched(seconds: int) -> Iterator[None]:
    """HungError in this, the main thread, after so many seconds; the end of the process where it does not hear."""

    def hung(*_: object) -> None:
        faulthandler.dump_traceback()
        raise HungError(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(2 * seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def play(with_bench: Bench, seed: int, kind: str, number: int) -> Result:
    """One trial; the same for the same seed, kind and number."""
    try:
        with watched(HUNG_S):
            return Result(kind, number, KINDS[kind].play(with_bench, Random(f"{seed} {kind} {number}")))
    except UnseenError as error:
        return Result(kind, number, "unseen", str(error))
    except DisplacedError as error:
        return Result(kind, number, "displaced", str(error))
    except HungError as error:
        return Result(kind, number, "hung", str(error))
    except Exception:
        return Result(kind, number, "failed", traceback.format_exc())


def table(results: list[Result]) -> str:
    """A line a kind, and their sum."""
    counts = Counter((result.kind, result.outcome) for result in results)
    totals = Counter(result.outcome for result in results)
    head = f"{'':28}{'trials':>9}" + "".join(f"{name:>10}" for name in (*GOOD, *BAD))
    lines = [
        f"{kind:28}{sum(counts[kind, name] for name in (*GOOD, *BAD)):9,}"
        + "".join(f"{counts[kind, name] or '':>10}" for name in (*GOOD, *BAD))
        for kind in KINDS
    ]
    last = f"{'total':28}{len(results):9,}" + "".join(f"{totals[name]:10,}" for name in (*GOOD, *BAD))
    return "\n".join([head, *lines, last])


_open, _own = ExitStack(), list[Bench]()
"""The bench of this process, which is taken down with it."""


def part(root: Path, seed: int, trials: list[tuple[str, int]]) -> list[Result]:
    """Some trials, in a process of a pool."""
    if not _own:
        torch.set_num_threads(1)
        atexit.register(_open.close)  # while its servers still run
        _own.append(_open.enter_context(bench(root / str(os.getpid()))))
    return [play(_own[0], seed, *trial) for trial in trials]


def run(trials: list[tuple[str, int]], seed: int, processes: int) -> Iterator[Result]:
    """All of them, as they end."""
    parts, hung = [trials[i : i + PART] for i in range(0, len(trials), PART)], False
    folder = tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True)
    with folder as root, ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        for result in chain.from_iterable(pool.map(partial(part, Path(root), seed), parts)):
            hung = hung or result.outcome == "hung"
            yield result
        if hung:  # whose threads would hold up their process
            for child in multiprocessing.active_children():
                child.kill()


def told(results: Iterable[Result], seed: int) -> Iterator[Result]:
    """Pass the results on, and say which are bad, and how to have them again."""
    began = time.time()
    for number, result in enumerate(results, start=1):
        if result.outcome in BAD:
            again = f'python -m tests.faults --seed {seed} --only "{result.kind}" {result.number}'
            print(f"{result.outcome}: {again}\n{result.reason}\n", flush=True)
        if number % 1000 == 0:
            print(f"{number:,} trials in {time.time() - began:.0f} s", file=sys.stderr, flush=True)
        yield result


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(description="Inject faults into shard sets.")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="+", metavar=("KIND", "NUMBER"), help="trials of one kind")
    args = parser.parse_args(argv)
    trials = plan(args.count)
    if args.only:
        kind, *numbers = args.only
        trials = [(kind, int(n)) for n in numbers] or [(kind, n) for n in range(args.count)]
    Random(args.seed).shuffle(trials)
    results: list[Result] = []
    try:
        results.extend(told(run(trials, args.seed, args.processes), args.seed))
    except BrokenProcessPool:
        print(
            f"hung: a process did not hear its watchdog; seed {args.seed}, after trial {len(results)}; its stack above"
        )
        return 1
    print(table(results))
    return int(any(result.outcome in BAD for result in results))


if __name__ == "__main__":
    sys.exit(main())
