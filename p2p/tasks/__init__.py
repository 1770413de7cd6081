"""Tasks: which networks are trained, in which order, with which losses. A dict is the registry."""

from collections.abc import Callable

from p2p.tasks.pix2pix import Pix2Pix, Pix2PixHD
from p2p.tasks.task import KeptGenerator, NetworkRole, Task, TaskInputs, Turn, missing_parts

__all__ = [
    "TASKS",
    "KeptGenerator",
    "NetworkRole",
    "Pix2Pix",
    "Pix2PixHD",
    "Task",
    "TaskInputs",
    "Turn",
    "missing_parts",
]

TASKS: dict[str, Callable[..., Task]] = {"pix2pix": Pix2Pix, "pix2pixhd": Pix2PixHD}
"""By name; a class, whose keyword-only fields are its settings."""
