"""Fetches what the order asks for next, before it does."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

from p2p.data.direct import Extent

REST_S = 30.0
"""Of a thread whose fetch failed; the store has been tried again and again by then."""
END_S = 1.0
"""For threads to end; one that waits for a store ends with the process."""


class Fetcher(Protocol):
    """What fetches: a `Cache`, a `Direct`."""

    def ensure(self, extent: Extent) -> None:
        """Fetch if it is absent."""


class Ahead:
    """Threads that have extents fetched, in sequence.

    What cannot be fetched is left to who reads it, who meets the error himself.

    Args:
        wanted: (position, extent), positions rising; the same extent may come again. An error of it ends the work.
        budget: bytes of extents that are fetched and not yet reached; one extent, where that is more.
    """

    def __init__(self, cache: Fetcher, wanted: Iterator[tuple[int, Extent]], budget: int, threads: int = 8) -> None:
        self._cache, self._wanted, self._budget = cache, iter(wanted), budget
        self._pull, self._changed = threading.Lock(), threading.Condition()
        self._stop = threading.Event()
        self._position = -1
        self._due: OrderedDict[Extent, int] = OrderedDict()  # extent -> last position that is known to want it
        self._bytes = 0
        self._threads = [threading.Thread(target=self._work, name="ahead", daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def reached(self, position: int) -> None:
        """Everything before this position was read."""
        with self._changed:
            self._position = max(position, self._position)
            while self._due and next(iter(self._due.values())) < self._position:
                self._bytes -= self._due.popitem(last=False)[0].size
            self._changed.notify_all()

    def close(self) -> None:
        """End, and wait for no store."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(END_S / len(self._threads))

    def _work(self) -> None:
        while (extent := self._next()) is not None:
            try:
                self._cache.ensure(extent)
            except (OSError, ValueError):
                self._stop.wait(REST_S)

    def _next(self) -> Extent | None:
        """The next extent to fetch, as soon as it is within the budget; None at the end."""
        with self._pull, suppress(OSError, ValueError):
            for position, extent in self._wanted:
                if self._stop.is_set() or self._admit(position, extent):
                    return None if self._stop.is_set() else extent
        return None

    def _admit(self, position: int, extent: Extent) -> bool:
        """Whether it has to be fetched; waits until it fits."""

        def fits() -> bool:
            full = self._bytes and self._bytes + extent.size > self._budget
            return not full or extent in self._due or self._stop.is_set()

        with self._changed:
            self._changed.wait_for(fits)
            if position < self._position:  # too late
                return False
            new = extent not in self._due
            self._due[extent] = position
            self._due.move_to_end(extent)
            self._bytes += new * extent.size
            return new
