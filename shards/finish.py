"""The end of packing: the report, the indexes that say that all else is there, and nothing left behind."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from p2p.data.format import Index, ShardInfo
from p2p.data.rows import rows_name
from p2p.data.stores import open_store
from shards.jobs import Job
from shards.plan import PLAN, Plan
from shards.spool import SPOOL
from shards.tasks import DONE, Done, Extent, publish
from shards.writer import aside

HIDDEN = (PLAN, f"{PLAN}-journal", DONE.format("shard-*"), ".*.tmp")
"""Files of a run; the plan goes first, for without it the others mean nothing."""


class Total:
    """What came of all tasks of a job."""

    def __init__(self, job: Job) -> None:
        self.packed = 0
        self.converted: Counter[str] = Counter()
        self.shards: dict[str, list[ShardInfo]] = {name: [] for name in job.sets}
        self.extents: dict[str, Extent] = {}

    def add(self, folder: str, done: Done) -> None:
        """Take what came of a task into account."""
        self.packed += sum(shard.samples for shard in done.shards)
        self.converted.update(done.converted)
        self.shards[folder] += done.shards
        if done.extent:
            self.extents[folder] = done.extent.join(self.extents.get(folder))


def finish(job: Job, plan: Plan, total: Total) -> None:
    """Write the report and then the indexes; forget the plan."""
    with aside(job.out / job.report) as file:
        for line in report_lines(total, plan):
            file.write(line.encode())
    for name in job.sets:
        with aside(job.out / name / job.index_name(name)) as file:
            file.write(make_index(job, name, total).dumps().encode())
    if job.url:
        publish(open_store(job.url), job.out, job.report)
        for name in job.sets:
            publish(open_store(job.place(name)), job.out / name, job.index_name(name))
    plan.db.close()
    forget(job)


def discard(job: Job, total: Total) -> None:
    """Remove shards of a set that is refused now that they are written."""
    for name, shards in total.shards.items():
        for file in (file for shard in shards for file in (shard.name, rows_name(shard.name))):
            (job.out / name / file).unlink(missing_ok=True)


def forget(job: Job) -> None:
    """Remove what was hidden in OUT while it was made, and folders that are empty."""
    for folder in [job.out / name for name in job.sets if name] + [job.out]:
        _sweep(folder, HIDDEN)


def withdraw(out: Path) -> None:
    """Remove the plain copies of archives, unless a run has begun that can go on."""
    if not any(any(out.glob(pattern)) for pattern in (PLAN, f"*/{PLAN}")):
        _sweep(out, (SPOOL.format("*"), ".*.tmp"))


def _sweep(folder: Path, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        for path in list(folder.glob(pattern)):
            path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def report_lines(total: Total, plan: Plan) -> Iterator[str]:
    """JSON of what a person may want to know, and of the fingerprint by which the same command is known again."""
    yield f'{{\n "packed": {total.packed},\n "bad": ['
    comma = ""
    for one in plan.bad:
        yield f"{comma}\n  " + json.dumps(one._asdict(), indent=1).replace("\n", "\n  ")
        comma = ","
    converted = {reason: total.converted[reason] for reason in sorted(total.converted)}
    rest = json.dumps({"converted": converted, "inputs": plan["inputs"]}, indent=1)
    yield ("\n ]," if comma else "],") + rest.removeprefix("{")


def make_index(job: Job, name: str, total: Total) -> Index:
    """What one set holds; a side has one channel if all its pictures are gray, else three."""
    settings, shards, extent = job.settings, tuple(total.shards[name]), total.extents.get(name)
    if base := job.bases.get(name):
        both = base.extent.join(extent)
        shards = base.index.shards + shards
        return replace(base.index, shards=shards, smallest=both.smallest, largest=both.largest)
    assert extent is not None  # a set without a sample is refused before
    return Index(settings.layout, settings.seed, *extent, shards, settings.classes, settings.instances)
