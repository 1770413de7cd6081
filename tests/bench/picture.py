"""Draw how the order is cut, out of the order itself: `python -m tests.bench.picture docs/order.svg`."""

import sys
from pathlib import Path

import numpy as np

from p2p.data.order import Order
from p2p.data.steps import rank_slice

COUNTS, BLOCK, LANES, WINDOW, BATCH, RANKS = [11, 7, 10, 7], 2, 4, 2, 4, 2
COLOURS = ["#4e79a7", "#f28e2b", "#59a14f", "#b07aa1"]
SIDE, GAP, LEFT = 26, 3, 96


def text(x: float, y: float, words: str, size: int = 13, anchor: str = "start", fill: str = "#333") -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" fill="{fill}">{words}</text>'


def square(x: float, y: float, shard: int, sample: int, tail: bool) -> str:
    """A sample: the colour of its shard, its number; pale where it belongs to the tail of the shard."""
    pale = ' fill-opacity="0.45"' if tail else ""
    return f'<rect x="{x:g}" y="{y:g}" width="{SIDE}" height="{SIDE}" rx="3" fill="{COLOURS[shard]}"{pale}/>' + text(
        x + SIDE / 2, y + 18, str(sample), 12, "middle", "#000" if tail else "#fff"
    )


def frame(x: float, y: float, samples: int) -> str:
    """Around a block."""
    width = samples * SIDE + 2 * GAP
    return f'<rect x="{x - GAP:g}" y="{y - GAP:g}" width="{width:g}" height="{SIDE + 2 * GAP}" rx="4" class="block"/>'


def is_tail(shard: int, sample: int) -> bool:
    return sample >= COUNTS[shard] // BLOCK * BLOCK


def shards(y: float) -> tuple[list[str], float]:
    """Each shard with its blocks."""
    parts = [text(8, y, "1. Shards are cut into blocks of 2 samples; their tails (pale) are joined and cut likewise.")]
    y += 14
    for shard, count in enumerate(COUNTS):
        parts.append(text(8, y + 18, f"shard {shard}"))
        for first in range(0, count, BLOCK):
            x = LEFT + first // BLOCK * (BLOCK * SIDE + 10)
            inside = range(first, min(first + BLOCK, count))
            parts += [square(x + i * SIDE, y, shard, s, is_tail(shard, s)) for i, s in enumerate(inside)]
            parts.append(frame(x, y, len(inside)) if len(inside) == BLOCK else "")
        y += SIDE + 12
    return parts, y


def lanes(order: Order, y: float) -> tuple[list[str], float]:
    """What each lane emits in each round of epoch 0."""
    _, shard, sample = order.at(np.arange(order.size))
    per_round = LANES * WINDOW * BLOCK
    rounds = order.size // BLOCK // (LANES * WINDOW)
    words = "2. In every epoch blocks are dealt anew: each of 4 lanes takes 2 at a time and mixes their samples."
    parts = [text(8, y, words)]
    y += 24
    for number in range(rounds + 1):
        x = LEFT + number * (WINDOW * BLOCK * SIDE + 40)
        parts.append(text(x, y, f"round {number}" if number < rounds else "the rest", 12))
    for lane in range(LANES):
        top = y + 10 + lane * (SIDE + 12)
        parts.append(text(8, top + 18, f"lane {lane}"))
        for number in range(rounds + 1):
            x = LEFT + number * (WINDOW * BLOCK * SIDE + 40)
            mine = range(number * per_round + lane, min((number + 1) * per_round, order.size), LANES)
            for i, p in enumerate(mine):
                s, n = int(shard[p]), int(sample[p])
                parts.append(square(x + i * SIDE, top, s, n, is_tail(s, n)))
            parts.append(frame(x, top, len(mine)) if mine else "")
    return parts, y + 10 + LANES * (SIDE + 12)


def stream(order: Order, y: float) -> tuple[list[str], float]:
    """The first positions of the stream, with steps and ranks."""
    words = "3. Position p of the stream is of lane p mod 4. A step takes the next 4 positions, a rank its part."
    parts = [text(8, y, words)]
    y += 28
    _, shard, sample = order.at(np.arange(5 * BATCH))
    for p, (s, n) in enumerate(zip(shard.tolist(), sample.tolist(), strict=True)):
        x = LEFT + p * SIDE + p // BATCH * 14
        parts.append(square(x, y, s, n, is_tail(s, n)))
    for step in range(5):
        x = LEFT + step * (BATCH * SIDE + 14)
        parts.append(text(x + BATCH * SIDE / 2, y - 6, f"step {step}", 12, "middle"))
        for rank in range(RANKS):
            part = rank_slice(0, BATCH, rank, RANKS)
            a, b = x + part.start * SIDE + 3, x + part.stop * SIDE - 3
            parts.append(f'<path d="M{a:g} {y + SIDE + 6} H{b:g}" stroke="#333" stroke-width="2"/>')
            parts.append(text((a + b) / 2, y + SIDE + 21, f"rank {rank}", 11, "middle"))
    return parts, y + SIDE + 34


def draw() -> str:
    """The whole picture, SVG."""
    order = Order(COUNTS, seed=0, lanes=LANES, block=BLOCK, window=WINDOW)
    first, y = shards(24)
    second, y = lanes(order, y + 22)
    third, y = stream(order, y + 22)
    style = "<style>text{font-family:sans-serif} .block{fill:none;stroke:#333;stroke-width:1.2}</style>"
    body = "\n".join(part for part in (*first, *second, *third) if part)
    paper = f'<rect width="720" height="{y:g}" fill="#fff"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{y:g}" viewBox="0 0 720 {y:g}">\n'
        f"{style}\n{paper}\n{body}\n</svg>\n"
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw())
