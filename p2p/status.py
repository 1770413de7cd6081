"""Who works in a run folder, and how far it came: a lock that dies with its process, and a few lines for people."""

import fcntl
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from p2p import dist, meeting

FILE = "status.json"
LOCK = ".lock"
OWN_PATIENCE = 30.0
"""Seconds that a job which starts again waits for what is left of itself."""


def hold(run: Path) -> FileLock:
    """Take a run folder for this process alone, until it ends.

    Raises:
        ValueError: another job works in it; says which.
        NotYetError: what is left of this job does.
    """
    run.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run / LOCK)
    before = read(run)
    mine = dist.job() and before.get("job") == dist.job()
    try:
        lock.acquire(timeout=OWN_PATIENCE if mine else 1)
    except Timeout:
        who = read(run)
        name = who.get("job") or f"process {who.get('pid')}"
        said = f"{run}: {name} on {who.get('host')} is training in it; wait for its end, or give another --run folder"
        raise (meeting.NotYetError if mine else ValueError)(said) from None
    write(run, "running")
    return lock


def held(run: Path) -> bool:
    """Whether a process works in a run folder now."""
    try:
        handle = os.open(run / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(handle)


def write(run: Path, state: str, **more: Any) -> None:
    """Note the state of a run: `running`, `stopped` on request, `finished` or `failed`."""
    who = {"host": dist.host(), "pid": os.getpid(), "job": dist.job(), "ranks": dist.world()}
    run.mkdir(parents=True, exist_ok=True)
    aside = run / f".{FILE}.tmp"
    aside.write_text(json.dumps({**read(run), "state": state, "time": time.time(), **who, **more}, indent=1))
    os.replace(aside, run / FILE)


def read(run: Path) -> Mapping[str, Any]:
    """What was noted last; empty where nothing readable is."""
    try:
        found = json.loads((run / FILE).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
