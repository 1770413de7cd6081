"""A page of pairs as training gets them, in its order and after its jitter: `python -m shards.show SET --out FILE`.

One HTML file with the pictures in it. Exit codes: 0 written, 2 a mistake, 130 interrupted.
"""

import argparse
import re
import sys
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, StrictUndefined
from PIL import Image
from torch import Tensor

from p2p.data.augment import Augment, Size, sides
from p2p.data.order import Order
from p2p.data.orders import lanes_for
from p2p.data.shardset import ShardSet
from p2p.data.views import View, boundaries, painted, rgb
from shards.argv import Parser, count, positive
from shards.writer import aside

SOURCE = 256
"""Side, pixels, at most, of a picture as it lies in the set."""


class Picture(NamedTuple):
    """A picture in the page."""

    data: str
    """As a `data:` URI."""
    width: int
    height: int


@dataclass(frozen=True)
class Card:
    """One pair of the page."""

    position: int
    epoch: int
    step: int
    place: str
    """Shard and number of the sample."""
    key: str
    hole: str = ""
    """Why it cannot be read; empty where it can."""
    size: str = ""
    """Height and width of a side as it lies in the set, pixels."""
    fed: Mapping[str, Picture] = field(default_factory=dict)
    source: Sequence[Picture] = ()


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        show(args)
    except KeyboardInterrupt:
        print("interrupted; nothing is written", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _parser() -> Parser:
    parser = Parser(prog="p2p-show", description="Show pairs of a shard set as training gets them.")
    parser.add_argument("set", metavar="SET", help="folder or URL of a shard set")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the page, such as sheet.html")
    parser.add_argument("--load", type=_size, default=286, metavar="SIDE|HxW", help="resize to it, 0: not (286)")
    parser.add_argument("--crop", type=_size, default=256, metavar="SIDE|HxW", help="cut out (256)")
    parser.add_argument("--no-mirror", dest="mirror", action="store_false", help="never mirror")
    parser.add_argument("--reverse", action="store_true", help="y -> x")
    parser.add_argument("--seed", type=count, default=0, help="of order, jitter and mirror (%(default)s)")
    parser.add_argument("--batch", type=positive, default=1, help="images a step (%(default)s)")
    parser.add_argument("--from", dest="start", type=count, default=0, metavar="POSITION", help="(%(default)s)")
    parser.add_argument("--count", type=positive, default=24, metavar="N", help="pairs on the page (%(default)s)")
    return parser


def _size(text: str) -> Size:
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text} is neither a side nor HEIGHTxWIDTH; give for instance 286")
    return (int(match[1]), int(match[2])) if match[2] else int(match[1])


def show(args: argparse.Namespace) -> None:
    """Write the page.

    Raises:
        ValueError: the set cannot be used.
        StoreError: its store does not answer.
    """
    shards = ShardSet(args.set, args.reverse)
    order = Order(shards.counts, args.seed, lanes_for(args.batch, Order.block))
    view = View(shards.index.classes)
    augment = Augment(args.load, args.crop, args.mirror, seed=args.seed, masks=view.masks)
    positions = np.arange(args.start, args.start + args.count)
    cards = [
        _card(shards, augment, position, args.batch, *place)
        for position, *place in zip(positions.tolist(), *(part.tolist() for part in order.at(positions)), strict=True)
    ]
    columns = ["x", *(["boundaries"] if shards.index.instances else []), "y"]
    with aside(args.out) as file:
        file.write(page(f"{args.set}, as training gets it", _facts(args, order), columns, cards).encode())
    holes = sum(bool(card.hole) for card in cards)
    print(f"{args.out}: {len(cards)} pairs" + (f", {holes} of them unreadable" if holes else ""))


def _card(shards: ShardSet, augment: Augment, position: int, batch: int, epoch: int, shard: int, sample: int) -> Card:
    where = (position, epoch, position // batch, f"{shards.index.shards[shard].name}:{sample}")
    try:
        key, members = shards.read(shard, sample)
        fed = augment(members, position)
    except ValueError as error:
        return Card(*where, "", f"cannot be read; training takes another sample in its place: {error}")
    labels = ["x"] if shards.index.classes else []
    fed_seen, seen = _visible(fed, labels), _visible(members, labels)
    return Card(
        *where, key, size=f"{seen['y'].shape[1]}x{seen['y'].shape[2]}",
        fed={name: _inline(value) for name, value in fed_seen.items()},
        source=[_inline(seen[name], SOURCE) for name in "xy"],
    )  # fmt: skip


def _visible(members: Mapping[str, Tensor], labels: Sequence[str]) -> dict[str, Tensor]:
    """Members `[C,H,W]` as uint8 `[3,H,W]` for people: labels painted, of instances the boundaries, black on white."""
    seen = {}
    for name, value in members.items():
        if name == "instances":
            seen["boundaries"] = rgb((~boundaries(value[None])[0]).byte() * 255)
        else:
            seen[name] = painted(value[None])[0] if name in labels else rgb(value)
    return seen


def _inline(picture: Tensor, most: int = 0) -> Picture:
    """uint8 `[3,H,W]` as it is, or with no side longer than `most`, pixels."""
    image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    if most:
        image.thumbnail((most, most))
    file = BytesIO()
    image.save(file, "PNG")
    return Picture(f"data:image/png;base64,{b64encode(file.getvalue()).decode()}", image.width, image.height)


def _facts(args: argparse.Namespace, order: Order) -> dict[str, str]:
    load, crop = ("x".join(map(str, sides(size))) for size in (args.load, args.crop))
    jitter = f"{load if any(sides(args.load)) else 'as it lies'}, cut to {crop}"
    return {
        "pairs": f"{order.size:,}", "positions": f"{args.start:,} to {args.start + args.count - 1:,}",
        "resized to": jitter, "mirror": "half of them" if args.mirror else "none", "seed": str(args.seed),
        "order": f"batch {args.batch}, {order.lanes} lanes, blocks of {order.block}, window {order.window}",
    }  # fmt: skip


def page(title: str, facts: Mapping[str, str], columns: Sequence[str], cards: Sequence[Card]) -> str:
    """The sheet as HTML. Every text may be anything: it is shown, never run."""
    source = resources.files("shards").joinpath("sheet.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source).render(title=title, facts=facts, columns=columns, cards=cards)


if __name__ == "__main__":
    sys.exit(main())
