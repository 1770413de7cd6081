"""Real ranks for tests: processes in a gloo group; what each returns comes back through a file."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

from p2p import dist, meeting


def run_ranks(world: int, function: Callable[..., Any], *args: Any, folder: Path) -> list[Any]:
    """Call `function(*args)` on `world` ranks, each a process of one thread; returns what each returned."""
    port = free_port()
    mp.spawn(_worker, (world, port, function, args, folder), nprocs=world)
    return [torch.load(folder / f"rank{r}.pt", weights_only=False) for r in range(world)]


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _worker(rank: int, world: int, port: int, function: Callable[..., Any], args: Any, folder: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.start(torch.device("cpu"), meeting.meet() if world > 1 else torch.distributed.HashStore(), alone=True)
    torch.save(function(*args), folder / f"rank{rank}.pt")
    dist.stop()
    os._exit(0)  # gloo's threads now and then abort a process that ends by itself
