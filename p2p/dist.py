"""The process group: one process, or as many as a launcher started. The only room that reads the environment."""

import datetime
import os
import socket
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as td
from torch import Tensor

set_timeout = getattr(td.distributed_c10d, "set_timeout", None) or td.distributed_c10d._set_pg_timeout
"""Its public name is new."""


PATIENCE = datetime.timedelta(seconds=45)
"""For ranks that have not come yet."""
TIMEOUT = datetime.timedelta(minutes=5)
"""For a rank that is silent in the middle of training, though its connection stands."""


def launched() -> bool:
    """Whether a launcher such as `torchrun` started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def elastic() -> bool:
    """Whether this process is a worker of torchrun, which starts it again when a rank dies."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def restarts() -> bool:
    """Whether torchrun would start this machine's ranks again."""
    return elastic() and os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0"


def first_here() -> bool:
    """Whether this rank speaks for its machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def unaware() -> int:
    """Tasks that `srun` started as so many single processes; 0 where a launcher is at work."""
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    return tasks if tasks > 1 and "WORLD_SIZE" not in os.environ else 0


def rank() -> int:
    """Of this process, 0 when alone; known before the process group is."""
    return td.get_rank() if td.is_initialized() else int(os.environ.get("RANK", "0"))


def world() -> int:
    """Number of ranks, 1 when alone; known before the process group is."""
    return td.get_world_size() if td.is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))


def joined() -> int:
    """Ranks in the process group; 1 where there is none, whatever the launcher says."""
    return td.get_world_size() if td.is_initialized() else 1


def host() -> str:
    """Name of this machine."""
    return socket.gethostname()


def job() -> str:
    """What a scheduler or launcher calls this job, the same when it starts again; empty for neither."""
    for name, variable in (("slurm job", "SLURM_JOB_ID"), ("torchrun", "TORCHELASTIC_RUN_ID")):
        if os.environ.get(variable, "none") != "none":
            return f"{name} {os.environ[variable]}"
    return ""


def device() -> torch.device:
    """The accelerator of this process where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device("cpu")


def address() -> str:
    """Where the launcher has the ranks meet."""
    return f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"


def attempt() -> str:
    """How often torchrun has started these ranks, where that matters: they may share their agent's store, which
    still holds what their dead predecessors left there."""
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if shared else "0"


def start(device: torch.device, store: td.Store, *, alone: bool = False) -> None:
    """Join the process group: NCCL between GPUs, gloo between CPUs. A single process has one only if `alone` asks."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if launched() or alone:
        os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed asks for it
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        # Connecting is a matter of seconds, and so is noticing that a rank is gone before it connects.
        td.init_process_group(backend, store=store, rank=rank(), world_size=world(), timeout=PATIENCE)
        total(torch.zeros(1))
        set_timeout(TIMEOUT)


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


def broadcast(tensor: Tensor) -> None:
    """Overwrite with the main rank's values."""
    if td.is_initialized():
        td.broadcast(tensor, 0)


def gathered(values: Sequence[float]) -> list[list[float]]:
    """The numbers of every rank; every rank gets them."""
    table = torch.zeros(world(), len(values), dtype=torch.float64)
    table[rank()] = torch.tensor(values, dtype=torch.float64)
    return total(table).tolist()


def all_rows(mine: Tensor) -> Tensor:
    """The rows `[n, ...]` of every rank, those of rank 0 first, without gradients; `n` may differ from rank to rank. In
    a step that is the order of positions, where each rank gives the rows of all its micro-batches."""
    if not td.is_initialized():
        return mine.detach()
    counts = [int(count) for (count,) in gathered([float(len(mine))])]
    padded = mine.detach().new_zeros(max(counts), *mine.shape[1:])
    padded[: len(mine)] = mine.detach()
    found = [torch.empty_like(padded) for _ in counts]
    td.all_gather(found, padded)
    return torch.cat([rows[:count] for rows, count in zip(found, counts, strict=True)])


def texts(mine: str) -> list[tuple[str, str]]:
    """Each rank's host and text; every rank gets them."""
    if not td.is_initialized():
        return [(host(), mine)]
    gathered: list[Any] = [None] * world()
    td.all_gather_object(gathered, (host(), mine))
    return gathered


def union(items: dict[Any, Any]) -> dict[Any, Any]:
    """The ranks' entries together; nothing is sent where nobody has any."""
    if not td.is_initialized() or not total(torch.tensor(float(len(items)))):
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


class Vote:
    """The largest of the ranks' numbers, asked at every step. The answer is that of the step before, the same on every
    rank, so that nobody waits for it."""

    def __init__(self) -> None:
        self.asked: tuple[Any, Tensor] | None = None

    def __call__(self, mine: int) -> int:
        """Give this rank's number; returns the largest of the last time."""
        if not td.is_initialized():
            return mine
        answer = self.answer()
        ballot = torch.tensor(mine)
        self.asked = td.all_reduce(ballot, td.ReduceOp.MAX, async_op=True), ballot
        return answer

    def answer(self) -> int:
        """The largest of the last time, 0 if nothing was asked since."""
        if self.asked is None:
            return 0
        work, ballot = self.asked
        self.asked = None
        work.wait()
        return int(ballot)
