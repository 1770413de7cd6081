"""The training loop. For each batch a task yields which network to update and with which losses; the loop does every
backward and every step, and what is due between two steps."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from p2p.data.reader import noise_keys
from p2p.data.views import View
from p2p.engine import Engine, engines_of
from p2p.forward import Forward
from p2p.log import Meter
from p2p.tasks import Turn

WATCHED = 1000
"""Steps whose losses wait to be checked, at most; what is due checks them before."""


class Turns(Protocol):
    """What the loop needs of a task; see `p2p.tasks.Task`."""

    def turns(self, batch: Mapping[str, Any], nets: Mapping[str, Any]) -> Iterator[Any]:
        """One micro-batch's game: `(network to update, losses, figures to log)` for each turn."""
        ...


class Chore(NamedTuple):
    """Something to be done every so many images, at the start and at the end."""

    every: int
    """Images between two; 0: only at the start and at the end."""
    do: Callable[[int], None]


def train(
    task: Turns,
    nets: Mapping[str, Forward],
    batches: Iterable[Mapping[str, Any]],
    *,
    total: int,
    images: int = 0,
    batch: int = 0,
    micro: int = 0,
    view: View = View(),  # noqa: B008 - frozen
    rate: Callable[[float], float] = lambda images: 1.0,
    averaged: Callable[[], None] = lambda: None,
    log: Callable[[int, dict[str, float]], None] = lambda images, figures: None,
    log_every: int = 1000,
    chores: Sequence[Chore] = (),
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Train until `total` images were seen, or until it is to stop; returns how many were.

    Args:
        task: says for each batch which network to update, and with which losses; see `p2p.tasks.Task`.
        nets: its networks by name: an `Engine` each, or those of an engine of several, and frozen ones.
        batches: this rank's share of each step: `x`, `y` as uint8, or as float in [-1, 1], `[n,C,H,W]`; where they
            are given, `z` int64 `[n]` (keys of the noise) and `keys` (names of the samples).
        total: images after which to end.
        images: images seen before.
        batch: images per step over all ranks; 0: what the first batch holds, on one rank.
        micro: images per forward and backward on this rank; 0: all.
        view: what the networks see of a batch, made on the device.
        rate: factor of the learning rate, of images seen.
        averaged: called after each step, for an average of weights.
        log: called with images seen and the means of losses and figures since the last time.
        log_every: images between two calls of it.
        chores: done, when due, between two steps; first and last of all too.
        stop: asked before each step, alike on every rank.

    Raises:
        NonFiniteError: a loss was not finite; found before anything was stored.
        ValueError: the batches end early, or the task does not play all micro-batches alike.
    """
    engines = engines_of(nets)
    device = next(iter(engines.values())).device
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
            elapsed, alone = time.monotonic() - began, waited + sum(engine.busy.read() for engine in engines.values())
            speed = {
                "images/s": meter.steps * batch / elapsed,
                "pace": own / max(alone, 1e-9),
                "wait": waited / elapsed,
                "lr": next(iter(engines.values())).lr,
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
        whole = view.encode(prepare(share, images, device))
        batch = batch or len(whole["x"])
        meter.batch = batch
        parts = list(split(whole, micro or len(whole["x"])))
        own += len(whole["x"])

        # The turns: a network's losses of all micro-batches, then the step of its optimiser
        for engine in engines.values():
            engine.set_lr(rate(images))
        measure = due(log_every, images, images + batch) or images + batch >= total
        for turn in interleave([task.turns(part, nets) for part in parts]):
            for part, played in zip(parts, turn, strict=True):
                name, engine, losses, figures = checked_turn(played, engines)
                weight = len(part["x"]) / batch
                engine.backward(sum(losses.values(), start=torch.zeros(())) * weight, last=part is parts[-1])
                meter.add(images, part["keys"], losses, figures)
            norm = engine.step(measure=measure)
            if norm is not None:
                meter.norms[name] = norm

        # The clock
        averaged()
        done, images = images, images + batch
        meter.steps += 1


def due(every: int, before: int | None, now: int) -> bool:
    """Whether a multiple of `every` lies in (before, now]; always where nothing was before."""
    return before is None or bool(every and now // every > before // every)


def interleave(games: Sequence[Iterator[Turn]]) -> Iterator[Iterator[Turn]]:
    """Play the games of several micro-batches in step, all to their ends: for each turn an iterator over the games,
    which computes as it is asked.

    Raises:
        ValueError: a game has fewer turns than another; says which.
    """
    for number in count():
        first = next(games[0], None)
        others = (_same_turn(first, next(game, None), at, number) for at, game in enumerate(games[1:], start=1))
        if first is None:
            list(others)
            return
        yield chain([first], others)


def _same_turn(first: Turn | None, other: Turn | None, at: int, number: int) -> Turn:
    if first is None or other is None:
        if first is other:
            return other  # type: ignore[return-value]  # both have ended
        short, long = (0, at) if first is None else (at, 0)
        raise ValueError(
            f"task: its turns of micro-batch {short} end after {number}, those of micro-batch {long} go on; every"
            " micro-batch of a step must have the same turns"
        )
    if getattr(first[0], "engine", None) is not getattr(other[0], "engine", None):
        raise ValueError(f"task: turn {number} of micro-batches 0 and {at} update different networks; yield the same")
    return other


def checked_turn(
    turn: Any, engines: Mapping[str, Engine]
) -> tuple[str, Engine, dict[str, Tensor], Mapping[str, Tensor]]:
    """Name and engine of the network that a turn updates, its losses and figures.

    Raises:
        ValueError: it is no turn; says what one is.
    """
    if not isinstance(turn, tuple) or len(turn) != 3 or not all(isinstance(part, dict) for part in turn[1:]):
        raise ValueError("task: a turn is (one of `nets`, losses by name, figures by name); yield these three")
    net, losses, figures = turn
    found = [(name, engine) for name, engine in engines.items() if engine is getattr(net, "engine", None)]
    if not found:
        raise ValueError(f"task: a turn is of {type(net).__name__}, which no optimiser updates; yield one of `nets`")
    if not losses:
        raise ValueError(f"task: a turn of {found[0][0]} has no losses; yield one, or no turn")
    for name, value in {**losses, **figures}.items():
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise ValueError(f"task: {name} is {type(value).__name__}; losses and figures are tensors of one number")
    return *found[0], losses, figures


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
