"""A worker dies with its launcher. Its own module, without torch, so that this can be said before torch is imported."""

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1
"""Linux, prctl(2)."""


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
