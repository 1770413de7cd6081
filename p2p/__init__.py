"""p2p: paired image translation, trained from tar shards on any number of machines.

p2p.load(run)                    a trained generator
p2p.train(task, nets, batches)   the loop, for a task of one's own
p2p.Engine(net)                  one optimiser with its network
p2p.Pix2Pix(), p2p.Pix2PixHD()   the tasks of the papers

A method of one's own needs no change here: subclasses of p2p.Task and p2p.View, networks and metrics go into the dicts
p2p.TASKS, p2p.VIEWS, p2p.NETWORKS and p2p.METRICS; see docs/extending.md.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "load": "p2p.generator",
    "Generator": "p2p.generator",
    "Engine": "p2p.engine",
    "train": "p2p.loop",
    "Pix2Pix": "p2p.tasks",
    "Pix2PixHD": "p2p.tasks",
    "UNet": "p2p.networks",
    "PatchGAN": "p2p.networks",
    "ResNet": "p2p.networks",
    "LocalEnhancer": "p2p.networks",
    "MultiScale": "p2p.networks",
    "NETWORKS": "p2p.networks",
    "Task": "p2p.tasks",
    "NetworkRole": "p2p.tasks",
    "KeptGenerator": "p2p.tasks",
    "TaskInputs": "p2p.tasks",
    "TASKS": "p2p.tasks",
    "View": "p2p.data.views",
    "VIEWS": "p2p.data.views",
    "Metric": "p2p.metrics",
    "METRICS": "p2p.metrics",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that packing shards does not import torch."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'p2p' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)
