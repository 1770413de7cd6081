"""Show which sample goes where: `python -m shards.order SET --batch 4 --ranks 2 --steps 10`, see `--help`.

What is printed is what a training with these sizes reads: both ask `p2p.data.orders` and `p2p.data.steps`. Exit codes:
0 done, 2 a mistake, 130 interrupted.
"""

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from p2p.data.mix import whole
from p2p.data.orders import lanes_for, ordered
from p2p.data.samples import Samples
from p2p.data.steps import steps
from p2p.data.tars import split_members
from shards.argv import Parser, count, positive

COLUMNS = ("step", "rank", "position", "epoch", "key")


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    args = parser().parse_args(argv)
    try:
        for line in lines(args):
            print(json.dumps(line) if args.json else "\t".join(str(line[name]) for name in COLUMNS))
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # `| head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def parser() -> Parser:
    """The whole command line; sizes have the names and defaults of the settings under `data`."""
    p = Parser(prog="p2p-order", description="Show which sample goes to which rank at which step.")
    p.add_argument("sets", nargs="+", metavar="SET", help="folder or URL of shards, or an index file in it")
    p.add_argument("--weights", type=float, nargs="+", metavar="W", help="of several sets (all equal)")
    p.add_argument("--batch", type=positive, required=True, help="images per step over all ranks")
    p.add_argument("--ranks", type=positive, default=1, help="(%(default)s)")
    p.add_argument("--steps", type=positive, required=True, help="how many to show")
    p.add_argument("--from", type=count, default=0, dest="images", metavar="IMAGES", help="images seen before")
    p.add_argument("--seed", type=count, default=0, help="of the experiment (%(default)s)")
    p.add_argument("--lanes", type=count, default=0, help="as data.lanes (%(default)s)")
    p.add_argument("--block", type=count, default=16, help="as data.block (%(default)s)")
    p.add_argument("--window", type=positive, default=2, help="as data.window (%(default)s)")
    p.add_argument("--unit", type=positive, default=1, help="images that stay on a rank, as G.group (%(default)s)")
    p.add_argument("--json", action="store_true", help="JSON lines, with shard and sample")
    return p


def lines(args: Any) -> Iterator[dict[str, Any]]:
    """One for each sample: step, rank, position, epoch, key, shard, sample.

    Raises:
        ValueError: the sizes do not go together, or a set cannot be used.
    """
    if args.ranks > args.batch // args.unit or args.batch % args.unit:
        raise ValueError(f"--batch {args.batch}: must be a multiple of --unit {args.unit}, and hold one for each rank")
    weights = args.weights or [1.0] * len(args.sets)
    if len(weights) != len(args.sets):
        raise ValueError(f"--weights: there are {len(weights)} for {len(args.sets)} sets; give one for each")
    sets = [Samples(at) for at in args.sets]
    order = ordered(
        [one.counts for one in sets], whole(weights), seed=args.seed,
        lanes=args.lanes or lanes_for(args.batch, args.block), block=args.block, window=args.window,
    )  # fmt: skip
    for one in sets:
        one.follow(order)
    shards = [(one, number) for one in sets for number in range(len(one.counts))]
    stop = args.images + args.steps * args.batch
    ranks = [steps(order, args.images, stop, args.batch, rank, args.ranks, args.unit) for rank in range(args.ranks)]
    for number, shares in enumerate(zip(*ranks, strict=True), start=args.images // args.batch):
        for rank, places in enumerate(shares):
            for place in places:
                one, shard = shards[place.shard]
                yield {
                    "step": number, "rank": rank, "position": place.position, "epoch": place.epoch,
                    "key": key(one, shard, place.sample), "shard": one.index.shards[shard].name,
                    "sample": place.sample,
                }  # fmt: skip


def key(one: Samples, shard: int, sample: int) -> str:
    """Name of a sample, as its tar has it."""
    data, _ = one.fetch(shard, sample)
    return bytes(split_members(data)["__key__"]).decode()


if __name__ == "__main__":
    sys.exit(main())
