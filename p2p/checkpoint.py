"""Checkpoints: a folder for each, written aside and renamed, complete or absent.

RUN/checkpoints/000012000/     after 12,000 images
    state.json                 the clock, what the order is pinned to, and the size of every other file
    config.yaml                every setting of the run
    G.safetensors ...          an engine each: weights and Adam's moments
    ema.safetensors            the averaged weights of G, where there are any
    generator.safetensors      G for use: `p2p.load`
    task.safetensors           what the task remembers, where it does

RUN/best/                      the generators that were the best in validation, and in best.json by what
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from math import isnan
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

STATE = "state.json"


def folder(run: Path, images: int) -> Path:
    """Where the checkpoint after `images` images lies."""
    return run / "checkpoints" / f"{images:012d}"


def saved(run: Path) -> list[Path]:
    """All checkpoints of a run, oldest first. What was being written when a process died is not among them."""
    return sorted(p for p in (run / "checkpoints").glob("[0-9]" * 12) if p.is_dir())


def newest(run: Path) -> Path | None:
    """The last checkpoint of a run, None where there is none."""
    return max(saved(run), default=None)


def save(
    run: Path,
    images: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    files: Mapping[str, bytes],
) -> Path:
    """Write a checkpoint: a safetensors file for each entry of `tensors`, which lie contiguous on the CPU, and `files`
    by name. Then `state` goes into state.json, and the whole is renamed into place.

    Raises:
        OSError: it cannot be written; nothing of it is left.
    """
    target = folder(run, images)
    aside = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        _write(aside, tensors, files)
        _seal(aside, {"images": images, **state})
        if target.exists():
            shutil.rmtree(target)
        aside.rename(target)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise OSError(f"{target}: cannot be written ({error}); make room, the same command goes on") from error
    _sync(target.parent)
    return target


def _write(aside: Path, tensors: Mapping[str, Mapping[str, Tensor]], files: Mapping[str, bytes]) -> None:
    for name, values in tensors.items():
        save_file(dict(values), aside / f"{name}.safetensors")
        (aside / f"{name}.safetensors").chmod(aside.stat().st_mode & 0o666)  # it is written for its owner only
    for name, content in files.items():
        (aside / name).write_bytes(content)


def _seal(aside: Path, state: Mapping[str, Any]) -> None:
    """Write state.json, with size and digest of all that lies there, and have everything on the disk."""
    written = {p.name: [p.stat().st_size, _digest(p)] for p in sorted(aside.iterdir())}
    (aside / STATE).write_text(json.dumps({**state, "files": written}, indent=1))
    for path in [*aside.iterdir(), aside]:
        _sync(path)


class Writer:
    """Writes in a thread, one thing after the other, while training goes on."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.pending: Future[None] | None = None

    def start(self, write: Callable[[], None]) -> None:
        """Begin to write, once what was begun before is done."""
        self.finish()
        self.pending = self.pool.submit(write)

    def check(self) -> None:
        """Notice a failure.

        Raises:
            OSError: what was written failed.
        """
        if self.pending and self.pending.done():
            self.finish()

    def finish(self) -> None:
        """Wait until everything is written.

        Raises:
            OSError: it failed.
        """
        pending, self.pending = self.pending, None
        if pending:
            pending.result()


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy in the memory of this machine, which training does not change."""
    return {name: t.detach().to("cpu", copy=True, memory_format=torch.contiguous_format) for name, t in tensors.items()}


def keep(run: Path, count: int) -> None:
    """Remove all but the newest `count` checkpoints."""
    for old in saved(run)[:-count]:
        gone = old.with_name(f".{old.name}.old")
        with suppress(OSError):  # somebody reads it, or it is a mount: no reason to stop training
            old.rename(gone)
    for gone in (run / "checkpoints").glob(".*.old"):
        shutil.rmtree(gone, ignore_errors=True)


BEST = "best"
"""Folder of a run, beside its checkpoints, with the generators that were the best in validation."""


def is_better(before: Mapping[str, Any], now: Mapping[str, Any], better: str) -> bool:
    """Whether a validation is the best of its stage so far. What lies beyond it on the clock, of a run that was cut off
    and went on from an earlier checkpoint, does not count."""
    alike = all(before.get(name) == now[name] for name in ("stage", "metric"))
    if not alike or before["images"] > now["images"] or isnan(before["value"]):
        return not isnan(now["value"])
    return bool(now["value"] < before["value"] if better == "lower" else now["value"] > before["value"])


def read_best(run: Path) -> dict[str, Any]:
    """Images, stage, metric and value of the best generators of a run; empty where nothing readable is. A process that
    died while it replaced them may have left only those before, which are put back."""
    with suppress(OSError):
        if not (run / BEST).exists():
            (run / f".{BEST}.old").rename(run / BEST)
    try:
        found = json.loads((run / BEST / f"{BEST}.json").read_text())
    except (OSError, ValueError):
        return {}
    usable = isinstance(found, dict) and isinstance(found.get("images"), int) and isinstance(found.get("value"), float)
    return found if usable else {}


def save_best(run: Path, about: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Write the best generators of a run, in place of those before.

    Raises:
        OSError: they cannot be written.
    """
    target, aside = run / BEST, run / f".{BEST}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        _write(aside, {}, {**files, f"{BEST}.json": json.dumps(about).encode()})
        for path in [*aside.iterdir(), aside]:
            _sync(path)
        old = run / f".{BEST}.old"
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.rename(old)
        aside.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise OSError(f"{target}: cannot be written ({error}); make room, the same command goes on") from error


def read_state(path: Path) -> dict[str, Any]:
    """What state.json says, once every file of the checkpoint has the size that it says.

    Raises:
        ValueError: the checkpoint is incomplete; names the file and the remedy.
    """
    try:
        state: dict[str, Any] = json.loads((path / STATE).read_text())
        files = {str(name): int(size) for name, (size, _) in state["files"].items()}
        if state["images"] != int(path.name) or not isinstance(state["order"], dict):
            raise ValueError("it is of another checkpoint")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path / STATE}: cannot be read ({error}); {_remedy(path)}") from error
    for name, size in files.items():
        found = (path / name).stat().st_size if (path / name).is_file() else None
        if found != size:
            what = "is missing" if found is None else f"has {found} bytes, {STATE} says {size}"
            raise ValueError(f"{path / name}: {what}; {_remedy(path)}")
    return state


def read_tensors(path: Path, name: str, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of one entry, the very bytes that were written.

    Raises:
        ValueError: the file is missing or damaged.
    """
    file = path / f"{name}.safetensors"
    try:
        if _digest(file) != state["files"][file.name][1]:
            raise ValueError("its bytes are not those that were written")
        return load_file(file)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: cannot be read ({error}); {_remedy(path)}") from error


def resolve(path: Path) -> Path:
    """A checkpoint: the folder itself, or the newest of a run.

    Raises:
        ValueError: it is neither.
    """
    found = newest(path) if (path / "checkpoints").is_dir() else path
    if found is None or not (found / STATE).is_file():
        raise ValueError(f"{path}: holds no checkpoint; give a run folder, or a folder below its checkpoints/")
    return found


def shapes(path: Path, name: str) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights of one entry; only the head of its file is read.

    Raises:
        ValueError: the file is missing or damaged.
    """
    file = path / f"{name}.safetensors"
    try:
        with safe_open(file, "pt") as opened:
            names = [n for n in opened.keys() if n.startswith("net/")]  # noqa: SIM118
            return {n[4:]: tuple(opened.get_slice(n).get_shape()) for n in names}
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file}: cannot be read ({error})") from error


def _remedy(path: Path) -> str:
    return f"remove {path} to go on from an older checkpoint"


def _digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Have the system write a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
