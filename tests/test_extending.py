"""A script of one's own, `tests/mine.py`, that touches no file of the project: trained under torchrun, validated,
stored, resumed exactly and translated."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

import p2p
from launch import translate
from launch.train import main as train
from p2p import checkpoint
from p2p.data.samples import Keep
from p2p.data.shardset import ShardSet
from p2p.data.stores import STORES, Local
from tests.conftest import small_tree

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tests" / "mine.py"
REGISTRIES = p2p.NETWORKS["G"], p2p.VIEWS, p2p.METRICS, p2p.TASKS


def imported():
    """The script as a module, and what it adds to each registry, which the other tests must not find there."""
    before = [set(registry) for registry in REGISTRIES]
    module = importlib.import_module("tests.mine")
    pairs = zip(REGISTRIES, before, strict=True)
    return module, [{name: registry.pop(name) for name in registry.keys() - names} for registry, names in pairs]


mine, ADDED = imported()


@pytest.fixture(autouse=True)
def added(monkeypatch):
    """What the script adds."""
    for registry, new in zip(REGISTRIES, ADDED, strict=True):
        for name, piece in new.items():
            monkeypatch.setitem(registry, name, piece)


def tree(shards, **more):
    """Settings of a run with all that the script adds; 48 images in steps of 4, in parts of 1."""
    small = small_tree(shards)
    return small | {
        "data": small["data"] | {"micro": 1},
        "engine": {"precision": "fp32", "reduction": "exact"},
        "optimizer": {"lr": 0.01},
        "task": {"name": "cycle"},
        "view": {"name": "chroma"},
        "G": {"name": "small", "width": 4},
        "D": {"name": "patch", "field": 16, "width": 4, "norm": "instance"},
        "validation": {"metrics": ["PSNR", "L1"]},
        "ema": {"half_life": 16},
        "every": {"log": 8, "validate": 24, "pictures": 24, "save": 24, "keep": 9},
    } | more  # fmt: skip


def settings_file(folder, settings):
    path = folder / "mine.yaml"
    path.write_text(json.dumps(settings))
    return path


def figures(run):
    return [json.loads(line) for line in (run / "scalars.jsonl").read_text().splitlines()]


def script(*arguments, ranks=1):
    """Run the script, alone or under torchrun."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "--"] * (ranks > 1)
    command = [sys.executable, *launcher, str(SCRIPT), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(shard_folder, tmp_path_factory):
    """A run on two ranks, and its settings."""
    folder = tmp_path_factory.mktemp("mine")
    config = settings_file(folder, tree(shard_folder))
    script("train", "--config", config, "--run", folder / "run", ranks=2)
    return folder / "run", config


def test_it_is_validated_and_stored_with_what_the_task_remembers(trained):
    run, _ = trained
    lines = figures(run)
    measured = [line for line in lines if "val/PSNR" in line]
    assert [line["images"] for line in measured] == [0, 24, 48]
    assert {"val/PSNR", "val/L1", "val/H/PSNR", "val/H/L1"} <= measured[-1].keys()
    played = [line for line in lines if "G/cycle" in line]
    assert {"G/gan", "D/real", "D/fake", "G/gradient", "D/gradient"} <= played[-1].keys()
    assert played[-1]["G/cycle"] < played[0]["G/cycle"]
    last = checkpoint.newest(run)
    names = {path.name for path in last.iterdir()}
    assert {"G.safetensors", "D.safetensors", "ema.safetensors", "task.safetensors"} <= names
    assert {"generator.safetensors", "generator_H.safetensors"} <= names
    assert "H.safetensors" not in names  # it shares G's optimiser, so their file too
    assert load_file(last / "task.safetensors")["pool"].shape == (6, 2, 32, 32)
    best = json.loads((run / "best" / "best.json").read_text())
    assert (best["metric"], best["value"]) == ("PSNR", max(line["val/PSNR"] for line in measured[1:]))
    assert p2p.load(run / "best").spec.view == mine.Chroma()


def test_a_resumed_run_ends_with_the_same_bits(trained, tmp_path):
    run, config = trained
    shutil.copytree(checkpoint.folder(run, 24), checkpoint.folder(tmp_path, 24))
    said = script("train", "--config", config, "--run", tmp_path, ranks=2)
    assert "resuming after 24 images" in said
    for file in sorted(checkpoint.folder(run, 48).glob("*.safetensors")):
        before, now = load_file(file), load_file(checkpoint.folder(tmp_path, 48) / file.name)
        assert before.keys() == now.keys()
        assert all(torch.equal(tensor, now[name]) for name, tensor in before.items()), file.name


def test_one_rank_learns_and_remembers_the_same(trained, tmp_path):
    """To the bit: fakes of all ranks, and values of metrics, are taken in the order of their positions."""
    run, config = trained
    assert train(["--config", str(config), "--run", str(tmp_path)]) == 0
    for name in ("G", "D", "task", "ema"):
        two, one = (load_file(checkpoint.newest(at) / f"{name}.safetensors") for at in (run, tmp_path))
        assert all(torch.equal(tensor, one[key]) for key, tensor in two.items()), name
    two, one = ([line for line in figures(at) if "val/PSNR" in line] for at in (run, tmp_path))
    for name in ("val/PSNR", "val/L1", "val/H/PSNR", "val/H/L1"):
        assert [line[name] for line in two] == [line[name] for line in one]


def test_micro_batches_change_nothing():
    """What is remembered after three steps, and the weights, with one part a step and with four."""
    learnt = []
    for micro in (0, 1):
        torch.manual_seed(0)
        pair = p2p.Engine(nn.ModuleDict({"G": mine.Small(1, 2), "H": mine.Small(2, 1)}))
        nets = {**pair.networks(), "D": p2p.Engine(p2p.PatchGAN(2, field=16, width=4, norm="instance"))}
        batches = [{"x": torch.rand(4, 1, 16, 16), "y": torch.rand(4, 2, 16, 16)} for _ in range(3)]
        task = mine.Cycle()
        p2p.train(task, nets, batches, total=12, micro=micro)
        learnt.append([*pair.net.parameters(), task.pool])
    for whole, parts in zip(*learnt, strict=True):
        assert torch.allclose(whole, parts, atol=1e-4)


@pytest.mark.parametrize(("generator", "channels"), [("G", 3), ("H", 1)])
def test_both_generators_translate(generator, channels, trained, shard_folder, tmp_path):
    """G makes colours of a gray picture, H a gray one of the target's colours."""
    run, _ = trained
    script("translate", run, shard_folder / "val", "--out", tmp_path / "out", "--generator", generator)
    rows = json.loads((tmp_path / "out" / "result.json").read_text())["translated"]
    assert len(rows) == 6
    assert all(0 < row["l1"] < 1 for row in rows)
    made = np.asarray(Image.open(tmp_path / "out" / "output" / f"{rows[0]['name']}.png"))
    assert made.shape == ((32, 32, 3) if channels == 3 else (32, 32))
    G = p2p.load(run, name=generator)
    given, expected = (Image.open(tmp_path / "out" / kind / f"{rows[0]['name']}.png") for kind in ("input", "output"))
    assert np.abs(np.asarray(G.picture(given), np.int16) - np.asarray(expected)).max() <= 1


def test_sides_are_padded_to_what_the_network_needs(trained, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (13, 7, 3), np.uint8)).save(tmp_path / "odd.png")
    run, _ = trained
    assert translate.main([str(run), str(tmp_path / "odd.png"), "--out", str(tmp_path / "out")]) == 0
    assert Image.open(tmp_path / "out" / "output" / "odd.png").size == (7, 13)


def test_the_loop_by_itself_plays_the_task():
    """Without settings, files or commands: engines, batches, `p2p.train`."""
    torch.manual_seed(0)
    pair = p2p.Engine(nn.ModuleDict({"G": mine.Small(1, 2), "H": mine.Small(2, 1)}))
    nets = {**pair.networks(), "D": p2p.Engine(p2p.PatchGAN(2, field=16, width=4, norm="instance"))}
    before = [parameter.clone() for parameter in pair.net.parameters()]
    batches = [{"x": torch.rand(2, 1, 16, 16), "y": torch.rand(2, 2, 16, 16)} for _ in range(3)]
    task = mine.Cycle(remembered=4)
    assert p2p.train(task, nets, batches, total=6) == 6
    assert len(task.state()["pool"]) == 4
    assert not any(torch.equal(a, b) for a, b in zip(before, pair.net.parameters(), strict=True))


def test_a_store_of_ones_own_is_a_class_by_its_scheme(shard_folder, tmp_path, monkeypatch):
    class Upside(Local):
        """A folder by its name from behind."""

        def __init__(self, url, report):
            super().__init__(url.removeprefix("upside://")[::-1])

    monkeypatch.setitem(STORES, "upside", Upside)
    folder = str(shard_folder / "train")
    found, expected = ShardSet(f"upside://{folder[::-1]}", keep=Keep(str(tmp_path))), ShardSet(folder)
    for place in ((0, 0), (3, 2)):
        (key, members), (other, its) = found.read(*place), expected.read(*place)
        assert key == other
        assert all(torch.equal(members[name], its[name]) for name in "xy")


@pytest.mark.parametrize("what", ["missing", "too much", "of another task"])
def test_a_state_that_does_not_fit_is_named(what, trained, shard_folder, tmp_path, capsys, monkeypatch):
    run, config = trained
    folder = shutil.copytree(checkpoint.folder(run, 24), checkpoint.folder(tmp_path / "run", 24))
    sets = []
    if what == "missing":

        class Adaptive(mine.Cycle):
            def state(self):
                return super().state() | {"weight": torch.ones(1)}

        monkeypatch.setitem(p2p.TASKS, "cycle", Adaptive)
        says = "what task cycle remembers does not fit (weight is missing there)"
    elif what == "too much":
        sets, says = ["--set", "task.remembered=3"], "task.remembered: 3 pictures, and there are 6"
    else:

        class Forgetful(mine.Cycle):
            state, load = p2p.Task.state, p2p.Task.load

        monkeypatch.setitem(p2p.TASKS, "cycle", Forgetful)
        says = "this task remembers nothing, and the checkpoint holds pool"
    assert train(["--config", str(config), "--run", str(tmp_path / "run"), *sets]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert str(folder) in said
    assert said.count("\n") == 1


def test_what_a_task_remembers_begins_anew_with_a_stage(shard_folder, tmp_path):
    """A pool of pictures of 16 pixels is no pool of the stage of 32; also where the run goes on between the two."""
    settings = tree(
        shard_folder,
        G={"name": "local", "width": 2, "downs": 1, "blocks": 1, "local_blocks": 1},
        coarse=[{"name": "constant", "epochs": 0.5}],
        schedule={"name": "constant", "epochs": 0.5},
        every={"save": 12, "keep": 9, "validate": 0, "pictures": 0},
    )
    config = settings_file(tmp_path, settings)
    assert train(["--config", str(config), "--run", str(tmp_path / "run")]) == 0
    pools = [load_file(checkpoint.folder(tmp_path / "run", at) / "task.safetensors")["pool"] for at in (12, 24)]
    assert [pool.shape for pool in pools] == [(6, 2, 16, 16), (6, 2, 32, 32)]
    shutil.copytree(checkpoint.folder(tmp_path / "run", 12), checkpoint.folder(tmp_path / "again", 12))
    assert train(["--config", str(config), "--run", str(tmp_path / "again")]) == 0
    again = load_file(checkpoint.folder(tmp_path / "again", 24) / "task.safetensors")["pool"]
    assert torch.equal(again, pools[1])


def test_the_first_generator_has_a_name_too(trained):
    run, _ = trained
    by_name, first = p2p.load(run, name="G"), p2p.load(run)
    assert by_name.spec == first.spec
    assert by_name.spec.kept_as == "G"
    assert p2p.load(run, name="H").spec.kept_as == "H"


def test_the_page_shows_lines_that_run():
    """Every block of Python in docs/extending.md stands in the script, or in this file."""
    page = (ROOT / "docs" / "extending.md").read_text()
    code = SCRIPT.read_text() + Path(__file__).read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) >= 5
    for block in blocks:
        for part in re.split(r"^\s*\.\.\.\n", block, flags=re.MULTILINE):
            assert part.strip("\n") in code, part


def test_a_file_of_another_network_is_refused(trained, tmp_path):
    run, _ = trained
    weights = load_file(checkpoint.newest(run) / "generator.safetensors")
    save_file(weights, tmp_path / "generator.safetensors")
    with pytest.raises(ValueError, match="no usable generator"):
        p2p.load(tmp_path)
    with pytest.raises(ValueError, match=r"generator_Q\.safetensors: no such file"):
        p2p.load(run, name="Q")
