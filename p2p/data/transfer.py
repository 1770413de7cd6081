"""Batches on their way to a GPU: from pinned memory, on a stream of their own, one batch ahead."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from p2p.data.reader import Batch


def transferred(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The same batches with their tensors on `device`. On a GPU the next one is on its way while one is used; a CPU
    gets them as they are."""
    if device.type != "cuda":
        yield from batches
        return
    side = torch.cuda.Stream(device)
    coming: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        sent = _sent(batch, device, side)
        if coming:
            yield _arrived(*coming, device)
        coming = sent
    if coming:
        yield _arrived(*coming, device)


def _sent(batch: Batch, device: torch.device, side: Any) -> tuple[Batch, torch.cuda.Event]:
    side.wait_stream(torch.cuda.current_stream(device))  # what was decoded on the device is there first
    with torch.cuda.stream(side):
        there = {name: _copied(value, device) if isinstance(value, Tensor) else value for name, value in batch.items()}
        return there, side.record_event()


def _copied(value: Tensor, device: torch.device) -> Tensor:
    return value if value.device.type == "cuda" else value.pin_memory().to(device, non_blocking=True)


def _arrived(batch: Batch, event: torch.cuda.Event, device: torch.device) -> Batch:
    current = torch.cuda.current_stream(device)
    current.wait_event(event)
    for value in batch.values():
        if isinstance(value, Tensor):
            value.record_stream(current)  # its memory was given out on the other stream
    return batch
