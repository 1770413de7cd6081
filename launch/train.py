"""Train: `python -m launch.train --config configs/edges2handbags.yaml --run runs/bags`, alone or under torchrun."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from launch.argv import Parser
from p2p import config as conf
from p2p import dist
from p2p.build import Plan, plan
from p2p.log import NonFiniteError
from p2p.run import Run, difference, resumable


def parser() -> argparse.ArgumentParser:
    """The whole command line; settings belong into the YAML file."""
    p = Parser(prog="p2p-train", description="Train image translation from tar shards.")
    p.add_argument("--config", required=True, help="YAML file of settings, see configs/")
    p.add_argument("--run", required=True, type=Path, help="folder of the run; the same command again goes on with it")
    p.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.NAME=VALUE")
    p.add_argument("--dry-run", action="store_true", help="check everything, print the settings and the plan, and end")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 trained, 1 a loss was not finite, 2 a mistake in what was given (one line), 130 interrupted."""
    args = parser().parse_args(argv)
    device = dist.device()
    try:
        config = conf.load(args.config, args.overrides)
        made = plan(config, dist.world(), device)
        resumable(made, args.run)
        changed = difference(args.run, config)
        if not args.dry_run:
            args.run.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        return fail(error, everyone=False)
    if dist.main():
        introduce(made, args.run, changed)
    return 0 if args.dry_run else work(made, args.run)


def introduce(made: Plan, folder: Path, changed: Sequence[str]) -> None:
    """Print the settings and what was derived from them."""
    print(conf.dump(made.config), made.describe(), sep="\n", flush=True)
    for line in changed:
        print(f"changed since the checkpoint in {folder}: {line}", flush=True)


def work(made: Plan, folder: Path) -> int:
    """Join the process group, train, leave it."""
    device = dist.device()
    dist.start(device)
    try:
        run = Run(made, folder, device, say)
        if run.images >= made.total:
            say(f"{folder}: already trained to {run.images:,} images") if dist.main() else None
            return 0
        if run.images:
            run.say(f"resuming after {run.images:,} images")
        run.go()
        return 0
    except (ValueError, OSError) as error:
        return fail(error)
    except dist.ElsewhereError:
        return 2
    except NonFiniteError as error:
        say(f"p2p-train: {error}; the last good checkpoint in {folder} stays")
        return 1
    except RuntimeError as error:
        if dist.world() == 1 or "gloo" not in str(error):
            raise
        print(f"p2p-train: rank {dist.rank()} lost the others; the first line of one of them says why", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"p2p-train: interrupted; the same command goes on from the last checkpoint in {folder}", file=sys.stderr)
        return 130
    finally:
        dist.stop()


def say(line: str) -> None:
    """A line for the reader."""
    print(line, flush=True)


def fail(error: Exception, *, everyone: bool = True) -> int:
    """One line on stderr; what every rank finds alike is said by the main one only."""
    if everyone or dist.main():
        print(f"p2p-train: {error}".replace("\n", "; "), file=sys.stderr, flush=True)
    return 2


if __name__ == "__main__":
    sys.exit(main())
