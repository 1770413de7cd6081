"""How fast each rank is by itself, and which one the others wait for."""

import resource
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from p2p import dist

SLOW = 0.8
"""A rank below this share of the others' median pace is a straggler."""


KEPT = 1000
"""Spans of an accelerator that wait to be added up, at most."""


class Stopwatch:
    """Time that a device spends between starts and stops, without waiting for it in between."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.began: float | torch.cuda.Event | None = None
        self.spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self.seconds = 0.0

    def start(self) -> None:
        """Begin a span; one that is not stopped does not count."""
        self.began = self._now()

    def stop(self) -> None:
        """End the span; where there is none, nothing."""
        began, self.began = self.began, None
        if isinstance(began, float):
            self.seconds += time.perf_counter() - began
        elif began is not None:
            self.spans.append((began, self._now()))  # type: ignore[arg-type]
            if len(self.spans) >= KEPT:
                self._add_up()

    def read(self) -> float:
        """Seconds since the last reading."""
        self._add_up()
        seconds, self.seconds = self.seconds, 0.0
        return seconds

    def _add_up(self) -> None:
        for began, ended in self.spans:
            ended.synchronize()
            self.seconds += began.elapsed_time(ended) / 1000
        self.spans.clear()

    def _now(self) -> "float | torch.cuda.Event":
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


class Watch:
    """The ranks side by side.

    Args:
        device: of this rank.
        warn: told of stragglers: ranks that were slow in two intervals in a row.
    """

    def __init__(self, device: torch.device, warn: Callable[[str], None]) -> None:
        self.device, self.warn = device, warn
        self.suspects: set[int] = set()

    def __call__(self, figures: Mapping[str, float]) -> tuple[dict[str, float], dict[str, list[float]]]:
        """Compare; every rank must ask.

        Args:
            figures: with this rank's `pace` (images/s while it waits for no other rank) and `wait` (share of the time
                that it waits for data).

        Returns:
            The figures, with the largest `wait` and `memory` (GB) of any rank; and the figures of each rank.
        """
        table = dist.gathered([figures["pace"], figures["wait"], memory(self.device)])
        pace, wait, used = (list(column) for column in zip(*table, strict=True))
        slow = stragglers(pace)
        for rank, usual in slow:
            if rank in self.suspects:
                self.warn(
                    f"rank {rank} is slow: {pace[rank]:.3g} images/s by itself, the others {usual:.3g};"
                    f" it waits for data {wait[rank]:.0%} of the time (its log names its machine)"
                )
        self.suspects = {rank for rank, _ in slow}
        shared = {name: value for name, value in figures.items() if name != "pace"}
        ranks = {"ranks/images/s": pace, "ranks/wait": wait, "ranks/memory": used}
        return {**shared, "wait": max(wait), "memory": max(used)}, ranks


def memory(device: torch.device) -> float:
    """The most that this process had in use so far, on its accelerator or else in the machine's memory; GB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def stragglers(paces: Sequence[float]) -> list[tuple[int, float]]:
    """Ranks that are slower than the others by more than a fifth, with the median of the others.

    Args:
        paces: images/s of each rank by itself; 0 for a rank without images.
    """
    working = [(rank, pace) for rank, pace in enumerate(paces) if pace > 0]
    medians = {rank: _median([p for r, p in working if r != rank]) for rank, _ in working}
    return [(rank, medians[rank]) for rank, pace in working if pace < SLOW * medians[rank]]


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return (ordered[middle] + ordered[-middle - 1]) / 2 if ordered else 0.0
