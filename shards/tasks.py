"""What a worker process does: tell good candidates from bad, or fill a shard, in one pass over its files."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from p2p.data.format import ShardInfo
from p2p.data.rows import rows_name
from p2p.data.stores import Store, open_store
from shards.plan import load_plan
from shards.sources import Good, Settings, channels, make, side_size
from shards.trees import Bad, Reader
from shards.writer import aside, run_bytes, tar_bytes, write_shard

DONE = ".{}.json"
"""Beside a shard, until all is written: what came of its candidates."""

Size = tuple[int, int]


class Work(NamedTuple):
    """What all tasks of a job need."""

    out: Path
    """Folder of the plan; shards are below."""
    settings: Settings
    readers: tuple[Reader, ...]
    url: str
    """Where finished shards go from there; empty: nowhere."""


class Task(NamedTuple):
    """The candidates of one shard."""

    folder: str
    """The set, below OUT; empty for OUT itself."""
    name: str
    """Of the shard, without extension."""
    first: int
    last: int


class Extent(NamedTuple):
    """What pictures have in common: most channels of x and y, least and greatest height and width of one side."""

    channels: tuple[int, int]
    smallest: Size
    largest: Size

    def join(self, other: "Extent | None") -> "Extent":
        """That of both."""
        if other is None:
            return self
        (x, y), (top, left), (bottom, right) = (
            map(choose, mine, theirs) for choose, mine, theirs in zip((max, min, max), self, other, strict=True)
        )
        return Extent((x, y), (top, left), (bottom, right))


@dataclass
class Done:
    """What came of the candidates of one shard."""

    shards: list[ShardInfo] = field(default_factory=list)
    """None if all were bad; several if conversion made more of them than `--bytes` lets into one."""
    bad: list[Bad] = field(default_factory=list)
    converted: Counter[str] = field(default_factory=Counter)
    extent: Extent | None = None

    def add(self, settings: Settings, good: Good) -> None:
        """Take a sample into account."""
        size = side_size(settings, good.pictures[0])
        extent = Extent(channels(settings, good.pictures), size, size)
        if extent != self.extent:  # mostly they are all alike
            self.extent = extent.join(self.extent)
        self.converted.update(one.converted for one in good.pictures if one.converted)


def judge(work: Work, span: tuple[int, int]) -> int:
    """How many candidates of a span of positions are good."""
    samples = load_plan(work.out).samples(*span)
    return sum(isinstance(make(work.settings, work.readers, sample), Good) for sample in samples)


def fill(work: Work, task: Task) -> Done:
    """Write the shard of a task, unless an interrupted run completed it; what is bad is left out.

    Raises:
        ValueError: a source file is not the one that was listed.
    """
    store = open_store(_below(work.url, task.folder)) if work.url else None
    path = work.out / task.folder / f"{task.name}.tar"
    record = path.with_name(DONE.format(task.name))
    if (done := _read(record)) and all(_is_whole(path.parent, shard, store) for shard in done.shards):
        return done
    done = Done()
    for part, samples in groupby(_samples(work, task, done), _part_numbers(work.settings.bytes)):
        name = f"{task.name}_{part:02d}.tar" if part else path.name
        done.shards.append(write_shard(path.with_name(name), ((key, members) for key, members in samples)))
    if store:
        for shard in done.shards:
            publish(store, path.parent, shard.name, rows_name(shard.name))
    with aside(record) as file:
        file.write(json.dumps(vars(done), default=asdict).encode())
    return done


def _below(url: str, folder: str) -> str:
    return f"{url}/{folder}" if folder else url


def _samples(work: Work, task: Task, done: Done) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and members of the good candidates, in order; what they are is noted in `done`."""
    for sample in load_plan(work.out).samples(task.first, task.last):
        one = make(work.settings, work.readers, sample)
        if isinstance(one, Good):
            done.add(work.settings, one)
            yield sample.key, one.members
        else:
            done.bad.append(Bad(sample.files[0].name, one))


def _part_numbers(most: int) -> Callable[[tuple[str, dict[str, bytes]]], int]:
    """Which tar of its task a sample goes to, when asked for one after the other: none grows above `most` bytes."""
    part = content = 0

    def number(sample: tuple[str, dict[str, bytes]]) -> int:
        nonlocal part, content
        size = run_bytes(map(len, sample[1].values()))
        if most and content and tar_bytes(content + size) > most:
            part, content = part + 1, 0
        content += size
        return part

    return number


def publish(store: Store, folder: Path, *names: str) -> None:
    """Move finished files of a folder to a store, unless they are there: all of their size, the last byte for byte."""
    there = all(_has(store, name, folder / name) for name in names)
    if not there or store.read(names[-1]) != (folder / names[-1]).read_bytes():
        for name in names:
            store.put(name, folder / name)
    for name in names:
        (folder / name).unlink()


def _has(store: Store, name: str, path: Path) -> bool:
    try:
        return store.size(name) == path.stat().st_size
    except FileNotFoundError:
        return False


def _is_whole(folder: Path, shard: ShardInfo, store: Store | None) -> bool:
    try:
        if store:
            return store.size(shard.name) == shard.bytes
        return (folder / shard.name).stat().st_size == shard.bytes and (folder / rows_name(shard.name)).exists()
    except FileNotFoundError:
        return False


def _read(record: Path) -> Done | None:
    """What an interrupted run noted of a task."""
    try:
        raw = json.loads(record.read_bytes())
    except FileNotFoundError:
        return None
    extent = raw["extent"] and Extent(*map(tuple, raw["extent"]))
    return Done(
        [ShardInfo(**one) for one in raw["shards"]],
        [Bad(*one) for one in raw["bad"]],
        Counter(raw["converted"]),
        extent,
    )
