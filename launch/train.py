"""Train: `python -m launch.train --config configs/edges2handbags.yaml --run runs/bags`, alone or under torchrun."""

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path

import torch
import torch.distributed as td

from launch.argv import Parser
from launch.muster import causes, identity, muster
from launch.process import Signals, exit_code, give_up, reproducible
from p2p import config as conf
from p2p import dist, status
from p2p.build import plan
from p2p.log import Journal, NonFiniteError
from p2p.plan import Plan
from p2p.resume import difference, resumable
from p2p.run import Run


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
    """Exit codes: 0 trained, or stopped by USR1 after a checkpoint; 1 a loss was not finite, or other ranks were lost;
    2 a mistake in what was given (one line); 130 and 143 stopped by INT and TERM after a checkpoint."""
    args = parser().parse_args(argv)
    with Signals() as signals, ExitStack() as held:
        made, problem = None, ""
        try:
            made = prepare(args)
            if dist.main() and not args.dry_run:
                held.callback(status.hold(args.run).release)
        except (ValueError, OSError) as error:
            problem = str(error)
        store = agree(args, made, problem)
        if made is None or store is None:
            return 2
        if dist.main():
            introduce(made, args.run, difference(args.run, made.config))
        return 0 if args.dry_run else work(made, args.run, store, signals)


def prepare(args: argparse.Namespace) -> Plan:
    """Find every mistake that can be found before training."""
    made = plan(conf.load(args.config, args.overrides), dist.world(), dist.device())
    resumable(made, args.run)
    return made


def agree(args: argparse.Namespace, made: Plan | None, problem: str) -> td.Store | None:
    """The store of the ranks if all may start; if not, the main one says why."""
    store: td.Store = td.HashStore()
    found, alike = [problem] if problem else [], True
    if dist.launched() and not args.dry_run:
        try:
            store, found = muster(problem, identity(made, args.run) if made else {})
        except ValueError as error:  # the ranks do not find each other, so each speaks for itself
            found, alike = [str(error)], False
    if found:
        refuse(found, everyone=not alike)
    return None if found else store


def introduce(made: Plan, folder: Path, changed: Sequence[str]) -> None:
    """Print the settings and what was derived from them."""
    print(conf.dump(made.config), made.describe(), sep="\n", flush=True)
    for line in changed:
        print(f"changed since the checkpoint in {folder}: {line}", flush=True)


def work(made: Plan, folder: Path, store: td.Store, signals: Signals) -> int:
    """Join the process group, train, leave it."""
    device = dist.device()
    journal = Journal(folder, dist.rank(), lambda line: print(line, flush=True))
    journal.note(f"rank {dist.rank()} of {dist.world()} on {dist.host()}, process {os.getpid()}, {device}")
    dist.start(device, store, alone=made.config.engine.name == "deepspeed")
    try:
        with reproducible(device) if made.config.engine.reduction == "exact" else nullcontext():
            run = resume(made, folder, journal)
            return play(run, signals) if run else 2
    except (ValueError, OSError) as error:
        return failed(folder, journal, str(error), 2)
    except dist.ElsewhereError:
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
        return failed(folder, journal, explain(error, journal.path), 1, again=True)
    finally:
        dist.stop()


def resume(made: Plan, folder: Path, journal: Journal) -> Run | None:
    """The run, if every rank can go on with it; if not, the main one says why."""
    run, problem = None, ""
    try:
        run = Run(made, folder, dist.device(), journal)
    except (ValueError, OSError) as error:
        problem = str(error)
    found = causes(dist.texts(problem))
    if found:
        refuse(found)
    return None if found else run


def refuse(causes: Sequence[str], *, everyone: bool = False) -> None:
    """Say why the ranks end, once; what starting again does not mend."""
    for cause in causes if everyone or dist.main() else []:
        fail(cause)
    give_up()


def play(run: Run, signals: Signals) -> int:
    """Train to the end, or until a signal."""
    if run.images >= run.plan.total:
        run.say(f"{run.folder}: already trained to {run.images:,} images")
        return 0
    if run.images:
        run.say(f"resuming after {run.images:,} images")
    signals.training()
    wish = run.go(signals.wish)
    if wish:
        run.say(
            f"stopped by {signal.Signals(wish).name} after {run.images:,} images; the same command goes on from there"
        )
    return exit_code(wish) if wish else 0


def explain(error: RuntimeError, log: Path) -> str:
    """The gist of an error that is not the user's doing, for the console; its whole story is in the log."""
    if isinstance(error, torch.OutOfMemoryError):
        return f"out of memory on {dist.device()}; use data.micro, or a smaller data.batch"
    lost = isinstance(error, td.DistError) or "gloo" in str(error)
    gist = "lost the others; the first line of one of them says why" if lost else str(error).splitlines()[0]
    return f"rank {dist.rank()} on {dist.host()}: {gist} (see {log})"


def failed(folder: Path, journal: Journal, why: str, code: int, *, again: bool = False) -> int:
    """Note why this rank ends, and say it; `again` if torchrun may try again."""
    journal.note(why)
    if not again:
        give_up()
    if dist.main():
        status.write(folder, "failed", why=why)
    fail(why)
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
