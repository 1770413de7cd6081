"""Whether the working tree trains to the same bits as an older revision: `python -m tests.golden REV`.

Both train the same small runs by their own command lines, on this machine, in this virtual environment, from shards
that REV has packed. Of every checkpoint all weights, moments and averages are compared bit by bit, then the figures
that REV has logged, and the pictures that it has translated.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from p2p.networks.vgg import VGG
from tests.conftest import CLASSES, hd_tree, small_tree, write_maps, write_pairs

ROOT = Path(__file__).parents[1]
MIDDLE = 24
"""Images after which the runs of `RESUMED` are cut off and go on; every checkpoint is kept."""
UNEQUAL = ("time", "images/s", "wait", "memory", "ranks/", "pace")
"""Figures that are of the machine, by the beginnings of their names."""


class Run(NamedTuple):
    """A small run: its settings, on how many ranks it is trained, and what is translated with it."""

    settings: dict[str, Any]
    ranks: int = 1
    inputs: str = ""


def runs(folder: Path) -> dict[str, Run]:
    """The runs by name; their shards and weights lie in `folder`."""
    pairs, maps = small_tree(folder / "pairs"), hd_tree(folder / "maps")
    for tree in (pairs, maps):
        tree["every"] |= {"save": 12, "keep": 9}
    averaged = {"ema": {"half_life": 16}, "inference": {"statistics": "running"}}
    perceptual = {"perceptual": 10.0, "vgg": "vgg16", "vgg_weights": str(folder / "vgg16.safetensors")}
    whole = {
        "task": {"name": "pix2pixhd", "features": 2, **perceptual},
        "G": {"name": "global", "width": 4, "downs": 1, "blocks": 1},
        "coarse": [],
        "schedule": {"name": "hd", "epochs": 1, "decay": 1},
    }
    wgan = {"task": {"gan": "wgan", "first": "G"}, "D": {"name": "patch", "field": 16, "width": 4, "norm": "none"}}
    # In channels_last a CPU rounds a convolution otherwise where weights and pictures lie differently in memory, and
    # DeepSpeed keeps weights contiguous, so how G's input was put together would show.
    zero = {"precision": "fp32", "channels_last": False, "name": "deepspeed", "zero_stage": 1}
    return {
        "pix2pix": Run(pairs | averaged | {"data": pairs["data"] | {"micro": 2}}, inputs="pairs/val"),
        "bf16": Run(pairs | {"engine": {"precision": "bf16"}}, inputs="pictures"),
        "wgan": Run(pairs | wgan),
        "exact": Run(pairs | {"engine": {"precision": "fp32", "reduction": "exact"}}, ranks=2),
        "pix2pixhd": Run(maps | whole, inputs="maps/val"),
        "stages": Run(maps, inputs="maps/val"),
        "ranks": Run(pairs | averaged, ranks=2),
        "ranks_hd": Run(maps | whole | {"data": maps["data"] | {"micro": 1}}, ranks=2),
        "zero": Run(maps | {"engine": zero}, ranks=2),
    }


RESUMED = ("pix2pix", "stages", "ranks_hd")
"""Runs that also go on from REV's checkpoint in the middle."""


class Tree(NamedTuple):
    """A revision of the project, and the folder that its runs go to."""

    source: Path
    out: Path

    def python(self, *command: object, ranks: int = 1) -> None:
        """Run a module of this tree, alone or under torchrun.

        Raises:
            SystemExit: it failed; shows the end of what it said.
        """
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] * (ranks > 1)
        whole = [sys.executable, *launcher, "-m", *["--"] * (ranks > 1), *map(str, command)]
        environment = os.environ | {"PYTHONPATH": str(self.source), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(whole, cwd=self.source, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{self.source}: {' '.join(whole)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")

    def train(self, name: str, run: Run) -> None:
        """Train a run, or go on with it."""
        config = self.out / f"{name}.yaml"
        config.write_text(json.dumps(run.settings))
        self.python("launch.train", "--config", config, "--run", self.out / name, ranks=run.ranks)

    def translate(self, name: str, given: Path) -> None:
        """Translate with what a run has stored."""
        self.python("launch.translate", self.out / name, given, "--out", self.out / f"{name}.translated")


def prepare(folder: Path, tree: Tree) -> None:
    """Pictures, shards packed by `tree`, and weights of a VGG that has seen nothing."""
    write_pairs(folder / "source" / "train", 24)
    write_pairs(folder / "source" / "val", 6, first=100)
    write_maps(folder / "maps-source", "train", 24)
    write_maps(folder / "maps-source", "val", 6, first=100)
    labels = ["labels", folder / "maps-source", folder / "maps", "--classes", CLASSES, "--samples", 7]
    tree.python("shards.pack", *labels)
    tree.python("shards.pack", "pairs", folder / "source", folder / "pairs", "--input", "right", "--samples", 7)
    (folder / "pictures").mkdir()
    colours = np.random.default_rng(0).integers(0, 256, (30, 41, 3), np.uint8)
    Image.fromarray(colours).save(folder / "pictures" / "odd.png")
    torch.manual_seed(0)
    save_file(VGG("vgg16").state_dict(), folder / "vgg16.safetensors")


def play(tree: Tree, name: str, run: Run, shards: Path) -> None:
    """All that a tree does with a run."""
    tree.train(name, run)
    if run.inputs:
        tree.translate(name, shards / run.inputs)


def cut(old: Tree, new: Tree, name: str) -> str:
    """Give both trees REV's run as it was in the middle, under another name, which is returned."""
    later = f"{name}.resumed"
    for tree in (old, new):
        shutil.copytree(old.out / name, tree.out / later, ignore=shutil.ignore_patterns("status.json"))
        for checkpoint in (tree.out / later / "checkpoints").iterdir():
            if int(checkpoint.name) > MIDDLE:
                shutil.rmtree(checkpoint)
    return later


def differences(old: Path, new: Path) -> Iterator[str]:
    """What is not the same in two folders of one run."""
    ours, theirs = (sorted(p.relative_to(at) for p in at.glob("checkpoints/*/*.safetensors")) for at in (new, old))
    if not theirs or ours != theirs:
        yield f"files: {', '.join(map(str, set(ours) ^ set(theirs))) or 'none were written'}"
    for file in sorted(set(ours) & set(theirs)):
        for name, (there, here) in paired(tensors(old / file), tensors(new / file)).items():
            if there is None or here is None:
                yield f"{file}: {name} is missing {'here' if here is None else 'there'}"
            elif there.dtype != here.dtype or not torch.equal(there, here):
                yield f"{file}: {name} differs"
    if len(figures(old)) != len(figures(new)):
        yield f"{len(figures(old))} lines of figures there, {len(figures(new))} here"
    for line, (there, here) in enumerate(zip(figures(old), figures(new), strict=False)):
        for name in (name for name in there if not name.startswith(UNEQUAL)):
            if name not in here or abs(there[name] - here[name]) > 1e-12 * abs(there[name]):
                yield f"line {line} of the figures: {name} {there[name]} there, {here.get(name)} here"


def tensors(file: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file."""
    with safe_open(file, "pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def paired(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Values of two mappings side by side, None where one has none."""
    return {name: (old.get(name), new.get(name)) for name in sorted(old.keys() | new.keys())}


def figures(run: Path) -> list[dict[str, Any]]:
    """The lines that a run has logged."""
    return [json.loads(line) for line in (run / "scalars.jsonl").read_text().splitlines()]


def pictures(old: Path, new: Path) -> Iterator[str]:
    """Translated pictures that are not the same."""
    for file in sorted(old.rglob("*.png")):
        here = new / file.relative_to(old)
        if not here.is_file() or not np.array_equal(np.asarray(Image.open(file)), np.asarray(Image.open(here))):
            yield f"{here.name} in {here.parent.name} differs"


def compare(old: Tree, new: Tree, name: str) -> int:
    """Print what differs in a run, and return how many differences there are."""
    found = [*differences(old.out / name, new.out / name)]
    found += pictures(old.out / f"{name}.translated", new.out / f"{name}.translated")
    files = len([*(new.out / name).glob("checkpoints/*/*.safetensors")])
    print(f"{name:18} {files:3} files: {'equal bits' if not found else f'{len(found)} differences'}", flush=True)
    for line in found[:10]:
        print(f"    {line}", flush=True)
    return len(found)


def checked_out(revision: str, folder: Path) -> Path:
    """A worktree of a revision."""
    source = folder / "revision"
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", source, revision], cwd=ROOT, check=True)
    return source


def main() -> int:
    """Exit codes: 0 all bits are equal, 1 some are not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", metavar="REV", help="what git knows it as")
    parser.add_argument("--only", nargs="+", metavar="RUN", help="of pix2pix, stages, ranks, ...")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made, ThreadPoolExecutor(2) as pool:
        folder = Path(made)
        source = checked_out(args.revision, folder)
        try:
            trees = Tree(source, folder / "old"), Tree(ROOT, folder / "new")
            for tree in trees:
                tree.out.mkdir()
            prepare(folder, trees[0])
            different = 0
            for name, run in runs(folder).items():
                if args.only and name not in args.only:
                    continue
                list(pool.map(lambda tree: play(tree, name, run, folder), trees))  # noqa: B023 - at once
                different += compare(*trees, name)
                if name in RESUMED:
                    later = cut(*trees, name)
                    list(pool.map(lambda tree: tree.train(later, run), trees))  # noqa: B023
                    different += compare(*trees, later)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", source], cwd=ROOT, check=True)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
