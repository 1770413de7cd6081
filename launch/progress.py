"""How far a command came, on stderr: a bar, or where that is no terminal a line now and then."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

QUIET_S = 5.0
"""A log gets a line at most this often."""

T = TypeVar("T")


def progress(items: Iterable[T], *, total: int, done: str, unit: str) -> Iterator[T]:
    """Pass the items on; `done` is what was done with so many `unit`."""
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=done, unit=f" {unit}")
        return
    said_s = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - said_s >= QUIET_S and count < total:
            print(f"{done} {count} of {total} {unit}", file=sys.stderr, flush=True)
            said_s = time.monotonic()
