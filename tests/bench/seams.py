"""What tiling costs in quality, for a trained generator: `python -m tests.bench.seams GENERATOR INPUT`.

INPUT is a shard set or a picture. Against the result of the whole picture: the mean |difference| in units of [0, 1],
all over, within 8 pixels of the windows' edges, and elsewhere; and the jump, the mean |difference| of neighbouring
pixels across these edges, in units of that elsewhere, of the tiled result and of the whole one at the same places.

Norms that measure the picture see a window at a time. The second half of the table has them use what they measured of
the whole picture, so what is left there is blending, cut receptive fields, and dropout, whose masks belong to places in
the map.
"""

import argparse
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import p2p
from p2p.data.augment import Augment
from p2p.data.format import INDEX
from p2p.data.shardset import ShardSet
from p2p.data.views import View, pixels
from p2p.generator import Generator
from p2p.networks.norm import GroupedBatchNorm
from p2p.tiles import Size, check, tiled, windows
from tests.bench import machine

NEAR = 8


def samples(path: Path, G: Generator, size: Size | None, count: int) -> Iterator[dict[str, Tensor]]:
    """Batches of one, as the reader has them."""
    if (path / INDEX).is_file():
        shards = ShardSet(str(path), G.spec.reverse)
        places = [(s, n) for s, many in enumerate(shards.counts) for n in range(many)]
        found = (shards.read(*place)[1] for place in places[:count])
    elif G.spec.view != View() or G.encoder:
        raise SystemExit("this generator wants labels, instances or features: give a shard set")
    else:
        found = iter([{"x": pixels(Image.open(path), G.spec.pictures[0])}])
    for members in found:
        if size:
            members = Augment(size, size, mirror=False, train=False, masks=G.spec.view.masks)(members, 0)
        yield {name: member[None] for name, member in members.items()}


@torch.no_grad()
def remember(G: Generator, x: Tensor, features: Tensor | None) -> Generator:
    """A copy of G with the statistics that its norms have on this picture."""
    own = Generator(deepcopy(G.net), G.spec, replace(G.inference, statistics="batch"))
    norms = [m for m in own.net.modules() if isinstance(m, GroupedBatchNorm)]
    for norm in norms:
        norm.measured = []
    own(x, features)
    for norm in norms:
        if norm.measured:  # an encoder's norms were not asked
            norm.running_mean.copy_(norm.measured[0][0])
            norm.running_var.copy_(norm.measured[0][1])
        norm.measured = None
    own.inference = replace(G.inference, statistics="running")
    return own


def edges(side: int, tile: int, overlap: int, multiple: int) -> Tensor:
    """Where windows begin and end inside a side."""
    found = windows(side, tile, overlap, multiple)
    return torch.tensor(sorted({w.start for w in found[1:]} | {w.stop for w in found[:-1]}), dtype=torch.long)


def near(side: int, at: Tensor) -> Tensor:
    """Which pixels of a side lie within `NEAR` of an edge."""
    centre = torch.arange(side) + 0.5
    return ((centre[:, None] - at).abs() <= NEAR).any(1)


def jump(y: Tensor, at: tuple[Tensor, Tensor]) -> float:
    """See the head of this file."""
    across, along = [], []
    for axis, lines in zip((-2, -1), at, strict=True):
        steps = y.diff(dim=axis).abs().movedim(axis, 0)
        chosen = torch.zeros(len(steps), dtype=torch.bool)
        chosen[lines - 1] = True
        across.append(steps[chosen].flatten())
        along.append(steps[~chosen].flatten())
    return float(torch.cat(across).mean() / torch.cat(along).mean())


def measure(G: Generator, seen: tuple[Tensor, Tensor | None], whole: Tensor, tile: Size, overlap: int) -> list[float]:
    """Difference all over, near edges, elsewhere; jump, and jump of the whole picture's result."""
    x, features = seen
    size, multiple = (x.shape[-2], x.shape[-1]), int(G.net.size)
    result = tiled(
        lambda r, c: G(x[..., r, c], None if features is None else features[..., r, c]),
        size, tile=tile, overlap=overlap, multiple=multiple,
    )  # fmt: skip
    at = tuple(edges(side, t, overlap, multiple) for side, t in zip(size, tile, strict=True))
    close = near(size[0], at[0])[:, None] | near(size[1], at[1])
    off = (result - whole).abs() / 2
    return [*(float(part.mean()) for part in (off, off[..., close], off[..., ~close])), jump(result, at),
            jump(whole, at)]  # fmt: skip


def halves(size: Size, multiple: int) -> Size:
    """A tile of half the picture's sides, rounded up, and not less than a network can take."""
    h, w = (max(-(-side // 2 // multiple), 2) * multiple for side in size)
    return h, w


def sides(text: str) -> Size:
    h, _, w = text.partition("x")
    return int(h), int(w or h)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generator", type=Path, help="run, checkpoint or generator.safetensors")
    parser.add_argument("input", type=Path, help="shard set or picture")
    parser.add_argument("--tile", type=sides, metavar="HxW", help="half the picture's sides")
    parser.add_argument("--overlaps", type=int, nargs="+", default=[0, 32, 64, 128])
    parser.add_argument("--size", type=sides, metavar="HxW", help="resize to this first")
    parser.add_argument("--count", type=int, default=1, help="samples of a shard set (%(default)s)")
    parser.add_argument("--dropout", choices=("on", "off"), help="as stored")
    args = parser.parse_args()
    G = p2p.load(args.generator, "cuda" if torch.cuda.is_available() else "cpu")
    if args.dropout:
        G.inference = replace(G.inference, dropout=args.dropout == "on")
    batches = list(samples(args.input, G, args.size, args.count))
    print(f"{args.generator}: {G.spec.name} G {dict(G.spec.settings)}, {G.inference}; on {machine()}")
    report(G, batches, args.tile, args.overlaps)


def possible(overlaps: list[int], tile: Size, multiple: int) -> Iterator[int]:
    """Those overlaps that the windows can have; of others, why not."""
    for overlap in overlaps:
        try:
            check(tile, overlap, multiple)
            yield overlap
        except ValueError as error:
            print(f"left out: {error}")


def report(G: Generator, batches: list[dict[str, Tensor]], tile: Size | None, overlaps: list[int]) -> None:
    """The table: means over the pictures."""
    rows: dict[tuple[str, int], list[list[float]]] = {}
    for batch in batches:
        named = G.spec.view.encode({name: value.to(G.device) for name, value in batch.items()})
        seen = named["x"], G.encode(named["y"], named["instances"]) if G.encoder else None
        size, multiple = (seen[0].shape[-2], seen[0].shape[-1]), int(G.net.size)
        used = tile or halves(size, multiple)
        print(f"picture of {size[0]}x{size[1]}, windows of {used[0]}x{used[1]} at multiples of {multiple}")
        tried = list(possible(overlaps, used, multiple))
        for name, own in (("as it is", G), ("statistics of the whole", remember(G, *seen))):
            whole = own(*seen).cpu()
            for overlap in tried:
                rows.setdefault((name, overlap), []).append(measure(own, seen, whole, used, overlap))
    print("| norms | overlap, at least | difference | near edges | elsewhere | jump | jump of the whole |")
    print("|---|---|---|---|---|---|---|")
    for (name, overlap), found in rows.items():
        off, close, far, *jumps = torch.tensor(found).mean(0).tolist()
        print(f"| {name} | {overlap} | {off:.4f} | {close:.4f} | {far:.4f} | {jumps[0]:.2f} | {jumps[1]:.2f} |")


if __name__ == "__main__":
    main()
