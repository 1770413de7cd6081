"""Ways to read a small shard set, and the judgement on a reading: nothing unseen, nothing displaced."""

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random

import numpy as np

from p2p.data import reader, remote
from p2p.data.orders import ordered
from p2p.data.reader import Holes, Stream
from p2p.data.samples import Keep
from p2p.data.shardset import ShardSet
from p2p.data.stores import StoreError, is_remote
from tests.faultsets import NAMES, SEED, Copy, Place, Pristine, augment, checksum, write_set
from tests.servers import Web, web_server

BATCH, BLOCK = 12, 6
TRIES = 4
HURRY = {"TRIES": TRIES, "FIRST_WAIT_S": 0.001, "LONGEST_WAIT_S": 0.004}
"""Of `p2p.data.remote`: nobody waits for a store that heals at once."""
FETCHED = 40_000
"""Of `p2p.data.reader`: less than a set is fetched ahead."""
ROOMY = 2**30
"""Limit of a cache in which nothing is evicted."""

Reading = dict[int, tuple[Place, str, int]]
"""By position: the place that the order says, the key that came, and a checksum of its pixels."""


class UnseenError(AssertionError):
    """A fault of which nothing was said, or not what and where it is."""


class DisplacedError(AssertionError):
    """A healthy sample that did not come where it belongs."""


# Ways to read


class Bench:
    """The sets of a process, its servers, and a folder for trials."""

    def __init__(self, root: Path, ranged: Web, plain: Web) -> None:
        self.root, self.servers = root, {"web": ranged, "whole": ranged, "plain": plain}
        for name in NAMES:
            write_set(root / "sets" / name, name)
        self.sets = [Pristine(folder) for folder in sorted((root / "sets").iterdir())]
        self._numbers = count()

    @contextmanager
    def copy(self, dice: Random) -> Iterator[Copy]:
        """A copy of one of the sets, for a trial."""
        folder = self.root / f"trial-{next(self._numbers)}"
        try:
            yield Copy(dice.choice(self.sets), folder / "set")
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def path(self, copy: Copy, name: str) -> str:
        """Of a file of a copy, as the servers see it."""
        return f"/{copy.folder.relative_to(self.root).as_posix()}/{name}"

    def trial(self, copy: Copy, way: str, dice: Random, limit: int = ROOMY) -> "Trial":
        """A copy read in one of the ways."""
        cache = copy.folder.with_name("cache")
        return Trial(copy, self.url(copy, way), BLOCK if way in PARTS else 0, dice, cache, limit)

    def url(self, copy: Copy, way: str) -> str:
        """Of a copy."""
        if way in self.servers:
            return self.servers[way].url + self.path(copy, "")[:-1]
        return str(copy.folder) if way == "folder" else f"pipe:cat {copy.folder}/{{}} 2>/dev/null"


WAYS = "folder", "folder", "folder", "web", "whole", "plain", "pipe"
"""From a disk (the most common), from a server in parts, whole shards from one with ranges and one without, from a
command."""
PARTS = "folder", "web"


@contextmanager
def bench(root: Path) -> Iterator[Bench]:
    """Sets and servers, where stores are tried again without a wait."""
    settings = {(remote, name): value for name, value in HURRY.items()} | {(reader, "FETCHED"): FETCHED}
    interval = sys.getswitchinterval()
    with ExitStack() as stack:
        sys.setswitchinterval(interval / 10)  # servers, fetchers and readers are threads that wait for each other
        stack.callback(sys.setswitchinterval, interval)
        for (module, name), value in settings.items():
            stack.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, value)
        yield Bench(root, *(stack.enter_context(web_server(root, ranges)) for ranges in (True, False)))


@dataclass
class Trial:
    """A set with a fault, as training reads it."""

    copy: Copy
    url: str
    block: int
    dice: Random
    cache: Path
    limit: int = ROOMY
    each: Callable[[int], object] | None = None
    """Where something changes while the set is open: called with the number of each step of the first reading, which
    then has two epochs."""
    lines: list[str] = field(default_factory=list)
    """What was reported."""
    holes: dict[Place, str] = field(default_factory=dict)

    @property
    def shows(self) -> bool:
        """Whether a change while the set is open shows: an exchanged file may go on as it was, a cache or rows, too."""
        here = not is_remote(self.url) and self.copy.in_place
        return here and all((self.copy.folder / name).exists() and name[-4:] == ".tar" for name in self.copy.changed)

    def open(self) -> ShardSet:
        return ShardSet(self.url, keep=Keep(str(self.cache), limit=self.limit), report=self.lines.append)

    def read(self, ranks: list[ShardSet], epochs: int = 1, each: Callable[[int], object] = int) -> Reading:
        """All positions of some epochs, rank by rank, each with any number of threads."""
        stop = sum(ranks[0].counts) * epochs
        reading: Reading = {}
        for rank, shards in enumerate(ranks):
            stream = self._stream(shards, rank, len(ranks))
            _, shard, sample = stream.order.at(np.arange(stop))
            places = list(zip(shard.tolist(), sample.tolist(), strict=True))
            for step, batch in enumerate(stream.batches(0, stop)):
                for position, key, x, y in zip(count(batch["position"]), batch["keys"], batch["x"], batch["y"]):
                    reading[position] = places[position], key, checksum(x, y)
                each(step)
            self.holes |= {(shard, sample): reason for (shard, sample), reason in stream.holes.found.items()}
        if sorted(reading) != list(range(stop)):
            raise DisplacedError(f"{len(reading)} positions came of {stop}")
        return reading

    def _stream(self, shards: ShardSet, rank: int, world: int) -> Stream:
        order = ordered([shards.counts], [1], seed=SEED, lanes=BATCH, block=self.block, window=2)
        holes, threads = Holes(10**6, self.lines.append), self.dice.randint(1, 4)
        return Stream(shards, order, augment, holes, BATCH, rank, world, SEED, threads, ahead=0)


# Judgement


def judge(trial: Trial, may: set[str], victims: set[str] | None = None, damaged: set[Place] | None = None) -> str:
    """Read twice, by other ranks and threads; what became of the fault: one of `may`.

    `refused` before reading, `holes` in place of the damaged samples, `stopped` by a store that does not answer,
    `retried` with all samples as packed; or nothing was delivered that is wrong, and a verification names the file:
    `verified`; or nothing was to be said: `healed`.

    Args:
        victims: the files that the fault is in, where the set itself is sound.
        damaged: the samples that cannot come, where the bytes of the set do not tell.

    Raises:
        UnseenError: nobody said it, or not in a line with file and place.
        DisplacedError: a healthy sample did not come where it belongs.
    """
    try:
        ranks = [trial.open() for _ in range(1 if trial.each else trial.dice.randint(1, 3))]
        first = trial.read(ranks, 2, trial.each) if trial.each else trial.read(ranks)
        second = trial.read(ranks if trial.each else [trial.open() for _ in range(trial.dice.randint(1, 2))])
    except StoreError as error:
        outcome = told("stopped", trial, str(error), victims)
    except ValueError as error:
        outcome = told("refused", trial, str(error), victims)
    else:
        lost = trial.copy.damaged() if damaged is None else damaged
        check_readings(trial, first, second, lost)
        check_holes(trial, lost, all_of_them=not trial.each or trial.shows)
        outcome = "holes" if trial.holes else mentioned(trial, victims or trial.copy.changed, may)
    check_verified(trial)
    if outcome not in may:
        raise UnseenError(f"{outcome}, not {' or '.join(sorted(may))}: {[*trial.lines, *trial.holes.values()][:3]}")
    return outcome


def told(outcome: str, trial: Trial, line: str, victims: set[str] | None) -> str:
    """A line that ends a run names the file, with folder or URL."""
    one_line(line)
    names = stems(victims or trial.copy.changed)
    if "index.json" in names:
        names.add("shard-")  # which does not fit it
    if not any(located(trial, name, line) for name in names):
        raise UnseenError(f"{outcome}, but neither {names} nor {trial.url} is named: {line}")
    return outcome


def located(trial: Trial, name: str, line: str) -> bool:
    """Whether a line names a file, up to its extension, and the folder, URL or command that it comes from."""
    url = trial.url.replace("{}", name)
    return name in line and (trial.url in line or url in re.sub(r"\.(tar|npy)\b", "", line))


def stems(names: set[str]) -> set[str]:
    """`shard-000001` of its tar and of its rows."""
    return {name.removesuffix(".tar").removesuffix(".npy") for name in names}


def one_line(line: str) -> None:
    if "\n" in line or not line.strip():
        raise UnseenError(f"not one line: {line!r}")


def check_readings(trial: Trial, first: Reading, second: Reading, lost: set[Place]) -> None:
    """Every position delivers its sample, or the same healthy one stands in for it in both readings."""
    stand_ins: list[dict[int, str]] = []
    for reading in (first, second):
        stand_ins.append({})
        for position, (place, *came) in reading.items():
            if tuple(came) != trial.copy.pristine.expected(place, position):
                stand_ins[-1][position] = check_stand_in(trial, position, place, came, lost)
    for position in stand_ins[0].keys() & stand_ins[1].keys():
        if stand_ins[0][position] != stand_ins[1][position]:
            raise DisplacedError(f"position {position} has two stand-ins: {[s[position] for s in stand_ins]}")


def check_stand_in(trial: Trial, position: int, place: Place, came: list, lost: set[Place]) -> str:
    key, pixels = came
    if place not in lost:
        raise DisplacedError(f"{place} is healthy, but {key} came at position {position}: {trial.holes.get(place)}")
    if place not in trial.holes:
        raise UnseenError(f"{place} is damaged; {key} came at position {position} without a word")
    pristine = trial.copy.pristine
    if key not in pristine.places or pristine.expected(pristine.places[key], position)[1] != pixels:
        raise UnseenError(f"{key}, which stands in at position {position}, is damaged itself")
    return str(key)


def check_holes(trial: Trial, lost: set[Place], all_of_them: bool) -> None:
    """The holes are the damaged samples, each with shard, and byte or URL or path."""
    if strange := trial.holes.keys() - lost:
        raise DisplacedError(f"healthy samples as holes: {[trial.holes[place] for place in sorted(strange)][:3]}")
    if all_of_them and (unseen := lost - trial.holes.keys()):
        raise UnseenError(f"damaged, and nothing said: {sorted(unseen)}")
    for (shard, sample), reason in trial.holes.items():
        one_line(reason)
        (stem,) = stems({trial.copy.shards[shard].name})
        if stem not in reason or not (re.search(r"\bbyte \d", reason) or located(trial, stem, reason)):
            raise UnseenError(f"the hole at {shard}, {sample} lacks shard or place: {reason}")
        at = re.search(r"\.tar at byte (\d+)", reason)
        if at and int(at[1]) != trial.copy.pristine.rows[shard][sample]["offset"]:
            raise UnseenError(f"the hole at {shard}, {sample} is said to be elsewhere: {reason}")


def mentioned(trial: Trial, victims: set[str], may: set[str]) -> str:
    """What became of a fault that left no hole."""
    for line in trial.lines:
        one_line(line)
    for line in trial.lines:
        if any(f"{name} at byte" in line for name in victims) or any(located(trial, n, line) for n in stems(victims)):
            return "retried"
    return "verified" if trial.copy.changed and "healed" not in may else "healed"


def check_verified(trial: Trial) -> None:
    """A verification names what is wrong with the files of a set."""
    changed = stems(trial.copy.changed)
    lines = trial.copy.verified() if changed else []
    if "index.json" in changed:
        changed = {""}  # any line
    if missing := [name for name in changed if not any(name in line for line in lines)]:
        raise UnseenError(f"{missing} differ, and shards.verify finds {lines[:3]}")
