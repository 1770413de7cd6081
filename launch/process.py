"""What a process owes to whoever started it: to stop when it is told, and not to come back in vain."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

import torch

from p2p import dist


class Signals:
    """Signals as wishes, while this is entered: USR1 (time is up), TERM (leave this machine), INT (somebody's Ctrl-C).

    Whoever trains asks for the wish between two steps, so that all ranks save the same one. Before training, while
    ranks wait for each other, TERM and INT end the process at once, and USR1 is remembered. A second Ctrl-C does not
    wait either.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        self._listen(signal.SIGUSR1)
        return self

    def training(self) -> None:
        """From here on TERM and INT are wishes too."""
        self._listen(signal.SIGTERM, signal.SIGINT)

    def ended(self) -> None:
        """From here on they end the process, as before."""
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.ended()

    def wish(self) -> int:
        """The signal that was sent, the most urgent of several; 0 for none."""
        return self.asked

    def _listen(self, *numbers: int) -> None:
        self.before |= {number: signal.signal(number, self._note) for number in numbers}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == self.asked == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = max(self.asked, number)


def exit_code(wish: int) -> int:
    """0 for USR1, whose sender wants a clean end; the shell's 128 + n for the others, so that a launcher that did not
    send it starts this again."""
    return 0 if wish == signal.SIGUSR1 else 128 + wish


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """The same kernels, adding in the same order, on every machine of a kind, while this is entered."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)


def give_up(*, alike: bool = True) -> None:
    """Have torchrun end: a mistake in what was given is not mended by starting again. `alike`: every rank asks."""
    if dist.restarts() and (dist.first_here() or not alike):
        os.kill(os.getppid(), signal.SIGTERM)
