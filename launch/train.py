"""Train: `python -m launch.train --config configs/edges2handbags.yaml --run runs/bags`, alone or under torchrun."""

import argparse
import errno
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path

import torch
import torch.distributed as td

from launch.argv import Parser
from launch.cluster import cluster
from launch.muster import arrived, causes, identity, muster
from launch.process import Signals, exit_code, give_up, reproducible
from p2p import checkpoint, checks, dist, features, generator, meeting, status
from p2p import config as conf
from p2p.build import build_experiment
from p2p.data.stores import StoreError
from p2p.describe import describe
from p2p.experiment import Experiment
from p2p.log import Journal, NonFiniteError
from p2p.resume import difference, generations, resumable
from p2p.run import Run

AGAIN = 75
"""Exit code, EX_TEMPFAIL of sysexits.h: nothing is wrong with what was given, another start may do better."""


def parser() -> argparse.ArgumentParser:
    """The whole command line; settings belong into the YAML file."""
    p = Parser(prog="p2p-train", description="Train image translation from tar shards.")
    p.add_argument("--config", required=True, help="YAML file of settings, see configs/")
    p.add_argument("--run", required=True, type=Path, help="folder of the run; the same command again goes on with it")
    p.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.NAME=VALUE")
    p.add_argument("--dry-run", action="store_true", help="check everything, print the settings and the plan, and end")
    p.add_argument("--local_rank", help=argparse.SUPPRESS)  # DeepSpeed's launcher adds it
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 trained, or stopped by USR1 after a checkpoint; 1 a loss was not finite; 2 a mistake in what was
    given (one line); 75 other ranks were lost, the same command goes on; 130 and 143 stopped by INT and TERM after a
    checkpoint."""
    args = parser().parse_args(argv)
    with Signals() as signals, ExitStack() as held:
        experiment, problem = None, ""
        try:
            experiment = prepare(args)
            if dist.main() and not args.dry_run:
                held.callback(status.hold(args.run).release)
        except (ValueError, OSError) as error:
            problem = str(error)
        except meeting.NotYetError as error:
            fail(str(error))
            return AGAIN
        try:
            store, found = agree(args, experiment, problem)
        except meeting.NotYetError as error:
            fail(str(error))
            return AGAIN
        if experiment is None or found:
            return refuse(args.run, found)
        if dist.main():
            introduce(experiment, args.run, difference(args.run, experiment.given))
        return 0 if args.dry_run else work(experiment, args.run, store, signals)


def prepare(args: argparse.Namespace) -> Experiment:
    """Find every mistake that can be found before training."""
    if dist.unaware():
        raise ValueError(
            f"srun started {dist.unaware()} tasks that know nothing of each other; use slurm/job.sh, or torchrun"
        )
    experiment = build_experiment(
        conf.load(args.config, args.overrides), dist.world(), dist.device(), generations(args.run)
    )
    if resumable(experiment, args.run) is None:
        checks.init_from(experiment.at(0))  # a run that goes on has no need of what it began with
    return experiment


def agree(args: argparse.Namespace, experiment: Experiment | None, problem: str) -> tuple[td.Store, list[str]]:
    """The store of the ranks, and what keeps any of them from starting.

    Raises:
        NotYetError: they do not find each other.
    """
    if not dist.launched():
        return td.HashStore(), [problem] if problem else []
    try:
        return muster(problem, lambda: identity(experiment, args.run) if experiment else {})
    except (ValueError, OSError) as error:  # a checkpoint that went bad since it was looked at
        return td.HashStore(), [str(error)]


def introduce(experiment: Experiment, folder: Path, changed: Sequence[str]) -> None:
    """Print the settings and what was derived from them."""
    print(conf.dump(experiment.given), describe(experiment), sep="\n", flush=True)
    for line in changed:
        print(f"changed since the checkpoint in {folder}: {line}", flush=True)


def work(experiment: Experiment, folder: Path, store: td.Store, signals: Signals) -> int:
    """Join the process group, train, leave it."""
    device = dist.device()
    journal = Journal(folder, dist.rank(), lambda line: print(line, flush=True))
    journal.note(f"rank {dist.rank()} of {dist.world()} on {dist.host()}, process {os.getpid()}, {device}")
    try:
        dist.start(device, store, alone=experiment.config.engine.name == "deepspeed")
        with reproducible(device) if experiment.config.engine.reduction == "exact" else nullcontext():
            code = resume(experiment, folder, journal, signals)
        dist.stop()  # not after an error: NCCL would wait for what is lost
        if code == 0 and dist.main() and next(iter(experiment.generators.values())).encoder:
            signals.ended()
            appearances(experiment, folder, journal)  # by one rank, after the group, whose ranks wait for minutes only
        return code
    except StoreError as error:
        return failed(folder, journal, str(error), AGAIN)
    except OSError as error:
        remedy = "; make room, the same command goes on" if error.errno == errno.ENOSPC else ""
        return failed(folder, journal, f"{error}{remedy}", 2)
    except ValueError as error:
        return failed(folder, journal, str(error), 2)
    except dist.ElsewhereError:
        give_up()
        return 2
    except NonFiniteError as error:
        return failed(folder, journal, f"{error}; the last good checkpoint in {folder} stays", 1)
    except KeyboardInterrupt:
        return failed(
            folder, journal, f"interrupted; the same command goes on from the last checkpoint in {folder}", 130
        )
    except RuntimeError as error:
        journal.note(traceback.format_exc())
        if dist.world() == 1 and not isinstance(error, torch.OutOfMemoryError):
            raise
        return failed(folder, journal, explain(error, journal.path), AGAIN)


def resume(experiment: Experiment, folder: Path, journal: Journal, signals: Signals) -> int:
    """Train stage by stage, where every rank can go on with the run."""
    images = 0
    while True:
        run, problem = None, ""
        try:
            run = Run(
                experiment.at(arrived(experiment, folder, images)), folder, dist.device(), journal, experiment.total
            )
        except (ValueError, OSError) as error:
            problem = str(error)
        found = causes(dist.texts(problem))
        if run is None or found:
            return refuse(folder, found)
        try:
            wish = play(run, signals)
        finally:
            with suppress(OSError):  # whatever has happened, what was begun to be written is worth finishing
                run.writer.finish()
        if wish or run.images >= experiment.total:
            return exit_code(wish) if wish else 0
        images = run.images


def appearances(experiment: Experiment, folder: Path, journal: Journal) -> None:
    """Cluster the instance features of a run that is at its end, once."""
    path = checkpoint.newest(folder)
    if path is None or int(path.name) < experiment.total or (path / features.FILE).is_file():
        return
    try:
        cluster(path / generator.FILE, experiment.config.data)
    except (ValueError, OSError, torch.OutOfMemoryError) as error:
        journal.say(f"features are not clustered ({error}); when that is mended: python -m launch.cluster {folder}")


def refuse(folder: Path, found: Sequence[str]) -> int:
    """Say once why no rank starts, which starting again does not mend."""
    if dist.main():
        for cause in found:
            fail(cause)
        if status.held(folder) and status.read(folder).get("pid") == os.getpid():
            status.write(folder, "failed", why="; ".join(found))
    give_up()
    return 2


def play(run: Run, signals: Signals) -> int:
    """Train to the end of a stage, or until a signal, which is returned."""
    if run.images >= run.total:
        run.say(f"{run.folder}: already trained to {run.images:,} images")
        if dist.main():
            status.write(run.folder, "finished", images=run.images, total=run.total)
        return 0
    if run.images:
        run.say(f"resuming after {run.images:,} images{run.experiment.name}")
    signals.training()
    wish = run.go(signals.wish)
    if wish:
        run.say(
            f"stopped by {signal.Signals(wish).name} after {run.images:,} images; the same command goes on from there"
        )
    return wish


def explain(error: RuntimeError, log: Path) -> str:
    """The gist of an error that is not the user's doing, for the console; its whole story is in the log."""
    if isinstance(error, torch.OutOfMemoryError):
        return f"out of memory on {dist.device()}; use data.micro, or a smaller data.batch"
    gone = td.DistNetworkError, td.DistStoreError
    lost = isinstance(error, gone) or "gloo" in str(error)
    gist = "lost the others; the first line of one of them says why" if lost else str(error).partition("\n")[0]
    return f"rank {dist.rank()} on {dist.host()}: {gist} (see {log})"


def failed(folder: Path, journal: Journal, why: str, code: int) -> int:
    """Note why this rank ends, and say it."""
    fail(why)
    journal.note(why)
    if dist.main():
        with suppress(OSError):  # of a full disk
            status.write(folder, "failed", why=why)
    if code != AGAIN:
        give_up(alike=False)
    return code


def fail(why: str) -> None:
    """One line on stderr."""
    print(f"p2p-train: {why}".replace("\n", "; "), file=sys.stderr, flush=True)


def leave(code: int) -> None:
    """End the process; gloo's threads now and then abort one that ends by itself after all is done."""
    sys.stdout.flush()
    sys.stderr.flush()
    if dist.launched():
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    leave(main())
