"""The process group: one process, or as many as `torchrun` started. The only room that reads the environment."""

import datetime
import os
from typing import Any

import torch
import torch.distributed as td
from torch import Tensor

TIMEOUT = datetime.timedelta(minutes=30)


def launched() -> bool:
    """Whether a launcher such as `torchrun` started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def rank() -> int:
    """Of this process, 0 when alone; known before the process group is."""
    return td.get_rank() if td.is_initialized() else int(os.environ.get("RANK", "0"))


def world() -> int:
    """Number of ranks, 1 when alone; known before the process group is."""
    return td.get_world_size() if td.is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))


def device() -> torch.device:
    """The accelerator of this process where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device("cpu")


def start(device: torch.device) -> None:
    """Join the process group: NCCL between GPUs, gloo between CPUs. Alone, nothing."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if launched():
        td.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)


def stop() -> None:
    """Leave the process group, where there is one."""
    if td.is_initialized():
        td.destroy_process_group()


def main() -> bool:
    """Whether this rank writes files and talks."""
    return rank() == 0


def barrier() -> None:
    """Wait for the other ranks."""
    if td.is_initialized():
        td.barrier()


def total(values: Tensor) -> Tensor:
    """Sum over ranks; every rank gets it."""
    if td.is_initialized():
        td.all_reduce(values)
    return values


def union(items: dict[Any, Any]) -> dict[Any, Any]:
    """The ranks' entries together; nothing is sent where nobody has any."""
    if not td.is_initialized() or not total(torch.tensor(float(len(items)), device=device())):
        return items
    gathered: list[Any] = [None] * world()
    td.all_gather_object(gathered, items)
    return {key: value for part in gathered for key, value in part.items()}


class ElsewhereError(Exception):
    """Every rank stops for the same reason, and the main one says it."""


def least(value: int, device: torch.device) -> int:
    """The smallest of the ranks' numbers."""
    if not td.is_initialized():
        return value
    tensor = torch.tensor(value, device=device)
    td.all_reduce(tensor, td.ReduceOp.MIN)
    return int(tensor)
