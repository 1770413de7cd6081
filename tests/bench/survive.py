"""What it costs to survive: saving, exact sums, and the way back after a kill. `python -m tests.bench.survive`.

Saving: how long training stops for a snapshot, against writing it. Exact: the 256-pixel step, batch 4, in one process,
in parts of 4 images and of 1. Recovery: two gloo ranks under torchrun, of which one is killed: from the kill to the
next step, with networks of 256 pixels and with tiny ones, beside what a process needs to import torch and to load.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from p2p import checkpoint, config
from p2p.engine import Engine
from p2p.generator import FILE, Generator
from p2p.loop import train
from p2p.networks import PatchGAN, UNet
from p2p.spec import Spec
from p2p.tasks import Pix2Pix
from tests.bench import alternate, machine, median
from tests.conftest import write_pairs

SIDE, BATCH = 256, 4
ASSUMED = 300
"""Images/s of a GPU, where the share of the time at the shipped interval is computed."""


def nets(part: int = BATCH, **settings) -> dict[str, Engine]:
    """The recipes' networks."""
    common = {"precision": "bf16", "channels_last": True, **settings}
    return {"G": Engine(UNet(group=part), **common), "D": Engine(PatchGAN(group=part), **common)}


def step(engines: dict[str, Engine], micro: int = 0):
    """A function that takes one step."""
    pixels = torch.randint(0, 256, (2, BATCH, 3, SIDE, SIDE), dtype=torch.uint8)
    share = {"x": pixels[0], "y": pixels[1]}
    return lambda: train(Pix2Pix(), engines, [share], total=BATCH, batch=BATCH, micro=micro)


def saving(folder: Path) -> None:
    """Seconds of a snapshot, and of what the thread does with it."""
    engines = nets()
    taken = step(engines)
    taken()
    spec = Spec("unet", {}, (3, 3), SIDE, True, False)
    generator = Generator(engines["G"].net, spec, config.Inference())
    stops, writes, steps = [], [], []
    for images in range(1, 6):
        began = time.perf_counter()
        taken()
        steps.append(time.perf_counter() - began)
        began = time.perf_counter()
        tensors = {name: checkpoint.copied(engine.state()) for name, engine in engines.items()}
        tensors["ema"] = checkpoint.copied(engines["G"].net.state_dict())
        stored = generator.to_bytes()
        stops.append(time.perf_counter() - began)
        began = time.perf_counter()
        path = checkpoint.save(folder, images, tensors, {"order": {}}, {FILE: stored})
        writes.append(time.perf_counter() - began)
    size = sum(file.stat().st_size for file in path.iterdir()) / 1e6
    stop, write = statistics.median(stops), statistics.median(writes)
    every = config.Every().save
    here = every / BATCH * statistics.median(steps)
    print(f"saves every {every:,} images")
    print(f"checkpoint {size:,.0f} MB: training stops {stop:.2f} s, the thread writes {write:.2f} s more")
    for what, seconds in (("with the thread", stop), ("without it", stop + write)):
        print(f"  {what}: {seconds / here:.4%} of the time here, {seconds * ASSUMED / every:.2%} at {ASSUMED} images/s")


def exact(rounds: int) -> None:
    """The step with either reduction, in turn in one process."""
    runs = {
        "fast": step(nets()),
        "exact, parts of 4": step(nets(reduction="exact"), micro=4),
        "fast, parts of 1": step(nets(part=1, recompute=True), micro=1),
        "exact, parts of 1": step(nets(part=1, recompute=True, reduction="exact"), micro=1),
    }
    for name, seconds in (found := alternate(runs, rounds)).items():
        print(f"{name:20} {median(seconds):.3f} s a step, {median(seconds) / median(found['fast']):.2f} of fast")


def recovery(root: Path, kills: int, *, tiny: bool) -> None:
    """Kill one of two ranks, again and again, under one torchrun."""
    write_pairs(root / "pairs", 8, side=SIDE)
    pack = [sys.executable, "-m", "shards.pack", "pairs", str(root / "pairs"), str(root / "set"), "--input", "right"]
    subprocess.run(pack, check=True, capture_output=True)
    tree = {
        "data": {"train": str(root / "set"), "batch": 2, "load": 0, "mirror": False},
        "schedule": {"epochs": 9999},
        "every": {"log": 2, "save": 64 if tiny else 8, "pictures": 0, "validate": 0},
    }
    if tiny:
        tree |= {"G": {"size": 16, "width": 4}, "D": {"field": 16, "width": 4}}
        tree["data"] |= {"load": 32, "crop": 32}
    (root / "c.yaml").write_text(json.dumps(tree))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=99"]
    command += ["-m", "--", "launch.train", "--config", str(root / "c.yaml"), "--run", str(root / "run")]
    with open(root / "log", "w") as log:
        agent = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
    seconds = []
    for _ in range(kills):
        wait_for(root / "run", time.time(), steps=8)
        workers = subprocess.run(["pgrep", "-P", str(agent.pid)], capture_output=True, text=True).stdout.split()
        killed = time.time()
        os.kill(int(workers[-1]), signal.SIGKILL)
        seconds.append(wait_for(root / "run", killed + 0.5) - killed)
    agent.terminate()
    agent.wait()
    size = "tiny" if tiny else "256-pixel"
    middle, worst = statistics.median(seconds), max(seconds)
    print(f"{size} networks, from SIGKILL to a step: median {middle:.2f} s of {kills}, worst {worst:.2f} s")


def wait_for(run: Path, after: float, steps: int = 1) -> float:
    """When so many steps had been logged after a moment."""
    while True:
        try:
            times = [json.loads(line)["time"] for line in (run / "scalars.jsonl").read_text().splitlines()]
        except (OSError, ValueError):
            times = []
        later = [t for t in times if t > after]
        if len(later) >= steps:
            return later[steps - 1]
        time.sleep(0.01)


def loading(folder: Path) -> None:
    """What a worker does before its first step, alone on this machine."""
    code = f"""if True:
        import time; a = time.perf_counter()
        import launch.train; b = time.perf_counter()
        from tests.bench.survive import nets, step; n = nets(part=1); c = time.perf_counter()
        from p2p import checkpoint
        path = checkpoint.newest(__import__("pathlib").Path({str(folder)!r})); state = checkpoint.read_state(path)
        for name, engine in n.items(): engine.load(checkpoint.read_tensors(path, name, state))
        d = time.perf_counter()
        step(n)(); e = time.perf_counter(); step(n)(); f = time.perf_counter()
        print(f'imports {{b-a:.2f}} s, building {{c-b:.2f}} s, checked checkpoint {{d-c:.2f}} s', end=', ')
        print(f'first step {{e-d:.2f}} s, another {{f-e:.2f}} s')"""
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kills", type=int, default=6)
    args = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        saving(Path(folder) / "saved")
        loading(Path(folder) / "saved")
        for tiny in (True, False):
            recovery(Path(folder) / str(tiny), args.kills, tiny=tiny)
    exact(args.rounds)


if __name__ == "__main__":
    main()
