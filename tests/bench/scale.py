"""What a step's communication costs on real ranks, and what a small model of it predicts.

    python -m tests.bench.scale            # measure, fit and compare; needs root, 6 minutes
    python -m tests.bench.scale --table    # the tables of docs/scaling.md, computed from the model

Ranks speak gloo between network namespaces whose links `tc` shapes. The model is fitted to bare all-reduces of two
ranks at two rates; everything else is predicted. Steps are taken with and without communication in turn, in the same
processes; where four ranks would fight for two cores, the computation sleeps instead.
"""

import argparse
import json
import os
import signal
import sys
import time
from functools import partial
from typing import Any

import torch
import torch.distributed as td
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from p2p import dist, meeting
from p2p.engine import Engine
from p2p.loop import train
from p2p.networks import PatchGAN, UNet
from p2p.tasks import Pix2Pix
from tests.bench import machine
from tests.bench.scale_cluster import Cluster, run
from tests.bench.scale_model import PARAMETERS, PROFILE, Link, exposed_s, fit, reduce_s, tables, traffic

SIZES = {"4 bytes": [1], "PatchGAN": [PARAMETERS["PatchGAN 70"]], "U-Net": [int(s) // 4 for s, _ in PROFILE["G"]]}
"""What is reduced, in floats; a list is started at once, as DDP does with its buckets."""
FITTED = (Cluster(2, 1), Cluster(2, 5))
BARE = (*(Cluster(w, r) for w in (2, 4) for r in (1, 2.5, 5, 10)), Cluster(2, 1, 1e-3), Cluster(4, 1, 1e-3))
STEPS = {
    "asleep": (Cluster(1, 1), Cluster(2, 1), Cluster(2, 10), Cluster(4, 1), Cluster(4, 1, 1e-3)),
    "asleep, buckets": (*(Cluster(2, r) for r in (1, 2.5, 10)), Cluster(4, 1), Cluster(4, 2.5), Cluster(4, 1, 1e-3)),
    "real": (Cluster(1, 1), Cluster(2, 1), Cluster(2, 10)),
    "real, buckets": (Cluster(2, 1), Cluster(2, 2.5), Cluster(2, 10)),
}
"""Which steps are taken where."""

# What a rank does


def reductions() -> dict[str, float]:
    """Seconds of all-reduces of `SIZES`, the lower quartile: what else runs on these cores is not the network's."""
    found = {}
    for name, sizes in SIZES.items():
        tensors = [torch.ones(n) for n in sizes]
        seconds = sorted(reduce_all(tensors) for _ in range(100 if sizes == [1] else 5))
        found[name] = seconds[len(seconds) // 4]
    return found


def reduce_all(tensors: list[torch.Tensor]) -> float:
    """Seconds on this rank."""
    dist.barrier()
    began = time.perf_counter()
    for work in [td.all_reduce(t, async_op=True) for t in tensors]:
        work.wait()
    return time.perf_counter() - began


class Sleep(torch.autograd.Function):
    """Identity whose backward sleeps and gives `p` a gradient of zeros."""

    @staticmethod
    def forward(ctx, x, p, seconds):
        ctx.save_for_backward(p)
        ctx.seconds = seconds
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        time.sleep(ctx.seconds)
        return grad, torch.zeros_like(ctx.saved_tensors[0]), None


class Asleep(nn.Module):
    """A network's weights in their order; the backward takes `seconds` and no core, shared evenly by the tensors."""

    def __init__(self, net: nn.Module, seconds: float) -> None:
        super().__init__()
        self.weights = nn.ParameterList(torch.zeros(p.shape) for p in net.parameters())
        self.seconds = seconds / len(self.weights)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for p in self.weights:
            x = Sleep.apply(x, p, self.seconds)
        return x


class Turns:
    """D's turn, then G's."""

    def turns(self, batch, nets):
        for name in "DG":
            yield nets[name], {name: nets[name](batch["x"]).mean()}, {}


def asleep(buckets: bool = False) -> dict[str, Any]:
    """Steps with the tensors of U-Net 256 and PatchGAN 70, whose backwards sleep 0.9 s."""
    return steps(Turns(), {"D": Engine(Asleep(PatchGAN(), 0.2)), "G": Engine(Asleep(UNet(), 0.7))}, buckets)


def real(buckets: bool = False) -> dict[str, Any]:
    """pix2pix steps."""
    kinds: Any = {"precision": "bf16", "channels_last": True}
    return steps(Pix2Pix(), {"G": Engine(UNet(), **kinds), "D": Engine(PatchGAN(), **kinds)}, buckets)


def steps(task: Any, nets: dict[str, Engine], buckets: bool) -> dict[str, Any]:
    """Seconds of the shortest of some steps with communication and without, 256 pixels, one picture a rank; and of
    each bucket the bytes and how many seconds before the network's last it was ready. `buckets`: as the engine
    reduces; else each network in one piece."""
    talk, log = [True], {name: [] for name in nets}
    for name, engine in nets.items():
        if engine.ddp is not None:
            engine.ddp = engine.ddp if buckets else DistributedDataParallel(engine.net)
            engine.ddp.register_comm_hook(log[name], lambda log, bucket: hook(log, bucket, talk[0]))
    share = dict(zip("xy", torch.randint(0, 256, (2, 1, 3, 256, 256), dtype=torch.uint8), strict=True))
    taken: dict[bool, list[Any]] = {True: [], False: []}
    for _ in range(6):
        for talk[0] in taken:
            for entries in log.values():
                entries.clear()
            dist.barrier()
            began = time.perf_counter()
            train(task, nets, [share], total=dist.world(), batch=dist.world())
            dist.barrier()  # the slowest rank counts
            ready = {name: [(size, entries[-1][1] - at) for size, at in entries] for name, entries in log.items()}
            taken[talk[0]].append((time.perf_counter() - began, ready))
    (step, _), (compute, ready) = (min(taken[talking][1:], key=lambda pair: pair[0]) for talking in (True, False))
    return {"step": step, "compute": compute, "buckets": ready}


def hook(log: list[tuple[int, float]], bucket: Any, talk: bool) -> Any:
    """Note the bucket; reduce it, or only give it back."""
    log.append((bucket.buffer().nbytes, time.perf_counter()))
    if talk:
        return allreduce_hook(None, bucket)
    done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


JOBS = {"reductions": reductions, "asleep": asleep, "asleep, buckets": partial(asleep, True)}
JOBS |= {"real": real, "real, buckets": partial(real, True)}


def work(name: str) -> None:
    """Be a rank."""
    torch.set_num_threads(1)
    dist.start(torch.device("cpu"), meeting.meet() if dist.launched() else td.HashStore())
    found = JOBS[name]()
    if dist.main():
        print(json.dumps(found), flush=True)
    dist.stop()


# What is made of it


def job(cluster: Cluster, name: str) -> Any:
    """Run a job on a cluster."""
    return run(cluster, "tests.bench.scale", "--job", name)


def measure() -> None:
    """Measure, fit and compare."""
    print(f"gloo on {machine()}")
    found = {cluster: job(cluster, "reductions") for cluster in BARE}
    points = [(traffic(4 * sum(SIZES[n]), 2) / nominal(c), 2, s) for c in FITTED for n, s in found[c].items()]
    usable, hop = fit(points)
    print(f"fitted to the all-reduces of {' and '.join(map(str, FITTED))}:")
    print(f"{usable:.3f} of the rate, {hop * 1e6:.0f} us a hop", flush=True)
    for cluster, seconds in found.items():
        for name, s in seconds.items():
            predicted = reduce_s(4 * sum(SIZES[name]), cluster.world, link(cluster, usable, hop))
            show(f"{cluster}: {name}", s, predicted)
    for name, clusters in STEPS.items():
        for cluster in clusters:
            compare(name, cluster, link(cluster, usable, hop))


def nominal(cluster: Cluster) -> float:
    """Bytes a second."""
    return cluster.gigabits * 1e9 / 8


def link(cluster: Cluster, usable: float, hop: float) -> Link:
    """The model's link; what `tc` was told, and the fit."""
    return Link(nominal(cluster) * usable, hop + cluster.delay)


def compare(name: str, cluster: Cluster, link: Link) -> None:
    """Steps of a job, measured and predicted from its own computation."""
    found = job(cluster, name)
    compute, nets = found["compute"], found["buckets"].values()

    def reduce(size: float) -> float:
        return reduce_s(size, cluster.world, link)

    late = sum(exposed_s(buckets, reduce) for buckets in nets)
    whole = sum(reduce(size) for buckets in nets for size, _ in buckets)
    hidden = f"of {whole:.2f} s of reductions {1 - late / whole:.0%} hidden" if whole else "nothing to reduce"
    show(f"{cluster}: {name} step, computation {compute:.2f} s, {hidden}", found["step"], compute + late)
    shares = {net: [(size, round(left / compute, 3)) for size, left in b] for net, b in found["buckets"].items()}
    if name == "real, buckets":
        print(shares)


def show(what: str, measured: float, predicted: float) -> None:
    """A line of a comparison, in ms."""
    print(f"{measured * 1e3:9.2f}, model {predicted * 1e3:9.2f}, {predicted / measured - 1:+5.0%}  {what}", flush=True)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="print the tables; needs no root")
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        work(args.job)
    elif args.table:
        print("\n\n".join(tables().values()))
    elif os.geteuid():
        print("scale: network namespaces need root; run it as root, or with --table", file=sys.stderr)
        return 2
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        measure()
    return 0


if __name__ == "__main__":
    sys.exit(main())
