"""Pictures of any size in bounded memory: made window by window, and blended."""

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor

Size = tuple[int, int]
"""Height and width, pixels."""


def tiled(make: Callable[[slice, slice], Tensor], size: Size, *, tile: Size, overlap: int, multiple: int = 1) -> Tensor:
    """A picture of which `make` makes one window at a time -> float32 `[1,C,H,W]` on the CPU.

    Beside the result, one window and its weights are in memory. Where windows overlap, the later one is faded in
    linearly; where there is one only, its pixels are the result's, to the bit. What a network makes of a window
    depends on the window: pixels nearer to its edge than the receptive field do not see all that they would, and norms
    that measure the picture measure the window (`inference.statistics` "running" does not).

    Args:
        make: (rows, columns) -> float `[1,C,h,w]` of these pixels, in [-1, 1], on any device.
        size: of the picture.
        tile: the largest window; multiples of `multiple`.
        overlap: pixels that neighbouring windows share, at least; the last of a row or column shares more, so that it
            is as large as the others.
        multiple: windows begin at multiples of it, as the network needs them to see what it sees in the whole picture.
            So the last one ends with the picture, and may be up to `multiple` - 1 pixels smaller than the others.

    Raises:
        ValueError: as `check`; or the picture is empty, or `make` answers with other than the window.
    """
    check(tile, overlap, multiple)
    if min(size) < 1:
        raise ValueError(f"size: {size[0]}x{size[1]} pixels are no picture; give 1 or more")
    along = [windows(side, most, overlap, multiple) for side, most in zip(size, tile, strict=True)]
    rows, columns = (list(zip(found, weights(found), strict=True)) for found in along)
    result = torch.zeros(0)
    for (row, down), (column, across) in product(rows, columns):
        part = make(row, column)
        if part.ndim != 4 or len(part) != 1 or part.shape[2:] != (len(down), len(across)):
            raise ValueError(f"make: gave {tuple(part.shape)} for 1 window of {len(down)}x{len(across)} pixels")
        if not result.numel():
            result = torch.zeros(1, part.shape[1], *size)
        result[..., row, column].addcmul_(part.to("cpu", torch.float32), down[:, None] * across)
        del part  # before the next one is made
    return result


def check(tile: Size, overlap: int, multiple: int = 1) -> None:
    """Raises:
    ValueError: no picture can be made with these settings of `tiled`; names the setting and the remedy.
    """
    for side in tile:
        if side < 1 or side % multiple:
            nearest = max(round(side / multiple), 1) * multiple
            raise ValueError(f"tile: {side} pixels are no multiple of {multiple}, as G needs; use {nearest}")
    most = min(tile) - multiple
    if not 0 <= overlap <= most:
        if overlap < 0:
            raise ValueError(f"overlap: {overlap} pixels are too few; use 0 or more")
        raise ValueError(
            f"overlap: {overlap} pixels leave windows of {min(tile)} no room to move on by {multiple}; use {most} or "
            "less, or larger tiles"
        )


def windows(side: int, tile: int, overlap: int, multiple: int = 1) -> list[slice]:
    """Windows over a side of `side` pixels, in order; see `tiled`."""
    last = max(-(-(side - tile) // multiple), 0) * multiple
    step = (tile - overlap) // multiple * multiple
    starts = [*range(0, last, step), last]
    return [slice(start, min(start + tile, side)) for start in starts]


def weights(found: Sequence[slice]) -> list[Tensor]:
    """How much each pixel of each window counts, float32; at every place of the side they add up to 1."""
    counts: list[Tensor] = []
    for at, window in enumerate(found):
        shared = found[at - 1].stop - window.start if at else 0
        ramp = (torch.arange(shared) + 0.5) / shared if shared else torch.zeros(0)
        for earlier, count in zip(found, counts, strict=False):
            reach = earlier.stop - window.start
            if reach > 0:
                count[-reach:] *= 1 - ramp[:reach]
        counts.append(torch.cat([ramp, torch.ones(window.stop - window.start - shared)]))
    return counts
