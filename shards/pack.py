"""Pack picture pairs into shards: `python -m shards.pack pairs|folders|photos|labels ...`, see `--help`.

The same pictures and settings give the same bytes, whatever the number of processes. An interrupted run goes
on with the same command. What cannot be packed is named on stderr and in `OUT/report.json`. Exit codes: 0 all
is packed, 2 something is bad or a mistake, 130 interrupted.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

from p2p.data.format import INDEX, Index, ShardInfo, read_index
from shards.arguments import Arguments, parse
from shards.edges import load_canny
from shards.jobs import Job, find_jobs, is_complete, read_report
from shards.listing import Bad, Sample
from shards.plan import PLAN, REPORT, Plan, cut, difference, load_plan
from shards.sources import Good, Settings, check, members, side_size
from shards.work import progress, workers
from shards.writer import aside, finished_shard, write_shard

BAD_SHOWN = 20
CHUNK = 16
"""Samples that a process takes at a time to check."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    try:
        return pack(parse(argv))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    except BrokenProcessPool:
        print("a worker process was killed, perhaps for memory; try fewer --processes", file=sys.stderr)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
    return 2


def pack(arguments: Arguments) -> int:
    """List, check, write; every mistake that can be found early is found before the first file is written."""
    jobs = find_jobs(arguments)
    todo = [job for job in jobs if not is_complete(job)]
    if arguments.settings.form == "photos":
        load_canny()
    with workers(arguments.processes) as pool:
        plans = [make_plan(pool, job) for job in todo]
        for job, plan in zip(todo, plans, strict=True):
            write(pool, job, plan)
    return max(summarise(job, fresh=job in todo) for job in jobs)


def make_plan(pool: Executor, job: Job) -> Plan:
    """Go on with the plan in OUT, or check every sample and keep the result there.

    Raises:
        ValueError: the plan is of another command, or nothing can be packed.
    """
    if (job.out / PLAN).exists():
        plan = load_plan(job.out)
        if what := difference(job.settings, job.listing, plan):
            raise ValueError(f"{job.out}: was begun otherwise: {what}; undo that, or delete the folder")
    else:
        plan = Plan(job.settings, job.listing, check_all(pool, job))
        if not plan.shuffled:
            raise ValueError(f"{job.roots[0]}: nothing to pack; {len(plan.bad)} bad, as {tell(plan.bad[0])}")
        plan.sets()
        job.out.mkdir(parents=True, exist_ok=True)
        plan.save(job.out)
    show_bad(job.out, plan.bad)
    return plan


def check_all(pool: Executor, job: Job) -> list[Good | str]:
    """Decode every sample, in order: what each is, or why it is bad."""
    samples = job.listing.samples
    outcomes = pool.map(partial(check, job.settings, job.roots), samples, chunksize=CHUNK)
    return list(progress(outcomes, total=len(samples), done="checked", unit=unit(job)))


def unit(job: Job) -> str:
    """What a job counts."""
    return "photos" if job.settings.form == "photos" else "pairs"


def tell(bad: Bad) -> str:
    """A bad file in one line."""
    return f"{bad.name}: {bad.reason}"


def show_bad(out: Path, bad: list[Bad]) -> None:
    """Name the first bad files on stderr; the report has all."""
    for one in bad[:BAD_SHOWN]:
        print(tell(one), file=sys.stderr)
    if len(bad) > BAD_SHOWN:
        print(f"... and {len(bad) - BAD_SHOWN} more, see {out / REPORT}", file=sys.stderr)


def write(pool: Executor, job: Job, plan: Plan) -> None:
    """Write what is missing: shards, report, and the indexes last, for they say that all else is there."""
    tasks = list(shard_tasks(job, plan))
    shards = pool.map(partial(write_one, job.settings, job.roots), tasks)
    done = list(progress(shards, total=len(tasks), done="wrote", unit="shards"))
    with aside(job.out / REPORT) as file:
        file.write(json.dumps(plan.report(), indent=1).encode())
    for name, samples in plan.sets().items():
        infos = [info for (path, _), info in zip(tasks, done, strict=True) if path.parent == job.out / name]
        with aside(job.out / name / INDEX) as file:
            file.write(make_index(job.settings, samples, infos).dumps().encode())
    (job.out / PLAN).unlink()


Task = tuple[Path, Sequence[tuple[Sample, Good]]]
"""A tar, and what goes into it."""


def shard_tasks(job: Job, plan: Plan) -> Iterator[Task]:
    """Every shard of every set, in order."""
    for name, samples in plan.sets().items():
        (job.out / name).mkdir(exist_ok=True)
        for number, some in enumerate(cut(job.settings, samples)):
            yield job.out / name / f"shard-{number:06d}.tar", some


def write_one(settings: Settings, roots: tuple[Path, ...], task: Task) -> ShardInfo:
    """Write a shard, unless an interrupted run completed it."""
    path, samples = task
    encoded = ((sample.key, members(settings, roots, sample, good)) for sample, good in samples)
    return finished_shard(path, len(samples)) or write_shard(path, encoded)


def make_index(settings: Settings, samples: Sequence[tuple[Sample, Good]], shards: list[ShardInfo]) -> Index:
    """What one set holds; a side has one channel if all its pictures are gray, else three."""
    pictures = [good.pictures for _, good in samples]
    channels = [max(picture.channels for picture in side) for side in zip(*pictures, strict=True)]
    x = 1 if settings.form == "photos" else channels[0]
    heights, widths = zip(*(side_size(settings, side[0]) for side in pictures), strict=True)
    return Index(
        settings.layout, settings.seed, (x, channels[-1]),
        (min(heights), min(widths)), (max(heights), max(widths)), tuple(shards),
        settings.classes, settings.instances,
    )  # fmt: skip


def summarise(job: Job, *, fresh: bool) -> int:
    """Say what OUT holds now; the exit code."""
    for folder in job.folders:
        index = read_index(folder)
        count, size = len(index.shards), sum(shard.bytes for shard in index.shards)
        shards = "1 shard" if count == 1 else f"{count} shards"
        held = f"{index.samples} {unit(job)} in {shards}, {size} bytes, seed {index.seed}"
        print(f"{'packed' if fresh else 'already complete:'} {held}: {folder}")
    return 2 if read_report(job.out)["bad"] else 0


if __name__ == "__main__":
    sys.exit(main())
