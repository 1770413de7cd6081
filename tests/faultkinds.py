"""What can go wrong with a shard set, its store, its command and its cache: each kind injects one fault and has a
reading judged."""

from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from p2p.data import remote
from p2p.data.rows import rows_name
from tests import faultfiles as damage
from tests import faultreaders
from tests.faultbench import BLOCK, ROOMY, TRIES, WAYS, Bench, Trial, UnseenError, judge
from tests.faultsets import PLACES, Copy, Place, Pristine

WEB = "web", "whole", "plain"
SMALL_CACHE = 60_000
"""Bytes: less than a set has, more than fetchers hold at once."""
TIMEOUT_S = 0.5
"""For a store that stalls. A machine may be slow: what is sound is tried again, too."""
FOREVER = 1000
ALL = "first tar npy index"
"""Files of a set: the first tar, of which a byte is asked to see whether there are ranges, the others, rows, index."""

Damage = Callable[[Copy, Random], object]


@dataclass(frozen=True)
class Kind:
    """A kind of fault: how it is injected and judged, and how often among the others."""

    play: Callable[[Bench, Random], str]
    weight: int = 4
    most: int = 10**9
    """Trials at most, of those that start processes."""


# Files


def files(spoil: Damage, may: str, ways: Iterable[str] = WAYS, weight: int = 4) -> Kind:
    """A set that is damaged before it is opened."""

    def play(bench: Bench, dice: Random) -> str:
        with bench.copy(dice) as copy:
            spoil(copy, dice)
            return judge(trial_of(bench, copy, dice, ways), {*may.split()})

    return Kind(play, weight)


def while_open(bench: Bench, dice: Random) -> str:
    """A set that is damaged while it is read. What was read before, or is in a cache, is as it was packed."""
    with bench.copy(dice) as copy:
        trial = trial_of(bench, copy, dice)
        copy.in_place = dice.random() < 0.8
        spoil = partial(dice.choice(WHILE_OPEN), copy, dice)
        moment = dice.randrange(9)
        trial.each = lambda step: spoil() if step == moment else None
        return judge(trial, {"holes", "stopped", "retried", "verified"})


def trial_of(bench: Bench, copy: Copy, dice: Random, ways: Iterable[str] = WAYS) -> Trial:
    """A trial in one of the ways, now and then with a cache that is smaller than the set."""
    way = dice.choice([*ways])
    return bench.trial(copy, way, dice, dice.choice([ROOMY, SMALL_CACHE]) if way == "web" else ROOMY)


def twice_indexed(bench: Bench, dice: Random) -> str:
    """With an index that fits: nothing is wrong but the key, which a verification names."""
    with bench.copy(dice) as copy:
        shard, sample = dice.choice(PLACES)
        start, end = damage.run_of(copy, shard, sample)
        data, rows = copy.pristine.tars[shard], copy.pristine.rows[shard]
        copy.write(copy.shards[shard].name, data[:end] + data[start:end] + data[end:])
        rows = np.insert(rows, sample, rows[sample])
        rows["offset"] = np.cumsum(rows["size"]) - rows["size"]
        copy.list_anew(shard, rows)
        copy.pristine = Pristine(copy.folder)
        outcome = judge(trial_of(bench, copy, dice), {"verified"})
        if not any("has the key of sample" in line for line in copy.verified()):
            raise UnseenError("a key that comes twice is not named")
        return outcome


# Stores


def served(*faults: int | str, may: str = "retried", lasting: bool = False, weight: int = 4, **only: Any) -> Kind:
    """A web server that does something wrong, some times in a row or from now on."""

    def play(bench: Bench, dice: Random) -> str:
        with bench.copy(dice) as copy, timeout("stall" in faults):
            way, fault = dice.choice(only.get("ways", WEB)), dice.choice(faults)
            victim, requests = dice.choice(victims(copy, way, only.get("names", "tar npy index")))
            server, path = bench.servers[way], bench.path(copy, victim)
            times = FOREVER if lasting else dice.randrange(1, TRIES) if only.get("again", True) else 1
            server.fail(path, *[""] * dice.randrange(requests), *[fault] * times)
            outcome = judge(bench.trial(copy, way, dice), {*may.split()}, {victim})
            if not lasting and outcome != "refused" and server.faults[path]:
                raise AssertionError(f"{victim}: the fault did not come")
            return outcome

    return Kind(play, weight)


def victims(copy: Copy, way: str, names: str) -> list[tuple[str, int]]:
    """Files, and how many requests for each there are in an epoch at least."""
    tars = [(one.name, -(-one.samples // BLOCK) if way == "web" else 1) for one in copy.shards]
    rows = [(rows_name(name), 1) for name, _ in tars]
    found = {"first": tars[:1], "tar": tars[1:] * 3, "npy": rows, "index": [("index.json", 1)]}
    return [victim for name in names.split() for victim in found[name]]


@contextmanager
def timeout(short: bool):
    """Stores that are given up early."""
    before = remote.READ_TIMEOUT_S
    remote.READ_TIMEOUT_S = TIMEOUT_S if short else before
    try:
        yield
    finally:
        remote.READ_TIMEOUT_S = before


def no_ranges(bench: Bench, dice: Random) -> str:
    """An order for parts, and a server that has none: whole shards are read, in that order."""
    with bench.copy(dice) as copy:
        return judge(replace(bench.trial(copy, "plain", dice), block=BLOCK), {"healed"})


# Commands


def printed(action: str, may: str = "retried", lasting: bool = False, names: str = "first tar npy", **how: int) -> Kind:
    """A command that does something else after some bytes of one file, once or always. `$1` is the file, `$2` a number
    of its bytes."""

    def play(bench: Bench, dice: Random) -> str:
        with bench.copy(dice) as copy, timeout("sleep 9" in action):
            victim, _ = dice.choice(victims(copy, "pipe", names))
            at = dice.randrange(len(copy.read(victim)))
            once = "" if lasting else " && mkdir once 2>/dev/null"
            (copy.folder / "print.sh").write_text(
                f'cd {copy.folder}\nif [ "$1" = {victim} ]{once}; then set -- "$1" {at}; {action}; fi\n'
                'exec cat "$1" 2>/dev/null\n'
            )
            trial = replace(bench.trial(copy, "pipe", dice), url=f"pipe:sh {copy.folder}/print.sh {{}} 2>/dev/null")
            outcome = judge(trial, {*may.split()}, {victim}, cut_off(copy, victim, at, lasting, action))
            if not lasting and not (copy.folder / "once").exists():
                raise AssertionError(f"{victim}: the fault did not come")
            return outcome

    return Kind(play, how.get("weight", 2))


def cut_off(copy: Copy, victim: str, at: int, lasting: bool, action: str) -> set[Place]:
    """The samples that a command never prints."""
    shard = next((n for n, one in enumerate(copy.shards) if victim in (one.name, rows_name(one.name))), -1)
    if not lasting or "sleep" in action or shard < 0:
        return set()
    if victim.endswith(".npy"):
        return {(shard, i) for i in range(copy.shards[shard].samples)}
    return {(shard, i) for i in range(copy.shards[shard].samples) if damage.run_of(copy, shard, i)[1] > at}


# Caches


def cached(spoil: Callable[[Bench, Copy, Path, Random], Callable[[], bool]], weight: int = 4) -> Kind:
    """A cache that was filled, and then spoilt; `spoil` returns whether it healed."""

    def play(bench: Bench, dice: Random) -> str:
        with bench.copy(dice) as copy:
            trial = bench.trial(copy, dice.choice(WEB), dice)
            trial.read([trial.open()])
            healed = spoil(bench, copy, trial.cache, dice)
            outcome = judge(trial, {"healed", "retried"}, set(), set())
            if not healed():
                raise UnseenError("what was spoilt in the cache is still there")
            return outcome

    return Kind(play, weight)


def cached_bit(bench: Bench, copy: Copy, cache: Path, dice: Random) -> Callable[[], bool]:
    path, size = extent(copy, cache, dice)
    return change_kept(path, bytes_with_bit(path.read_bytes(), dice.randrange(size), dice))


def cached_cut(bench: Bench, copy: Copy, cache: Path, dice: Random) -> Callable[[], bool]:
    path, size = extent(copy, cache, dice)
    return change_kept(path, path.read_bytes()[: dice.randrange(size)])


def cached_rows(bench: Bench, copy: Copy, cache: Path, dice: Random) -> Callable[[], bool]:
    path = dice.choice(kept(cache, "small-*"))
    data = path.read_bytes()
    spoilt = data[: dice.randrange(len(data))], bytes_with_bit(data, dice.randrange(len(data)), dice)
    return change_kept(path, dice.choice(spoilt))


def leftovers(bench: Bench, copy: Copy, cache: Path, dice: Random) -> Callable[[], bool]:
    """What a killed process was writing, and an account that is wrong."""
    left = cache / ".aside" / f"{dice.getrandbits(128):032x}.{dice.randrange(10**6)}"
    left.write_bytes(dice.randbytes(1000))
    (cache / ".account").write_bytes(dice.choice([b"", b"x", b"%20d" % 10**15, dice.randbytes(20)]))
    return lambda: not left.exists()


def emptied(bench: Bench, copy: Copy, cache: Path, dice: Random) -> Callable[[], bool]:
    """Some of it was tidied up."""
    gone = dice.sample(kept(cache, "*"), 3)
    for path in gone:
        path.unlink()
    return lambda: all(path.exists() for path in gone)


def kept(cache: Path, name: str) -> list[Path]:
    """Files that came from a store."""
    return sorted(path for path in cache.glob(f"*/{name}") if path.parent.name[0] != ".")


def extent(copy: Copy, cache: Path, dice: Random) -> tuple[Path, int]:
    """A file of a cache, and how many of its bytes are of samples."""
    path = dice.choice(kept(cache, "*.*.*.*"))
    shard, _, offset, size = map(int, path.name.split("."))
    return path, min(size, damage.content(copy, shard) - offset)


def bytes_with_bit(data: bytes, at: int, dice: Random) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]


def change_kept(path: Path, data: bytes) -> Callable[[], bool]:
    was = path.read_bytes()
    path.write_bytes(data)
    return lambda: path.read_bytes() == was


# The table

WHILE_OPEN: list[Damage] = [
    damage.header_bit,
    damage.data_bit,
    partial(damage.cut, where="data"),
    damage.cut_at_end,
    damage.zeros,
    damage.twice,
    partial(damage.swapped, same_size=True),
    damage.of_another_set,
    damage.missing,
    damage.rows_bit,
]

KINDS: dict[str, Kind] = {
    "header bit": files(damage.header_bit, "holes", weight=8),
    "data bit": files(damage.data_bit, "holes", weight=8),
    "bit after the last sample": files(damage.end_bit, "verified"),
    "cut before a member": files(partial(damage.cut, where="before"), "refused holes"),
    "cut inside a header": files(partial(damage.cut, where="header"), "refused holes"),
    "cut inside a member": files(partial(damage.cut, where="data"), "refused holes"),
    "cut after the last sample": files(damage.cut_at_end, "refused retried verified"),
    "zeros of 4 KiB": files(damage.zeros, "holes", weight=6),
    "sample twice": files(damage.twice, "refused holes retried verified"),
    "member twice": files(damage.member_twice, "refused holes retried verified"),
    "sample twice, indexed": Kind(twice_indexed, 1),
    "swapped, one size": files(partial(damage.swapped, same_size=True), "holes"),
    "swapped, two sizes": files(partial(damage.swapped, same_size=False), "refused holes"),
    "shard of another set": files(damage.of_another_set, "holes"),
    "wrong count": files(damage.wrong_count, "refused holes"),
    "wrong bytes in the index": files(damage.wrong_bytes, "refused holes retried verified"),
    "wrong sha256 in the index": files(damage.wrong_sha256, "verified", weight=1),
    "bit of a name in the index": files(damage.index_name_bit, "refused", weight=1),
    "bit of the rows": files(damage.rows_bit, "refused holes", weight=6),
    "rows cut": files(damage.rows_cut, "refused holes"),
    "shard or rows missing": files(damage.missing, "refused holes stopped"),
    "changed while open": Kind(while_open, 16),
    "HTTP 5xx": served(500, 502, 503, 504, 429, 408, names=ALL),
    "HTTP 500 for ever": served(500, 503, may="stopped", lasting=True, weight=1, names=ALL),
    "HTTP 403": served(403, may="stopped", lasting=True, weight=1, names=ALL),
    "broken in the middle": served("break"),
    "ended in the middle": served("short"),
    "connection dropped": served("drop", names=ALL),
    "stalled": served("stall", again=False, weight=1),
    "Content-Length too long": served("long", again=False),
    "answer too short": served("cut", may="retried refused", again=False),
    "part of another place": served("shift", ways=["web"], names="tar", weight=2),
    "wrong byte once": served("wrong", may="retried refused", again=False),
    "no ranges": Kind(no_ranges, 1),
    "command dies": printed('head -c $2 "$1"; exit 1'),
    "command always dies": printed('head -c $2 "$1"; exit 1', "stopped holes", lasting=True),
    "command ends early": printed('head -c $2 "$1"; exit 0'),
    "command always ends early": printed('head -c $2 "$1"; exit 0', "holes retried", lasting=True),
    "command is slow": printed('head -c $2 "$1"; sleep 0.02; tail -c +$(($2 + 1)) "$1"; exit 0', "healed", weight=1),
    "command stalls": printed('head -c $2 "$1"; exec sleep 9', weight=1, names="tar first"),
    "bit in the cache": cached(cached_bit),
    "cut in the cache": cached(cached_cut),
    "rows in the cache": cached(cached_rows),
    "left in the cache": cached(leftovers, weight=1),
    "gone from the cache": cached(emptied, weight=1),
    "disk full": Kind(faultreaders.full_disk, 1, 10),
    "two fill one cache": Kind(faultreaders.two_fill_one, 1, 10),
    "two fill one cache, kill -9": Kind(faultreaders.one_is_killed, 1, 30),
}
"""By name, as the table prints them. What may become of each is in words of `faultbench.judge`."""
