"""The loop. It knows nothing about GANs: a task says whose turn it is, and this lets them play."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from p2p.data.reader import noise_keys
from p2p.data.views import View
from p2p.engine import Engine
from p2p.log import Meter

Turn = tuple[Engine, dict[str, Tensor], dict[str, Tensor]]


WATCHED = 1000
"""Steps whose losses wait to be checked, at most; what is due checks them before."""


class Task(Protocol):
    """Who plays next, and with which losses."""

    def turns(self, batch: Mapping[str, Any], nets: Mapping[str, Engine]) -> Iterator[Turn]:
        """One batch's game: `(engine, losses, figures to log)` for each turn. The loop minimises the sum of the
        losses, each a mean over the images of the batch, and steps the engine before it asks for the next turn."""
        ...


class Chore(NamedTuple):
    """Something to be done every so many images, at the start and at the end."""

    every: int
    """Images between two; 0: only at the start and at the end."""
    do: Callable[[int], None]


def train(
    task: Task,
    nets: Mapping[str, Engine],
    batches: Iterable[Mapping[str, Any]],
    *,
    total: int,
    images: int = 0,
    batch: int = 0,
    micro: int = 0,
    view: Callable[[Mapping[str, Any]], dict[str, Any]] = View(),  # noqa: B008 - frozen
    fixed: Mapping[str, Any] = MappingProxyType({}),
    rate: Callable[[float], float] = lambda images: 1.0,
    averaged: Callable[[], None] = lambda: None,
    log: Callable[[int, dict[str, float]], None] = lambda images, figures: None,
    log_every: int = 1000,
    chores: Sequence[Chore] = (),
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Let the task play until `total` images were seen, or until it is to stop; returns how many were.

    Args:
        task: see `Task`.
        nets: its engines by name.
        batches: this rank's share of each step: `x`, `y` as uint8, or as float in [-1, 1], `[n,C,H,W]`; where they
            are given, `z` int64 `[n]` (keys of the noise) and `keys` (names of the samples).
        total: images after which to end.
        images: images seen before.
        batch: images per step over all ranks; 0: what the first batch holds, on one rank.
        micro: images per forward and backward on this rank; 0: all.
        view: what a batch means, on the device: floats of numbers.
        fixed: networks that do not learn, beside `nets` for the task.
        rate: factor of the learning rate, of images seen.
        averaged: called after each step, for an average of weights.
        log: called with images seen and the means of losses and figures since the last time.
        log_every: images between two calls of it.
        chores: done, when due, between two steps; first and last of all too.
        stop: asked before each step, alike on every rank.

    Raises:
        NonFiniteError: a loss was not finite; found before anything was stored.
    """
    device = next(iter(nets.values())).device
    source = iter(batches)
    meter, began, waited, own = Meter(batch, device), time.monotonic(), 0.0, 0
    done = images or None  # at the very start every chore is due; a resumed run did them before it was saved

    while True:
        # Figures and chores that are due, the same way for the first, the last and a resumed step
        over = images >= total or stop()
        todo = [chore for chore in chores if due(chore.every, done, images) or images >= total]
        report = meter.steps and (todo or due(log_every, done, images) or over)
        if todo or report or over or meter.steps % WATCHED == 0:
            meter.check()  # before anything is stored
        if report:
            elapsed, alone = time.monotonic() - began, waited + sum(engine.busy.read() for engine in nets.values())
            speed = {
                "images/s": meter.steps * batch / elapsed,
                "pace": own / max(alone, 1e-9),
                "wait": waited / elapsed,
                "lr": next(iter(nets.values())).lr,
            }
            log(images, {**meter.read(), **speed})
            began, waited, own = time.monotonic(), 0.0, 0
        pause = time.monotonic()
        for chore in todo:
            chore.do(images)
        began += time.monotonic() - pause
        if over:
            return images

        # The next batch, and its micro-batches
        asked = time.monotonic()
        share = next(source, None)
        waited += time.monotonic() - asked
        if share is None:
            raise ValueError(f"the batches ended after {images} of {total} images; give more, or a smaller total")
        whole = view(prepare(share, images, device))
        batch = batch or len(whole["x"])
        meter.batch = batch
        parts = list(split(whole, micro or len(whole["x"])))
        own += len(whole["x"])

        # The turns: each player sees all micro-batches, then steps
        for engine in nets.values():
            engine.set_lr(rate(images))
        measure = due(log_every, images, images + batch) or images + batch >= total
        for turn in turn_by_turn([task.turns(part, {**nets, **fixed}) for part in parts]):
            for part, (player, losses, figures) in zip(parts, turn, strict=True):
                weight = len(part["x"]) / batch
                player.backward(sum(losses.values(), start=torch.zeros(())) * weight, last=part is parts[-1])
                meter.add(images, part["keys"], losses, figures)
            norm = player.step(measure=measure)
            if norm is not None:
                meter.norms[next(name for name, engine in nets.items() if engine is player)] = norm

        # The clock
        averaged()
        done, images = images, images + batch
        meter.steps += 1


def due(every: int, before: int | None, now: int) -> bool:
    """Whether a multiple of `every` lies in (before, now]; always where nothing was before."""
    return before is None or bool(every and now // every > before // every)


def turn_by_turn(games: Sequence[Iterator[Turn]]) -> Iterator[Iterator[Turn]]:
    """Play several games in step: for each turn an iterator over the games, which computes as it is asked."""
    for first in games[0]:
        yield chain([first], map(next, games[1:]))


def prepare(share: Mapping[str, Any], images: int, device: torch.device) -> dict[str, Any]:
    """A batch on the device, with keys of the noise and names of the samples."""
    n = len(share["x"])
    positions = list(range(images, images + n))
    batch = {"z": noise_keys(0, positions), "keys": [str(p) for p in positions], **share}
    return {name: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for name, v in batch.items()}


def split(batch: Mapping[str, Any], size: int) -> Iterator[dict[str, Any]]:
    """Cut a batch into micro-batches of at most `size` images."""
    n = len(batch["x"])
    for first in range(0, n, size):
        yield {
            name: value[first : first + size] if isinstance(value, Tensor | list) else value
            for name, value in batch.items()
        }
