"""Translate pictures with a trained generator: `python -m launch.translate runs/bags photos/ --out translated`."""

import argparse
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from launch.argv import Parser
from p2p import gallery, generator, result
from p2p.generator import Generator
from p2p.pictures import Reader, Source, open_sources
from p2p.result import KINDS
from p2p.translate import Bad, Done, many, sizes, translate

BAD_SHOWN = 20
QUIET_S = 5.0
"""A log gets a line of progress at most this often."""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    p = Parser(
        prog="p2p-translate",
        description="Translate pictures with a trained generator, and write a page to look at them.",
        epilog="Exit codes: 0 all translated, 2 something could not be read or a mistake, 130 interrupted.",
    )
    p.add_argument("checkpoint", type=Path, help="run folder, checkpoint folder or generator.safetensors")
    p.add_argument("inputs", type=Path, nargs="+", metavar="INPUT", help="pictures, folders of them, shard sets")
    p.add_argument("--out", type=Path, required=True, help="folder of the result: index.html and PNG files")
    p.add_argument("--overwrite", action="store_true", help="replace an earlier result in OUT")
    p.add_argument(
        "--pairs", choices=("left", "right"), default="", help="pictures hold both sides; input is this half"
    )
    p.add_argument(
        "--reverse", action=argparse.BooleanOptionalAction, help="of shard sets, translate y -> x (as in training)"
    )
    p.add_argument(
        "--size",
        type=_positive,
        default=0,
        metavar="N",
        help="resize to NxN pixels first (pictures as they are, shards as in training)",
    )
    p.add_argument("--batch", type=_positive, default=8, metavar="N", help="changes speed only (%(default)s)")
    stored = p.add_argument_group("how the generator is used, if not as stored with it")
    stored.add_argument("--dropout", choices=("on", "off"))
    stored.add_argument("--seed", type=_count, metavar="N", help="of dropout")
    stored.add_argument("--statistics", choices=("batch", "running"), help="that its norms use")
    return p


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number >= 0")
    return int(text)


def _positive(text: str) -> int:
    if not _count(text):
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 all is translated, 2 a mistake or a picture that cannot be read, 130 interrupted."""
    args = parser().parse_args(argv)
    warnings.filterwarnings("ignore", module="PIL")  # doubts about odd metadata; what fails is reported
    try:
        return work(args)
    except torch.OutOfMemoryError:
        return fail("too little memory on the device; try --batch 1, or a smaller --size")
    except (ValueError, OSError) as error:
        return fail(" ".join(str(error).split("\n")))
    except KeyboardInterrupt:
        print(f"interrupted; {args.out} is incomplete, --overwrite starts anew", file=sys.stderr)
        return 130


def work(args: argparse.Namespace) -> int:
    """Everything that can be wrong is looked at before the first file is written."""
    args.checkpoint = generator.find(args.checkpoint)  # once: a run that goes on makes newer ones
    G = prepare(args)
    channels = G.spec.channels[0], G.spec.channels[-1]
    reverse = G.spec.reverse if args.reverse is None else args.reverse
    shard_size = args.size or (G.spec.crop if G.spec.resized else 0)  # shards as validation had them
    sources = open_sources(args.inputs, Reader(channels, args.pairs, args.size, shard_size, reverse))
    check(args, sources, channels)
    result.claim(args.out, args.inputs, overwrite=args.overwrite)
    introduce(G, sources)
    entries = (entry for source in sources for entry in source.entries)
    answers = translate(G, entries, args.out, batch=args.batch)
    everything = list(progress(answers, total=sum(source.count for source in sources)))
    done = [one for one in everything if isinstance(one, Done)]
    bad = [one for one in everything if isinstance(one, Bad)]
    facts = describe(args, G, done, bad)
    gallery.write(args.out, [row(one) for one in done], title(args.checkpoint), facts)
    result.write_json(args.out, {"complete": True, **facts, **summary(done, bad)})
    return report(args, G, done, bad)


def introduce(G: Generator, sources: Sequence[Source]) -> None:
    """Print what is about to be done."""
    passed_over = sum(source.passed_over for source in sources)
    if passed_over:
        files = "file that is no picture" if passed_over == 1 else "files that are no pictures"
        print(f"passed over {passed_over} {files} by name")
    print(f"{many(sum(source.count for source in sources))}, {mode(G)}, on {G.device}", flush=True)


def mode(G: Generator) -> str:
    """The inference mode in words."""
    dropout = f"dropout on, seed {G.inference.seed}" if G.inference.dropout else "dropout off"
    return f"{dropout}, {'running' if G.inference.statistics == 'running' else 'batch'} statistics"


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


def check(args: argparse.Namespace, sources: Sequence[Source], channels: tuple[int, int]) -> None:
    """Raises:
    ValueError: options do not go with what was given.
    """
    if not {1, 3}.issuperset(channels):
        raise ValueError(f"{args.checkpoint}: makes {channels[0]} -> {channels[1]} channels; pictures have 1 or 3")
    if args.reverse and not any(source.shards for source in sources):
        raise ValueError("--reverse: is for shard sets; say with --pairs left or right which half is the input")
    if args.pairs and all(source.shards for source in sources):
        raise ValueError("--pairs: is for picture files; a shard set knows its sides, leave --pairs out")


def progress(items: Iterable[Done | Bad], *, total: int) -> Iterator[Done | Bad]:
    """Pass the items on; on stderr a bar, or where that is no terminal a line now and then."""
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc="translated", unit=" pictures")
        return
    said_s = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - said_s >= QUIET_S and count < total:
            print(f"translated {count} of {total} pictures", file=sys.stderr, flush=True)
            said_s = time.monotonic()


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


def describe(args: argparse.Namespace, G: Generator, done: Sequence[Done], bad: Sequence[Bad]) -> dict[str, str]:
    """The head line of the page."""
    rated = [one.l1 for one in done if one.l1 is not None]
    facts = {
        "pictures": f"{len(done):,}" + (f" ({len(bad):,} could not be read)" if bad else ""),
        "mean L1": f"{sum(rated) / len(rated):.4f}" if rated else "",
        "inference": mode(G),
        "size": f"resized to {args.size}x{args.size}" if args.size else "",
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


def report(args: argparse.Namespace, G: Generator, done: Sequence[Done], bad: Sequence[Bad]) -> int:
    """Say what was done; the exit code."""
    for one in bad[:BAD_SHOWN]:
        print(f"{one.source}: {one.reason}", file=sys.stderr)
    if len(bad) > BAD_SHOWN:
        print(f"... and {len(bad) - BAD_SHOWN} more, see {args.out / result.FILE}", file=sys.stderr)
    if done:
        print(sizes(done))
    others = [one for one in done if one.size != (G.spec.crop, G.spec.crop)]
    if others and not args.size:
        print(f"trained on {G.spec.crop}x{G.spec.crop} pixels; --size {G.spec.crop} resizes to that first")
    rated = [one.l1 for one in done if one.l1 is not None]
    if rated:
        print(f"mean L1 {sum(rated) / len(rated):.4f} in units of [0, 1] over {len(rated)} with a target")
    print(f"translated {len(done)} of {len(done) + len(bad)}: {args.out / gallery.PAGE}", flush=True)
    return 2 if bad else 0


def fail(error: str) -> int:
    """One line on stderr."""
    print(f"p2p-translate: {error}", file=sys.stderr, flush=True)
    return 2


if __name__ == "__main__":
    sys.exit(main())
