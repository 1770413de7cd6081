"""What a run goes on from: its newest checkpoint, as long as it is of the same experiment."""

import json
from pathlib import Path
from typing import Any

from p2p import checkpoint
from p2p import config as conf
from p2p.experiment import Experiment


def resumable(experiment: Experiment, folder: Path) -> dict[str, Any] | None:
    """The state of the checkpoint that a run in `folder` goes on from; None where it begins.

    Raises:
        ValueError: the checkpoint is incomplete, or its samples came in another order than the experiment's.
    """
    path = checkpoint.newest(folder)
    if path is None:
        return None
    state = checkpoint.read_state(path)
    for name, value in experiment.pinned.items():
        if state["order"].get(name) != value:
            raise ValueError(
                f"{path}: was trained with {name} {state['order'].get(name)} of the order, now it is {value};"
                " give the run's own settings, or another --run folder"
            )
    stage, now = state.get("stage", 0), experiment.at(state["images"]).stage
    if stage not in (now, now - 1):
        raise ValueError(
            f"{path}: is of stage {stage}, but after {state['images']:,} images the settings are in stage {now};"
            " give the run's own schedules, or another --run folder"
        )
    return state


def generations(folder: Path) -> list[int]:
    """Of the index of each training source, those that the run in a folder began with; none where it begins.

    Shards that were added since then belong to other runs.
    """
    path = checkpoint.newest(folder)
    return checkpoint.read_state(path).get("generations", []) if path else []


def beginning(experiment: Experiment, folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint that an experiment begins or goes on with, and its state: the newest of the run, or what
    `init_from` names; None where weights are new.

    Raises:
        ValueError: it is incomplete, or of another experiment.
    """
    state = resumable(experiment, folder)
    if state is not None:
        return checkpoint.folder(folder, state["images"]), state
    if not experiment.given.init_from:
        return None
    path = checkpoint.resolve(Path(experiment.given.init_from))
    return path, checkpoint.read_state(path)


def difference(run: Path, config: conf.Config) -> list[str]:
    """Settings in which a run's last checkpoint differs, as `section.name: before -> now`."""
    path = checkpoint.newest(run)
    if path is None or not (path / "config.yaml").is_file():
        return []
    try:
        before = flat(conf.to_tree(conf.load(path / "config.yaml")))
    except ValueError as error:
        return [f"settings that cannot be compared ({error})"]
    now = flat(conf.to_tree(config))
    return [f"{k}: {before.get(k)} -> {now.get(k)}" for k in sorted(before | now) if before.get(k) != now.get(k)]


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings as `section.name` and JSON."""
    found: dict[str, str] = {}
    for name, value in tree.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: json.dumps(value)}
    return found
