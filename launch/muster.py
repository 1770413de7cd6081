"""Before anything starts every rank says what it found; all start, or all end with the cause said once."""

import hashlib
import inspect
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as td

import p2p
from p2p import checkpoint, dist, meeting
from p2p import config as conf
from p2p.experiment import Experiment
from p2p.resume import flat, resumable

SEEN = "images seen in the run folder"
LATE = 30.0
"""Seconds that other machines may see a folder as it was; the usual of NFS."""


def muster(problem: str, identity: Callable[[], dict[str, str]]) -> tuple[td.Store, list[str]]:
    """Meet the other ranks and compare.

    Args:
        problem: what keeps this rank from starting; empty for nothing.
        identity: tells what must be the same on every rank; asked only where there is no problem.

    Returns:
        The store of the ranks, and the causes against starting, the same on every rank.

    Raises:
        NotYetError: the ranks do not find each other.
    """
    store = meeting.meet()
    if dist.main():
        store.set("identity", json.dumps({} if problem else identity()))
    main = json.loads(meeting.heard(store, "identity"))
    return store, causes(meeting.verdicts(store, problem or agreed(main, identity)))


def agreed(main: dict[str, str], identity: Callable[[], dict[str, str]]) -> str:
    """What this rank has otherwise than the main one. A shared disk may show a new checkpoint to other machines some
    seconds late, so that alone is waited for."""
    until = time.monotonic() + LATE
    while True:
        mine = identity()
        late = (
            main.get(SEEN) != mine[SEEN]
            and time.monotonic() < until
            and not difference(main, mine | {SEEN: main.get(SEEN, "")})
        )
        if not main or not late:
            return difference(main, mine)
        time.sleep(0.5)


def arrived(experiment: Experiment, folder: Path, images: int) -> int:
    """Images of the newest checkpoint, as soon as that after `images` images, which rank 0 has written, is seen here.

    Raises:
        ValueError: it is not seen in time, or it is damaged.
    """
    until = time.monotonic() + LATE
    while True:
        state = resumable(experiment, folder)
        found = int(state["images"]) if state else 0
        if found >= images:
            return found
        if time.monotonic() > until:
            raise ValueError(f"{folder}: the checkpoint after {images:,} images is not seen here; use a shared folder")
        time.sleep(0.5)


def identity(experiment: Experiment, run: Path) -> dict[str, str]:
    """What must not differ between ranks: settings, data, code, and where the run goes on."""
    state = resumable(experiment, run)
    return {
        **flat(conf.to_tree(experiment.given)),
        **{f"{name} of the order": str(value) for name, value in experiment.pinned.items()},
        "the validation set": experiment.val.fingerprint if experiment.val else "",
        "the code of p2p": code(experiment),
        "torch": torch.__version__,
        "the kind of device": dist.device().type,
        "what init_from names": "" if state else begun(experiment),
        SEEN: str(state["images"] if state else 0),
    }


def begun(experiment: Experiment) -> str:
    """The checkpoint that a new run begins with, which may be the newest of a run that goes on."""
    if not experiment.given.init_from:
        return ""
    path = checkpoint.resolve(Path(experiment.given.init_from))
    return f"{path.name} {hashlib.sha256((path / checkpoint.STATE).read_bytes()).hexdigest()[:12]}"


def code(experiment: Experiment) -> str:
    """Digest of the sources that train: p2p, and files of somebody's own pieces."""
    own = [type(experiment.task), type(experiment.view), *(m.values for m in experiment.metrics.values())]
    own += [type(module) for net in experiment.shapes.values() for module in net.modules()]
    ours = Path(p2p.__file__).parent
    files = {Path(file) for piece in own if (file := _file_of(piece)) and "site-packages" not in file}
    sources = [path.read_bytes() for path in sorted(ours.rglob("*.py"))]
    sources += sorted(path.read_bytes() for path in files if not path.is_relative_to(ours))
    return hashlib.sha256(b"".join(sources)).hexdigest()[:12]


def _file_of(piece: Any) -> str:
    """Where a class or a function is written; empty for what is in no file."""
    try:
        return inspect.getsourcefile(piece) or ""
    except TypeError:
        return ""


def difference(main: dict[str, str], mine: dict[str, str]) -> str:
    """What a rank has otherwise than the main one, which has nothing where it could not start itself."""
    names = [name for name in main if mine and main[name] != mine.get(name)]
    different = "; ".join(f"{name} is {mine.get(name)} here, {main[name]} on rank 0" for name in names)
    return f"{different}; start every rank with the same command, code and files" if names else ""


def causes(found: list[tuple[str, str]]) -> list[str]:
    """Each cause once, with the ranks and machines that have it where not all do."""
    lines = []
    for text in dict.fromkeys(text for _, text in found if text):
        ranks = [rank for rank, (_, other) in enumerate(found) if other == text]
        hosts = ", ".join(dict.fromkeys(found[rank][0] for rank in ranks))
        where = "" if len(ranks) == len(found) else f"rank {', '.join(map(str, ranks))} on {hosts}: "
        lines.append(where + text)
    return lines
