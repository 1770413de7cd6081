"""Pack picture pairs into shards: `python -m shards.pack pairs|folders|photos|labels ...`, see `--help`.

The pictures may lie in folders or archives, the shards may go to a folder or a store. The same pictures and settings
give the same bytes, whatever the number of processes. An interrupted run goes on with the same command. What cannot
be packed is named on stderr and in `OUT/report.json`. Exit codes: 0 all is packed, 2 something is bad or a mistake,
130 interrupted.
"""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import asdict
from functools import partial
from itertools import islice

from p2p.data.format import read_index
from shards.arguments import Arguments, parse
from shards.finish import Total, discard, finish, forget, withdraw
from shards.jobs import Job, find_jobs, is_complete, local_folder, read_report
from shards.plan import PLAN, Plan, load_plan
from shards.sources import Settings
from shards.tasks import Task, fill, judge
from shards.trees import Bad
from shards.work import guarded, in_order, progress, workers

BAD_SHOWN = 20
CHUNK = 16
"""Samples that a process judges at a time, to hold some out."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    return guarded(lambda: pack(parse(argv)), "interrupted; the same command goes on")


def pack(arguments: Arguments) -> int:
    """List, then read, check and write; mistakes that the listing shows are found before the first file is written."""
    if arguments.settings.form == "photos":
        _ = arguments.settings.draw  # its packages and weights must be there
    out = local_folder(arguments.out)
    try:
        jobs = find_jobs(arguments, out)
        todo = [job for job in jobs if not is_complete(job)]
        plans = [begin(job) for job in todo]
        with workers(arguments.processes) as pool:
            for job, plan in zip(todo, plans, strict=True):
                write(pool, job, plan)
    finally:
        withdraw(out)
    return max(summarise(job, fresh=job in todo) for job in jobs)


def begin(job: Job) -> Plan:
    """Go on with the plan in OUT, or put the new one there.

    Raises:
        ValueError: the plan is of another command, or nothing can be packed.
    """
    if (job.out / PLAN).exists():
        plan = load_plan(job.out)
        if what := difference(job.settings, plan) or job.listing.difference(job.out):
            raise ValueError(f"{job.shown}: was begun otherwise: {what}; undo that, or delete the folder")
        return plan
    check_any(job, job.listing, job.listing.count)
    job.out.mkdir(parents=True, exist_ok=True)
    job.listing.note(generations={name: base.generation for name, base in job.bases.items()})
    return job.listing.save(job.out)


def difference(settings: Settings, plan: Plan) -> str:
    """In which setting this command differs from the planned one, in words; empty if in none."""
    before, now = plan["settings"], json.loads(json.dumps(asdict(settings)))
    changed = [name for name in now if now[name] != before[name] and name != "edges"]
    return f"{changed[0]} is {now[changed[0]]}, was {before[changed[0]]}" if changed else ""


def check_any(job: Job, plan: Plan, good: int) -> None:
    """Refuse a job of which nothing would come, and leave nothing of it.

    Raises:
        ValueError: there is nothing to pack, or nothing beside what is held out.
    """
    if good > job.settings.val:
        return
    refusal = f"--val {job.settings.val}: there are only {good} good samples; hold out fewer"
    if not good:
        bad = f"{plan.bad_count} bad, as {tell(next(plan.bad))}"
        refusal = f"{job.parts[0].root}: nothing to pack; {bad}"
    plan.db.close()
    forget(job)
    raise ValueError(refusal)


def write(pool: Executor, job: Job, plan: Plan) -> None:
    """Write the shards, and what says that they are there; name what is bad."""
    tasks = list(find_tasks(job, plan, hold_out(pool, job, plan)))
    total = Total(job)
    done = in_order(pool, partial(fill, job.work), tasks)
    for task, one in zip(tasks, progress(done, total=len(tasks), done="wrote", unit="shards"), strict=True):
        total.add(task.folder, one)
        if one.bad:
            plan.add_bad(one.bad)
    if total.packed <= job.settings.val:
        discard(job, total)
    check_any(job, plan, total.packed)
    show_bad(job, plan)
    finish(job, plan, total)


def hold_out(pool: Executor, job: Job, plan: Plan) -> int:
    """The position where the validation set begins: from there on, as many as asked for are good."""
    if plan["split"] is not None:
        return int(plan["split"])
    split, lacking = plan.count, job.settings.val
    while lacking and split:
        first = max(split - lacking, 0)
        spans = [(at, min(at + CHUNK, split)) for at in range(first, split, CHUNK)]
        lacking -= sum(in_order(pool, partial(judge, job.work), spans))
        split = first
    if not split:
        check_any(job, plan, job.settings.val - lacking)
    plan.note(split=split)
    return split


def find_tasks(job: Job, plan: Plan, split: int) -> Iterator[Task]:
    """The shards of every set, in order; the last set begins at `split` where some are held out."""
    for name, ends in zip(job.sets, [(0, split), (split, plan.count)], strict=False):
        (job.out / name).mkdir(exist_ok=True)
        first = job.bases[name].first if job.bases else 0
        for number, span in enumerate(plan.cut(job.settings, *ends), first):
            yield Task(name, f"shard-{number:06d}", *span)


def tell(bad: Bad) -> str:
    """A bad file in one line."""
    return f"{bad.name}: {bad.reason}"


def show_bad(job: Job, plan: Plan) -> None:
    """Name the first bad files on stderr; the report has all."""
    for one in islice(plan.bad, BAD_SHOWN):
        print(tell(one), file=sys.stderr)
    if plan.bad_count > BAD_SHOWN:
        print(f"... and {plan.bad_count - BAD_SHOWN} more, see {job.shown}/{job.report}", file=sys.stderr)


def summarise(job: Job, *, fresh: bool) -> int:
    """Say what OUT holds now; the exit code."""
    for name in job.sets:
        index = read_index(job.place(name))
        count, size = len(index.shards), sum(shard.bytes for shard in index.shards)
        shards = "1 shard" if count == 1 else f"{count} shards"
        unit = "photos" if job.settings.form == "photos" else "pairs"
        said = "packed" if fresh else "nothing new to add:" if job.bases else "already complete:"
        if job.bases and not fresh and (held := job.listing.bad_count):
            print(f"{held} files are not added, as {tell(next(job.listing.bad))}", file=sys.stderr)
        print(f"{said} {index.samples} {unit} in {shards}, {size} bytes, seed {index.seed}: {job.place(name)}")
    return 2 if (fresh or not job.bases) and read_report(job)["bad"] else 0


if __name__ == "__main__":
    sys.exit(main())
