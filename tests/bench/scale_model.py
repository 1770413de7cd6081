"""A model of a training step on many GPUs, and the tables of `docs/scaling.md`: arithmetic only, no p2p, no torch.

A step is its computation and what of the all-reduces is not hidden behind the backward. Bytes are bytes, rates bytes
a second, times seconds. What is assumed and what was measured is said at each constant.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

PARAMETERS = {
    "U-Net 256": 54_413_955,
    "PatchGAN 70": 2_768_705,
    "pix2pixHD global G": 182_546_755,
    "pix2pixHD local G": 182_857_059,
    "pix2pixHD D, 2 scales": 5_603_202,
    "pix2pixHD D, 3 scales": 8_404_803,
}
"""The first two are built and counted by tests; pix2pixHD's are counts of its public code, 36 and 39 channels in."""

Bucket = tuple[float, float]
"""Bytes of gradients reduced at once, and what of the backward is still to run when they are ready."""


class Link(NamedTuple):
    """What carries a ring."""

    rate: float
    """Bytes a second that go one way."""
    hop: float
    """Seconds that a ring step takes whatever it carries."""


USABLE = 0.91
"""Of a link's rate: fitted here, TCP on shaped links."""
HOP = 10e-6
"""Between nodes. Assumed; gloo here needs 50e-6."""
INSIDE = Link(200e9, 3e-6)
"""Between the GPUs of a node. Assumed: less than half of NVLink 4's 450 GB/s one way."""
PER_NODE = 8
FIXED = 5e-3
"""Seconds of a GPU's step that do not depend on the batch: kernel launches, Adam. Assumed."""
BUCKETS = (22_052_364, 33_558_528, 33_558_528, 50_335_744, 33_562_624, 41_953_280, 2_634_752), (8_428_548, 2_646_272)
LEFT = (0.34, 0.26, 0.19, 0.13, 0.09, 0.03, 0.0), (0.013, 0.0)
PROFILE: dict[str, list[Bucket]] = {
    net: list(zip(*both, strict=True)) for net, *both in zip("GD", BUCKETS, LEFT, strict=True)
}
"""DDP's buckets of 25 MB as they become ready, and what is left of the backward then, as a share of the step: measured
here on a CPU; a GPU's may differ."""


def traffic(size: float, world: int) -> float:
    """Bytes that each of `world` ranks sends, and receives, in a ring all-reduce of `size` bytes; no all-reduce can do
    with less (Patarasuk and Yuan 2009)."""
    return 2 * (world - 1) / world * size


def reduce_s(size: float, world: int, link: Link, hops: int | None = None) -> float:
    """Seconds of an all-reduce; a ring's 2 (W - 1) hops where `hops` says nothing else."""
    return traffic(size, world) / link.rate + (2 * (world - 1) if hops is None else hops) * link.hop


def fit(points: Iterable[tuple[float, float, float]]) -> tuple[float, float]:
    """Share of the nominal rate and seconds a hop, from `(seconds at the nominal rate, hops, measured seconds)`: least
    squares of relative errors, by the normal equations."""
    rows = [(a / s, b / s) for a, b, s in points]
    aa, ab, bb = (sum(r[i] * r[j] for r in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
    a, b = sum(r[0] for r in rows), sum(r[1] for r in rows)
    area = aa * bb - ab * ab
    return area / (a * bb - b * ab), (b * aa - a * ab) / area


def cluster_reduce_s(size: float, gpus: int, node: Link) -> float:
    """Seconds of an all-reduce in a ring inside the nodes and in trees between them, which need fewer hops than a ring
    and as many bytes (NCCL 2.4's double binary trees); `node` is all that a node has to the others."""
    inside = min(gpus, PER_NODE)
    nodes = gpus // inside
    return reduce_s(size, inside, INSIDE) + reduce_s(size, nodes, node, hops=2 * math.ceil(math.log2(nodes)))


def exposed_s(buckets: Iterable[Bucket], reduce: Callable[[float], float]) -> float:
    """Seconds that one network's reductions go on after its backward: one after the other, each from when it is
    ready, `left` seconds before the end."""
    end = float("-inf")
    for size, left in buckets:
        end = max(end, -left) + reduce(size)
    return max(end, 0.0)


def step_s(compute: float, gpus: int, node: Link, overlap: bool = True) -> float:
    """Seconds of a pix2pix step of `compute` seconds; without `overlap` a reduction waits for its backward's end."""
    if gpus == 1:
        return compute
    hidden = compute if overlap else 0.0
    nets = [[(size, left * hidden) for size, left in buckets] for buckets in PROFILE.values()]
    return compute + sum(exposed_s(buckets, lambda size: cluster_reduce_s(size, gpus, node)) for buckets in nets)


def compute_s(images: float, speed: float) -> float:
    """Seconds of a step on one GPU; `speed` in images a second, besides what the step costs at any batch."""
    return FIXED + images / speed


def ethernet(gigabits: float) -> Link:
    """A node's network by its nominal Gbit/s."""
    return Link(gigabits * USABLE / 8 * 1e9, HOP)


def weak(batch: int, speed: float, gpus: int, node: Link, overlap: bool = True) -> float:
    """Efficiency at `batch` images a GPU: the step of one GPU over that of many."""
    alone = compute_s(batch, speed)
    return alone / step_s(alone, gpus, node, overlap)


def strong(batch: int, speed: float, gpus: int, node: Link) -> float:
    """Efficiency at `batch` images in all: how many times as fast as one GPU, over `gpus`."""
    return compute_s(batch, speed) / gpus / step_s(compute_s(batch / gpus, speed), gpus, node)


def needed(goal: float, batch: int, speed: float, gpus: int, overlap: bool = True) -> float | None:
    """Gbit/s a node with which `weak` reaches `goal`; None where 10 Tbit/s do not."""
    low, high = 1e-3, 1e4
    if weak(batch, speed, gpus, ethernet(high), overlap) < goal:
        return None
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if weak(batch, speed, gpus, ethernet(middle), overlap) >= goal else (middle, high)
    return high


def state_bytes(parameters: float, stage: int = 0, world: int = 1) -> float:
    """Bytes a GPU of weights, gradients and Adam's two moments, float32; ZeRO divides the moments (1), the gradients
    too (2), the weights too (3) by the ranks (Rajbhandari et al. 2020)."""
    return parameters * (
        4 / (world if stage > 2 else 1) + 4 / (world if stage > 1 else 1) + 8 / (world if stage else 1)
    )


# Tables

GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
LINKS = (10, 25, 100, 400)
LOADS = ((1, 250), (4, 250), (16, 500), (64, 1000))
"""Assumed: images a GPU and step, images a second on a GPU."""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def byte_table() -> str:
    """What DDP reduces in a step, and what a rank sends for it."""
    names = tuple(PARAMETERS)
    rows = []
    for together in (*((n,) for n in names), names[:2], names[2:5:2], names[3:6:2]):
        size = 4 * sum(PARAMETERS[n] for n in together)
        sent = [f"{traffic(size, w) / 1e6:,.1f}" for w in (2, 8, 512)]
        rows.append([" + ".join(together), f"{size // 4:,}", f"{size:,}", *sent, f"{2 * size / 1e6:,.1f}"])
    sends = [f"each of {w} sends, MB" for w in (2, 8, 512)]
    return table(["network", "parameters", "bytes a step", *sends, "`exact`: reduced, MB"], rows)


def weak_table() -> str:
    """Efficiency in percent at a fixed batch a GPU, without overlap and with it."""
    rows = []
    for batch, speed in LOADS:
        for rate in LINKS:
            both = [[weak(batch, speed, w, ethernet(rate), o) for o in (False, True)] for w in GPUS]
            rows.append([batch, speed, rate, *(f"{100 * a:.0f} / {100 * b:.0f}" for a, b in both)])
    return table(["batch a GPU", "images/s a GPU", "Gbit/s a node", *map(str, GPUS)], rows)


def strong_table(speed: float = 500) -> str:
    """Efficiency in percent at a fixed global batch, with overlap."""
    rows = []
    for batch in (4, 64, 512):
        for rate in LINKS:
            shares = [f"{100 * strong(batch, speed, w, ethernet(rate)):.0f}" if w <= batch else "" for w in GPUS]
            rows.append([batch, rate, *shares])
    return table(["global batch", "Gbit/s a node", *map(str, GPUS)], rows)


def needed_table() -> str:
    """Gbit/s a node for 90 %, without overlap and with it."""
    rows = []
    for batch, speed in LOADS:
        cells = []
        for gpus in (16, 64, 512):
            found = [needed(0.9, batch, speed, gpus, overlap) for overlap in (False, True)]
            cells.append(" / ".join("none" if rate is None else f"{rate:,.0f}" for rate in found))
        rows.append([batch, speed, f"{compute_s(batch, speed) * 1e3:.0f} ms", *cells])
    return table(["batch a GPU", "images/s a GPU", "computation", "16 GPUs", "64 GPUs", "512 GPUs"], rows)


def memory_table() -> str:
    """State in GB a GPU."""
    rows = []
    for name, count in {
        "pix2pix": 57_182_660,
        "pix2pixHD, global": 188_149_957,
        "1e9": 10**9,
        "5e9": 5 * 10**9,
    }.items():
        states = [state_bytes(count, stage, w) / 1e9 for stage, w in ((0, 1), (1, 8), (2, 8), (3, 8))]
        rows.append([name, f"{count:,}", *(f"{s:.2f}" for s in states)])
    return table(["networks", "parameters", "DDP", "ZeRO-1, 8 ranks", "ZeRO-2", "ZeRO-3"], rows)


PAIRS = {
    "facades": 400,
    "maps": 1_096,
    "cityscapes": 2_975,
    "day2night": 17_823,
    "edges2shoes": 49_825,
    "edges2handbags": 138_567,
}
"""Training pairs (Isola et al. 2017, appendix 6.2)."""


def recipe_table(configs: Path) -> str:
    """How many GPUs the shipped recipes can use, and their steps at larger batches."""
    rows = []
    for name, pairs in PAIRS.items():
        recipe = yaml.safe_load((configs / f"{name}.yaml").read_text())
        batch, group = recipe["data"]["batch"], max(recipe[net]["group"] for net in "GD")
        steps = [f"{pairs * recipe['schedule']['epochs'] // b:,}" for b in (batch, 8 * group, 512 * group)]
        rows.append([name, batch, group, batch // group, batch, *steps])
    head = [
        "recipe",
        "batch",
        "group",
        "GPUs as it is",
        "with `group: 1`",
        "steps as it is",
        "on 8 GPUs",
        "on 512 GPUs",
    ]
    return table(head, rows)


def tables(configs: Path = Path("configs")) -> dict[str, str]:
    """All of them, as they stand in `docs/scaling.md`."""
    makers = (byte_table, weak_table, strong_table, needed_table, memory_table)
    return {make.__name__: make() for make in makers} | {"recipe_table": recipe_table(configs)}
