"""Memory and time of a training step of pix2pixHD, and of inference: `python -m tests.bench.memory --size 512x1024`.

The paper's nets: below 1024 rows the global G and D at 2 scales, from there on the local G and D at 3 scales; 35
classes and boundaries, batch 1, no VGG unless its weights are given. Every case has a process of its own, which makes
one small step, so that Adam has its moments, and then the one that counts. Memory is what the process grew by since
before there were networks: its peak on a CPU, what torch allocated at most on a GPU.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from p2p.config import Inference
from p2p.data.views import View
from p2p.engine import Engine
from p2p.forward import Forward
from p2p.generator import Generator
from p2p.loop import train
from p2p.networks import MultiScale
from p2p.networks.blocks import set_recompute
from p2p.networks.network import part_alone, parts
from p2p.networks.vgg import load_vgg
from p2p.spec import Spec
from p2p.tasks.pix2pix import Pix2PixHD
from p2p.tiles import tiled
from tests.bench import machine, median

GIB = 2**30
VIEW = View(classes=35, boundaries=True)
FULL = "memory", "alloc", "could not create a primitive"
"""How torch and oneDNN say that there is no more."""


@dataclass(frozen=True)
class Case:
    """What is switched on."""

    inference: bool = False
    precision: str = "fp32"
    channels_last: bool = False
    recompute: bool = False
    """Segments of G are computed again."""
    again: bool = False
    """All of G's forward is, as for micro-batches."""
    alone: bool = False
    """Of G the newest enhancer learns."""
    batch: int = 1
    micro: int = 0
    tiles: bool = False


ALL: dict[str, Any] = {"precision": "bf16", "channels_last": True, "recompute": True}
CASES = {
    "step, fp32": Case(),
    "recompute": Case(recompute=True),
    "bf16": Case(precision="bf16"),
    "bf16, channels_last, recompute": Case(**ALL),
    "channels_last": Case(channels_last=True),
    "bf16, channels_last": Case(precision="bf16", channels_last=True),
    "enhancer alone": Case(alone=True),
    "enhancer alone, bf16, channels_last, recompute": Case(alone=True, **ALL),
    "batch 2": Case(batch=2),
    "batch 2 as 2 x 1": Case(batch=2, micro=1, again=True),
    "batch 2 as 2 x 1, nothing again": Case(batch=2, micro=1),
    "batch 2 as 2 x 1, bf16, channels_last, recompute": Case(batch=2, micro=1, **ALL),
    "inference, fp32": Case(inference=True),
    "inference, bf16": Case(inference=True, precision="bf16"),
    "inference, tiles": Case(inference=True, tiles=True),
    "inference, tiles, bf16": Case(inference=True, tiles=True, precision="bf16"),
}


def spec(args: argparse.Namespace) -> Spec:
    """G of the paper, or a thinner one."""
    local = args.size[0] >= 1024
    return Spec("local" if local else "global", {"width": args.width // (2 if local else 1)}, (36, 3), args.size)


def batch_of(size: tuple[int, int], count: int, device: torch.device) -> dict[str, Tensor]:
    """Random labels, photographs and square instances, as the reader gives them."""
    H, W = size
    generator = torch.Generator().manual_seed(0)
    square = torch.arange(H)[:, None] // 64 * 64 + torch.arange(W) // 64
    return {
        "x": torch.randint(0, 35, (count, 1, H, W), dtype=torch.uint8, generator=generator).to(device),
        "y": torch.randint(0, 256, (count, 3, H, W), dtype=torch.uint8, generator=generator).to(device),
        "instances": square.to(device, torch.int32).expand(count, 1, H, W),
    }


def stepper(args: argparse.Namespace, case: Case) -> Callable[[tuple[int, int], int], None]:
    """-> a training step at a size, on a number of images; as `p2p.build` makes its engines."""
    G, D = spec(args).build(), MultiScale(39, scales=3 if args.size[0] >= 1024 else 2, width=args.width)
    if case.alone:
        for name, weight in G.named_parameters():
            weight.requires_grad_(name.startswith(part_alone(G)))
    if case.recompute:
        set_recompute(G)
    called: dict[str, Any] = {
        "device": args.device, "precision": case.precision, "channels_last": case.channels_last,
    }  # fmt: skip
    nets: dict[str, Forward] = {
        "G": Engine(G, parts=parts(G), recompute=case.again, **called),
        "D": Engine(D, parts=parts(D), **called),
    }
    if args.vgg:
        name = "vgg16" if "vgg16" in args.vgg.name else "vgg19"
        nets["VGG"] = Forward(load_vgg(name, "imagenet", args.vgg), **called)
    task = Pix2PixHD(perceptual=10.0 if args.vgg else 0.0)

    def step(size: tuple[int, int], count: int) -> None:
        batch = batch_of(size, count, args.device)
        train(task, nets, [batch], total=count, batch=count, micro=case.micro, view=VIEW)

    return step


def translator(args: argparse.Namespace, case: Case) -> Callable[[tuple[int, int], int], None]:
    """-> a translation at a size."""
    G = Generator(spec(args).build().to(args.device), spec(args), Inference())

    def translate(size: tuple[int, int], count: int) -> None:
        batch = batch_of(size, count, args.device)

        def make(rows: slice, columns: slice) -> Tensor:
            seen = {name: batch[name][..., rows, columns] for name in ("x", "instances")}
            return G(VIEW.encode(seen)["x"])

        with torch.autocast(args.device.type, torch.bfloat16, enabled=case.precision == "bf16"):
            if case.tiles:
                tiled(make, size, tile=args.tile, overlap=args.overlap, multiple=int(G.net.size))
            else:
                make(slice(None), slice(None)).cpu()

    return translate


def measure(args: argparse.Namespace, case: Case) -> dict[str, Any]:
    """Peak bytes and seconds of a case in this process."""
    cuda = args.device.type == "cuda"
    restrict(args)
    before = 0 if cuda else resident()
    run = (translator if case.inference else stepper)(args, case)
    run((64, 128), 1)
    if cuda:
        run(args.size, case.batch)  # cuDNN chooses, and keeps what it needs
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(args.repeats):
        began = time.perf_counter()
        run(args.size, case.batch)
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"peak": peak - before, "seconds": median(seconds)}


def resident() -> int:
    """Bytes of this process in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def restrict(args: argparse.Namespace) -> None:
    """No more memory than was allowed: an error, not a machine without memory."""
    if not args.limit:
        return
    if args.device.type == "cuda":
        share = args.limit * GIB / torch.cuda.get_device_properties(args.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(share, 1.0))
    else:
        resource.setrlimit(resource.RLIMIT_DATA, (int(args.limit * GIB),) * 2)


def child(args: argparse.Namespace) -> None:
    """Measure one case and print it as a line of JSON."""
    try:
        print(json.dumps(measure(args, CASES[args.case])))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(word in str(error).lower() for word in FULL):
            raise
        print(json.dumps({"failed": True}))


def ask(argv: list[str], name: str) -> dict[str, Any]:
    """Measure one case in a process of its own; a killed one did not fit."""
    command = [sys.executable, "-m", "tests.bench.memory", *argv, "--case", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode > 0:
        raise SystemExit(f"{name}: exit code {done.returncode}")
    lines = done.stdout.splitlines()
    return json.loads(lines[-1]) if lines and not done.returncode else {"failed": True}


def sides(text: str) -> tuple[int, int]:
    h, w = map(int, text.split("x"))
    return h, w


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=sides, default=(512, 1024), metavar="HxW")
    parser.add_argument("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--width", type=int, default=64, help="of G's trunk, and of D (%(default)s)")
    parser.add_argument("--tile", type=sides, default=(512, 512), metavar="HxW")
    parser.add_argument("--overlap", type=int, default=64)
    parser.add_argument("--repeats", type=int, help="1 on a CPU, 5 on a GPU")
    parser.add_argument("--limit", type=float, default=0, help="GiB a process may take, torch and all; 0: no limit")
    parser.add_argument("--vgg", type=Path, help="weights of VGG-19, or of VGG-16 where the name says so")
    parser.add_argument("--cases", nargs="+", choices=CASES, metavar="CASE", help=f"some of: {'; '.join(CASES)}")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.repeats = args.repeats or (5 if args.device.type == "cuda" else 1)
    return args


def main() -> None:
    args = arguments()
    if args.case:
        return child(args)
    names = args.cases or [n for n, case in CASES.items() if args.size[0] >= 1024 or not case.alone]
    H, W = args.size
    print(f"pix2pixHD, {H}x{W}, width {args.width}, {args.device.type}, on {machine()}\n")
    print("| case | peak GiB | seconds | memory, time against the first of its kind |\n|---|---|---|---|", flush=True)
    first: dict[bool, dict[str, Any]] = {}
    for name in names:
        found = ask(sys.argv[1:], name)
        if "failed" in found:
            print(f"| {name} | does not fit{f' in {args.limit:g} GiB' * bool(args.limit)} | | |", flush=True)
            continue
        base = first.setdefault(CASES[name].inference, found)
        ratios = ", ".join(f"{found[key] / base[key]:.2f}" for key in ("peak", "seconds"))
        print(f"| {name} | {found['peak'] / GIB:.2f} | {found['seconds']:.1f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
