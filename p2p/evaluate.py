"""How good generators are on the validation pairs: one pass for all of them and for all metrics."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from p2p import dist
from p2p.generator import Generator
from p2p.metrics import Metric

Batch = Mapping[str, Any]


def evaluate(
    generators: Mapping[str, Generator],
    batches: Iterable[Batch],
    count: int,
    metrics: Mapping[str, Metric],
    facing: Callable[[str, Batch], Batch] = lambda name, batch: batch,
) -> dict[str, dict[str, float]]:
    """Figures of each generator by name over `count` pairs, the same on every rank and for any number of ranks: to the
    bit where G's answer does not depend on the size of a batch, as on one thread of a CPU, and metrics are rows.

    `batches` are this rank's, from a reader that counts pairs from 0; `facing` turns one for a generator. Where G uses
    features they are those of y, so the figures tell how well y is kept. G is in its inference mode.

    Raises:
        ValueError: a metric gives what it must not; names it.
    """
    found: dict[tuple[str, str], list[Tensor]] = {(name, metric): [] for name in generators for metric in metrics}
    places: list[int] = []
    for batch in batches if metrics else ():
        if batch["keys"]:
            places += range(batch["position"], batch["position"] + len(batch["keys"]))
            for name, generator in generators.items():
                seen = _placed(facing(name, batch), generator.device)
                fake, real = generator.of(seen), generator.spec.view.target(seen)
                for metric, how in metrics.items():
                    found[name, metric].append(take(metric, how, fake, real))
    return {
        name: {metric: result(metric, how, found[name, metric], places, count) for metric, how in metrics.items()}
        for name in generators
    }


def _placed(batch: Batch, device: torch.device) -> dict[str, Any]:
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}


def take(name: str, metric: Metric, fake: Tensor, real: Tensor) -> Tensor:
    """What a metric takes of some pictures `[N,C,H,W]`, float64 on the CPU.

    Raises:
        ValueError: that is not rows, or no tensor.
    """
    values = metric.values(fake, real)
    if not isinstance(values, Tensor):
        raise ValueError(f"validation.metrics: {name} gives {type(values).__name__}; give a tensor")
    if not metric.summed and (not values.ndim or len(values) != len(fake)):
        raise ValueError(
            f"validation.metrics: {name} gives {tuple(values.shape)} for {len(fake)} pictures; one row each"
        )
    return values.detach().to("cpu", torch.float64)


def result(name: str, metric: Metric, parts: Sequence[Tensor], places: Sequence[int], count: int) -> float:
    """The figure of what all ranks have taken; this rank's `parts` are of the pairs at `places`."""
    if metric.summed:
        mine = torch.stack(list(parts)).sum(0) if parts else None
        shape = _agreed(mine)  # every rank asks
        whole = dist.total(torch.zeros(shape, dtype=torch.float64) if mine is None else mine)
    else:
        whole = rows_of_all(parts, places, count)
    return float(metric.result(whole))


def rows_of_all(parts: Sequence[Tensor], places: Sequence[int], count: int) -> Tensor:
    """The rows of all ranks in one table, float64 `[count, ...]`; `parts` of this rank stand at `places`."""
    shape = _agreed(parts[0][0] if parts else None)
    table = torch.zeros(count, *shape, dtype=torch.float64)
    if parts:
        table[list(places)] = torch.cat(list(parts))
    return dist.total(table)  # each row is of one rank: adding zeros changes no bit


def _agreed(mine: Tensor | None) -> list[int]:
    """The shape that some rank has; others have nothing yet."""
    shape = [0.0] * 8 if mine is None else [float(mine.ndim), *map(float, mine.shape), *[0.0] * (7 - mine.ndim)]
    ndim, *sizes = (int(max(column)) for column in zip(*dist.gathered(shape), strict=True))
    return sizes[:ndim]


def constant_l1(targets: Iterable[Tensor]) -> float:
    """L1 in units of [0, 1] of the best constant picture: the median of the targets, pixel by pixel. What a
    generator that does not look at x could reach.

    `targets` are uint8 `[N,C,H,W]` of one size, all together small enough for memory.
    """
    y = torch.cat(list(targets)).float() / 255
    return float((y - y.median(0).values).abs().mean())
