"""Faults that take processes: a disk that is full, and several that fill one cache, one of which may be killed."""

import multiprocessing
import os
import resource
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

from tests.faultbench import BATCH, ROOMY, Bench, Trial, UnseenError, check_readings, judge, one_line
from tests.faultsets import COUNTS

WAYS = "web", "whole", "plain"
FILE_LIMIT = 3000
"""Bytes of a file at most where a disk is full: less than an extent, more than an account."""
DISK = 48 * 1024
"""Bytes of a real disk that is full soon."""

context = multiprocessing.get_context("forkserver")  # children with torch in them, without the threads of a server
context.set_forkserver_preload(["tests.faultbench"])


def child(said: Connection, url: str, block: int, cache: Path, seed: int, largest_file: int) -> None:
    """Read an epoch; tells the number of each step, and at last what came, and what was reported."""
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    trial = Trial(None, url, block, Random(seed), cache)  # type: ignore[arg-type] # what came is judged elsewhere
    reading = trial.read([trial.open()], each=said.send)
    said.send((reading, trial.lines, trial.holes))


class Reader:
    """A process that reads the set of a trial."""

    def __init__(self, trial: Trial, largest_file: int = 0) -> None:
        self.said, theirs = context.Pipe(duplex=False)
        arguments = theirs, trial.url, trial.block, trial.cache, trial.dice.randrange(2**32), largest_file
        self.process = context.Process(target=child, args=arguments)
        self.process.start()
        theirs.close()

    def kill_after(self, steps: int) -> None:
        """kill -9, in the midst of an epoch."""
        while self.said.recv() < steps:
            pass
        self.process.kill()
        self.process.join()

    def lines(self, trial: Trial) -> list[str]:
        """What was reported by the end, where every sample came.

        Raises:
            DisplacedError, UnseenError: one did not.
        """
        heard: Any = 0
        while isinstance(heard, int):
            heard = self.said.recv()
        self.process.join()
        reading, lines, holes = heard
        trial.holes |= holes
        check_readings(trial, reading, reading, set())
        return lines


def full_disk(bench: Bench, dice: Random) -> str:
    """A disk that takes no more; a real one where we may mount it, and a limit on files elsewhere."""
    with bench.copy(dice) as copy:
        trial = bench.trial(copy, dice.choice(WAYS), dice)
        with small_disk(trial.cache) as real:
            lines = Reader(trial, 0 if real else FILE_LIMIT).lines(trial)
            check_full(trial, lines, told=not real or trial.block == 0)
            return "retried" if lines else "healed"


def check_full(trial: Trial, lines: list[str], told: bool) -> None:
    """Said once, with the folder and the store that it goes on with; not where smaller extents find room after all."""
    for line in lines:
        one_line(line)
    if len(lines) > 1 or (told and not lines):
        raise UnseenError(f"a full disk is said {len(lines)} times: {lines[:3]}")
    if lines and not (str(trial.cache) in lines[0] and f"read straight from {trial.url} " in lines[0]):
        raise UnseenError(f"a full disk without folder or store: {lines[0]}")


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A memory file system; False where only root may mount one."""
    folder.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={DISK}", "none", folder]
    mounted = os.geteuid() == 0 and subprocess.run(["mount", *options], capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", folder], check=True)


def two_fill_one(bench: Bench, dice: Random) -> str:
    """Each extent is transferred once."""
    with bench.copy(dice) as copy:
        way = dice.choice(WAYS)
        trial = bench.trial(copy, way, dice)
        for reader in [Reader(trial) for _ in range(2)]:
            if lines := reader.lines(trial):
                raise UnseenError(f"two that fill one cache report {lines[:3]}")
        for number, shard in enumerate(copy.shards):
            asked = Counter(bench.servers[way].ranges[bench.path(copy, shard.name)])
            del asked["bytes=0-0"]  # whether there are ranges
            if max(asked.values()) > 1 or len(asked) != len(list(trial.cache.glob(f"*/{number}.*.*.*"))):
                raise AssertionError(f"{shard.name} was transferred more than once: {asked}")
        return "healed"


def one_is_killed(bench: Bench, dice: Random) -> str:
    """The other goes on, and who comes after finds nothing that is half."""
    with bench.copy(dice) as copy:
        trial = bench.trial(copy, dice.choice(WAYS), dice, ROOMY)
        killed, other = Reader(trial), Reader(trial)
        killed.kill_after(dice.randrange(sum(COUNTS) // BATCH))
        other.lines(trial)
        outcome = judge(trial, {"healed"}, set(), set())
        if left := list((trial.cache / ".aside").iterdir()):
            raise UnseenError(f"a killed process left {left[0].name}, and nobody removed it")
        return outcome
