"""Translate pictures with a trained generator: `python -m launch.translate runs/bags photos/ --out translated`."""

import argparse
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from launch.progress import progress
from launch.translate_arguments import check_options, check_sources, features_of, in_words, parser
from p2p import features, gallery, generator, result
from p2p.appearance import Teller
from p2p.data.augment import sides
from p2p.generator import Generator
from p2p.made import Bad, How
from p2p.members import Reader
from p2p.noise import is_noisy
from p2p.pictures import Source, beside, open_sources
from p2p.result import KINDS
from p2p.translate import Done, many, sizes, translate

BAD_SHOWN = 20


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 all is translated, 2 a mistake or a picture that cannot be read, 130 interrupted."""
    args = parser().parse_args(argv)
    warnings.filterwarnings("ignore", module="PIL")  # doubts about odd metadata; what fails is reported
    try:
        return work(args)
    except torch.OutOfMemoryError:
        return fail("too little memory on the device; try --batch 1, --tile 512, or a smaller --size")
    except (ValueError, OSError) as error:
        return fail(" ".join(str(error).split("\n")))
    except KeyboardInterrupt:
        print(f"interrupted; {args.out} is incomplete, --overwrite starts anew", file=sys.stderr)
        return 130


def work(args: argparse.Namespace) -> int:
    """Everything that can be wrong is looked at before the first file is written."""
    args.checkpoint = generator.find(args.checkpoint, args.generator)  # once: a run that goes on makes newer ones
    G = prepare(args)
    check_options(args, G.spec)
    sources = open_sources(args.inputs, reader(args, G))
    check_sources(args, sources, G.spec)
    how = ways(args, G, sources)
    result.claim(args.out, [*args.inputs, *filter(None, (args.instances, args.targets))], overwrite=args.overwrite)
    introduce(how, sources)
    total = sum(source.count for source in sources)
    answers = translate(how, (entry for source in sources for entry in source.entries), args.out)
    everything = list(progress(answers, total=total, done="translated", unit="pictures"))
    done = [one for one in everything if isinstance(one, Done)]
    bad = [one for one in everything if isinstance(one, Bad)]
    facts = describe(args, how, done, bad)
    gallery.write(args.out, [row(one) for one in done], title(args.checkpoint), facts)
    result.write_json(args.out, {"complete": True, **facts, **summary(done, bad)})
    return report(args, how, done, bad)


def reader(args: argparse.Namespace, G: Generator) -> Reader:
    """How files and shards are read."""
    reverse = G.spec.reverse if args.reverse is None else args.reverse
    shard_size = args.size or (G.spec.crop if G.spec.resized else 0)  # shards as validation had them
    folders = {"instances": args.instances, "y": args.targets}
    found = {member: beside(member, folder) for member, folder in folders.items() if folder}
    return Reader(G.spec, args.pairs, args.size, shard_size, reverse, found)


def ways(args: argparse.Namespace, G: Generator, sources: Sequence[Source]) -> How:
    """How pictures are made, as it was asked for.

    Raises:
        ValueError: features are needed and no clusters are there, or tiles do not fit the generator.
    """
    tell = teller(args, G, sources)
    try:
        # Whole pictures that are read ahead and written are in memory, too, a few times as many as share a forward.
        return How(G, 1 if args.tile else args.batch, tell, sides(args.tile) if args.tile else None)
    except ValueError as error:
        raise ValueError(f"--{error}") from error


def teller(args: argparse.Namespace, G: Generator, sources: Sequence[Source]) -> Teller | None:
    """Who tells G the features, where it was trained with them."""
    if not G.spec.encoder:
        return None
    how = features_of(args, sources)
    chosen = how != "real" or args.edit
    centres = features.read(args.checkpoint.parent, G.spec.encoder.channels[1]) if chosen else {}
    return Teller(G, centres, how, G.inference.seed, dict(args.edit))


def introduce(how: How, sources: Sequence[Source]) -> None:
    """Print what is about to be done."""
    passed_over = sum(source.passed_over for source in sources)
    if passed_over:
        what = "label map" if how.generator.spec.view.classes else "picture"
        files = f"file that is no {what}" if passed_over == 1 else f"files that are no {what}s"
        print(f"passed over {passed_over} {files} by name")
    pictures = many(sum(source.count for source in sources))
    print(f"{pictures}, {mode(how.generator)}, on {how.generator.device}", flush=True)


def mode(G: Generator) -> str:
    """The inference mode in words."""
    dropout = f"dropout on, seed {G.inference.seed}, " if G.inference.dropout else "dropout off, "
    return f"{dropout * is_noisy(G.net)}{'running' if G.inference.statistics == 'running' else 'batch'} statistics"


def prepare(args: argparse.Namespace) -> Generator:
    """The generator in the inference mode that was asked for.

    Raises:
        ValueError: there is none, or it has no running averages and shall use them.
    """
    cuda = torch.cuda.is_available()
    torch.backends.cudnn.allow_tf32 = False  # rounding to 10 bits would show which batch a picture was in
    G = generator.load(args.checkpoint, "cuda" if cuda else "cpu")
    dropout = {"on": True, "off": False}.get(args.dropout)
    asked = {"dropout": dropout, "seed": args.seed, "statistics": args.statistics}
    G.inference = replace(G.inference, **{name: v for name, v in asked.items() if v is not None})
    if G.inference.statistics == "running" and not _measured(G):
        raise ValueError(
            f"{args.checkpoint}: --statistics running needs averages, and none were measured when this generator "
            "was stored; use --statistics batch, or train with inference.statistics: running"
        )
    return G


def _measured(G: Generator) -> bool:
    """Whether some running average is not what it is at first, 0 or 1."""
    first = {"running_mean": 0, "running_var": 1}
    averages = [(b, first.get(name.rpartition(".")[2])) for name, b in G.net.named_buffers()]
    known = [(values, start) for values, start in averages if start is not None]
    return not known or any(bool((values != start).any()) for values, start in known)


def row(one: Done) -> gallery.Row:
    """A translation as the page shows it."""
    links = [f"{kind}/{one.name}.png" for kind in KINDS]
    return gallery.Row(one.name, links if one.l1 is not None else [*links[:2], ""], one.size, one.l1)


def title(checkpoint: Path) -> str:
    """What the page is called: the run, and how far it was trained."""
    folder = checkpoint.resolve().parent
    if folder.parent.name == "checkpoints" and folder.name.isdecimal():
        return f"{folder.parents[1].name} after {int(folder.name):,} images"
    return folder.name


def describe(args: argparse.Namespace, how: How, done: Sequence[Done], bad: Sequence[Bad]) -> dict[str, str]:
    """The head line of the page."""
    rated = [one.l1 for one in done if one.l1 is not None]
    tiles = f"of {in_words(args.tile)}, at least {how.overlap} pixels in common" if how.tile else ""
    facts = {
        "pictures": f"{len(done):,}" + (f" ({len(bad):,} could not be read)" if bad else ""),
        "mean L1": f"{sum(rated) / len(rated):.4f}" if rated else "",
        "inference": mode(how.generator),
        "features": how.tell.describe() if isinstance(how.tell, Teller) else "",
        "size": f"resized to {in_words(args.size)}" if args.size else "",
        "tiles": tiles,
        "checkpoint": str(args.checkpoint.parent),
    }
    return {name: value for name, value in facts.items() if value}


def summary(done: Sequence[Done], bad: Sequence[Bad]) -> dict[str, Any]:
    """Every picture, for programs."""
    keys = ("name", "source", "width", "height", "l1")
    values = ((one.name, one.source, one.size[1], one.size[0], one.l1) for one in done)
    return {
        "translated": [dict(zip(keys, v, strict=True)) for v in values],
        "bad": [b._asdict() for b in bad],
    }


def report(args: argparse.Namespace, how: How, done: Sequence[Done], bad: Sequence[Bad]) -> int:
    """Say what was done; the exit code."""
    for one in bad[:BAD_SHOWN]:
        print(f"{one.source}: {one.reason}", file=sys.stderr)
    if len(bad) > BAD_SHOWN:
        print(f"... and {len(bad) - BAD_SHOWN} more, see {args.out / result.FILE}", file=sys.stderr)
    in_vain = isinstance(how.tell, Teller) and doubts(how.tell)
    if done:
        print(sizes(done))
    spec = how.generator.spec
    if any(one.size != spec.size for one in done) and not args.size:
        hint = f"{spec.size[0]}" if isinstance(spec.crop, int) else "x".join(map(str, spec.size))
        print(f"trained on {in_words(spec.crop)} pixels; --size {hint} resizes to that first")
    rated = [one.l1 for one in done if one.l1 is not None]
    if rated:
        print(f"mean L1 {sum(rated) / len(rated):.4f} in units of [0, 1] over {len(rated)} with a target")
    print(f"translated {len(done)} of {len(done) + len(bad)}: {args.out / gallery.PAGE}", flush=True)
    return 2 if bad or in_vain else 0


def doubts(tell: Teller) -> bool:
    """Say which classes have no clusters, and which instances no picture has; whether there is one of these."""
    if tell.unknown:
        classes = ", ".join(map(str, sorted(tell.unknown)))
        print(f"no clusters of class {classes}; the features of its instances are 0", file=sys.stderr)
    in_vain = sorted(set(tell.edits) - tell.edited)
    for instance in in_vain:
        print(f"--edit {instance}={tell.edits[instance]}: no picture has this instance", file=sys.stderr)
    return bool(in_vain)


def fail(error: str) -> int:
    """One line on stderr."""
    print(f"p2p-translate: {error}", file=sys.stderr, flush=True)
    return 2


if __name__ == "__main__":
    sys.exit(main())
