"""How good G is on the validation pairs."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from p2p import dist
from p2p.data.views import to_float
from p2p.generator import Generator


def l1(generator: Generator, batches: Iterable[dict[str, Any]]) -> float:
    """Mean |y - G(x)| in units of [0, 1], over all pixels, channels and pairs of all ranks.

    `batches` are the reader's. Where G uses features they are those of y, so the figure tells how well y is kept. G is
    in its inference mode, so batch size and ranks change nothing.
    """
    sums = torch.zeros(2, dtype=torch.float64, device=generator.device)
    for batch in batches:
        if len(batch["keys"]):
            fake = generator.of(batch).clamp(-1, 1)
            error = (fake - to_float(batch["y"].to(generator.device))).abs() / 2
            sums += torch.stack([error.double().sum(), torch.tensor(float(error.numel()), device=sums.device).double()])
    total, count = dist.total(sums).tolist()
    return total / count


def constant_l1(targets: Iterable[Tensor]) -> float:
    """L1 in units of [0, 1] of the best constant picture: the median of the targets, pixel by pixel. What a
    generator that does not look at x could reach.

    `targets` are uint8 `[N,C,H,W]` of one size, all together small enough for memory.
    """
    y = torch.cat(list(targets)).float() / 255
    return float((y - y.median(0).values).abs().mean())
