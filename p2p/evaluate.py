"""How good a generator is on the validation pairs: one pass for all metrics."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from p2p import dist
from p2p.generator import Generator
from p2p.metrics import Metric


def evaluate(
    generator: Generator, batches: Iterable[Mapping[str, Any]], count: int, metrics: Mapping[str, Metric]
) -> dict[str, float]:
    """Figures by name over `count` pairs, the same on every rank, and to the bit for any number of ranks.

    `batches` are this rank's, from a reader that counts pairs from 0. Where G uses features they are those of y, so the
    figures tell how well y is kept. G is in its inference mode, so the size of batches changes nothing.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in metrics}
    places: list[int] = []
    for batch in batches:
        if batch["keys"]:
            fake, real = generator.of(batch), generator.spec.view.target(_placed(batch, generator.device))
            places += range(batch["position"], batch["position"] + len(fake))
            for name, metric in metrics.items():
                found[name].append(_checked(name, metric.values(fake, real), len(fake)))
    return {name: metric.result(gathered(found[name], places, count)) for name, metric in metrics.items()}


def _placed(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}


def _checked(name: str, values: Tensor, count: int) -> Tensor:
    if not values.ndim or len(values) != count:
        raise ValueError(f"validation.metrics: {name} gives {tuple(values.shape)} for {count} pictures; one row each")
    return values.detach().to("cpu", torch.float64)


def gathered(parts: Sequence[Tensor], places: Sequence[int], count: int) -> Tensor:
    """The rows of all ranks in one table, float64 `[count, ...]`; `parts` of this rank stand at `places`."""
    shape = _agreed(parts[0].shape[1:] if parts else None)
    table = torch.zeros(count, *shape, dtype=torch.float64)
    if parts:
        table[list(places)] = torch.cat(list(parts))
    return dist.total(table)  # each row is of one rank: adding zeros changes no bit


def _agreed(shape: torch.Size | None) -> list[int]:
    """What the values of a picture look like, also for a rank that has none."""
    mine = [0.0] * 8 if shape is None else [float(len(shape)), *map(float, shape), *[0.0] * (7 - len(shape))]
    ndim, *sides = (int(max(column)) for column in zip(*dist.gathered(mine), strict=True))
    return sides[:ndim]


def constant_l1(targets: Iterable[Tensor]) -> float:
    """L1 in units of [0, 1] of the best constant picture: the median of the targets, pixel by pixel. What a
    generator that does not look at x could reach.

    `targets` are uint8 `[N,C,H,W]` of one size, all together small enough for memory.
    """
    y = torch.cat(list(targets)).float() / 255
    return float((y - y.median(0).values).abs().mean())
