"""Worker processes that end with their parent, and progress that fits a terminal as well as a log."""

import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 256
"""Items that wait for a worker or for their turn."""

QUIET_S = 5.0
"""A log gets a line at most this often, and then only for a tenth more, or after `SILENT_S`."""
SILENT_S = 60.0


def guarded(work: Callable[[], int], interrupted: str) -> int:
    """Run a command for its exit code; a mistake is one line and 2, an interruption 130 and what is said of it."""
    try:
        return work()
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    except BrokenProcessPool:
        print("a worker process was killed, perhaps for memory; try fewer --processes", file=sys.stderr)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
    return 2


@contextmanager
def workers(processes: int) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes are ended at once when the block fails or is interrupted."""
    others = set(multiprocessing.active_children())
    # spawn: a forked child holds its siblings' pipes, and so would not see its parent die
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_start_worker)
    try:
        yield pool
    except BaseException:
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent decides
    warnings.simplefilter("ignore")  # PIL's doubts about odd metadata; what fails to decode is reported
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # Else the workers of a killed packer would go on writing beside those of its successor.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def in_order(pool: Executor, do: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """What `do` returns for each item, in their order; of any number of items only `AHEAD` are under way."""
    under_way: deque[Future[R]] = deque()
    for item in items:
        under_way.append(pool.submit(do, item))
        if len(under_way) > AHEAD:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def progress(items: Iterable[T], *, total: int, done: str, unit: str) -> Iterator[T]:
    """Pass the items on; on stderr a bar, or where that is no terminal `checked 120 of 1000 pairs`."""
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=done, unit=f" {unit}")
        return
    said, said_s = 0, time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        silent_s = time.monotonic() - said_s
        due = silent_s >= QUIET_S and (count - said >= total / 10 or silent_s >= SILENT_S)
        if due or count == total:
            print(f"{done} {count} of {total} {unit}", file=sys.stderr, flush=True)
            said, said_s = count, time.monotonic()
