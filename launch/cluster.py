"""Cluster the instance features of a trained generator: `python -m launch.cluster runs/streets`."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from launch.argv import Parser, positive
from launch.progress import progress
from p2p import config as conf
from p2p import features, generator
from p2p.features import Centres, Gathered
from p2p.pictures import check_shards
from p2p.sets import open_sets


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    p = Parser(
        prog="p2p-cluster",
        description="Cluster what the encoder makes of the training set's instances, for each class, so that "
        "p2p-translate can choose an appearance where there is no photograph.",
        epilog="Exit codes: 0 done, 2 a mistake, 130 interrupted.",
    )
    p.add_argument("run", type=Path, metavar="RUN", help="run folder or checkpoint folder; gets clusters.json")
    p.add_argument(
        "--clusters", type=positive, default=features.CLUSTERS, metavar="N", help="for each class (%(default)s)"
    )
    p.add_argument("--shards", type=Path, metavar="FOLDER", help="training set, if not the one of the training")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 2 a mistake in what was given, 130 interrupted."""
    args = parser().parse_args(argv)
    try:
        work(args)
    except torch.OutOfMemoryError:
        return fail("too little memory on the device")
    except (ValueError, OSError) as error:
        return fail(" ".join(str(error).split("\n")))
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


def work(args: argparse.Namespace) -> None:
    """Cluster what was asked for."""
    file = generator.find(args.run)
    given = conf.Data(train=str(args.shards)) if args.shards else trained_on(file.parent)
    cluster(file, given, args.clusters)


def cluster(file: Path, data: conf.Data, clusters: int = features.CLUSTERS) -> None:
    """Gather the features of the training set, cluster them, write, say what was found.

    Raises:
        ValueError: there is nothing to cluster, or nothing to cluster with.
    """
    G = generator.load(file, "cuda" if torch.cuda.is_available() else "cpu")
    if not G.encoder:
        raise ValueError(f"{file}: this G was trained without instance features; there is nothing to cluster")
    features.kmeans()  # if there is one, before all the work
    shards = open_sets(replace(data, reverse=G.spec.reverse))
    check_shards(shards, G.spec)
    count = sum(shards.counts)
    print(f"{count:,} pictures of {shards.folder}, on {G.device}", flush=True)
    batches = features.every(G.spec, shards, lambda line: print(line, file=sys.stderr))
    steps = -(-count // features.at_once(G.spec))
    gathered = features.collect(G, progress(batches, total=steps, done="encoded", unit="batches"))
    centres = features.fit(gathered, clusters)
    say(gathered, centres)
    print(f"wrote {features.write(file.parent, centres, clusters)}", flush=True)


def trained_on(folder: Path) -> conf.Data:
    """The training set that a checkpoint names.

    Raises:
        ValueError: it says nothing.
    """
    file = folder / "config.yaml"
    if not file.is_file():
        raise ValueError(f"{file}: no such file to name the training set; give it with --shards")
    return conf.load(file).data


def say(gathered: Mapping[int, Gathered], centres: Centres) -> None:
    """A line for each class."""
    for number, found in sorted(gathered.items()):
        print(f"class {number:3}: {len(found.areas):7,} instances, {len(centres[number]):3} clusters")


def fail(error: str) -> int:
    """One line on stderr."""
    print(f"p2p-cluster: {error}", file=sys.stderr, flush=True)
    return 2


if __name__ == "__main__":
    sys.exit(main())
