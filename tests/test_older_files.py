"""Files that an older revision has written: they open, and runs go on with them, to the same bits.

`tests/data/revision_9011770` holds two shard sets, two runs cut off after 24 of 48 images (`middle`), what that
revision then made of them (`end`, `translated`), and the machine that it ran on: other processors round otherwise.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import p2p
from launch import train, translate
from p2p import checkpoint

ROOT = Path(__file__).parents[1]
OLD = Path("tests/data/revision_9011770")
CLOSE = 0.2
"""Of all that a file's tensors have changed since the middle, on another machine."""


def machine():
    """What decides about the last bit of a float: torch, and the processor that its kernels are chosen for."""
    lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    names = "vendor_id", "cpu family", "model", "stepping", "cache size"
    return {"torch": torch.__version__.partition("+")[0], **{name: facts.get(name, "") for name in names}}


def assert_same(found, expected, before, where):
    """Equal bits on the machine that wrote `expected`, elsewhere close beside what has changed since `before`."""
    assert found.keys() == expected.keys(), where
    if machine() == json.loads((OLD / "machine.json").read_text()):
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), f"{where}: {name} differs"
    else:
        assert apart(found, expected) < CLOSE * apart(before, expected), where


def apart(some, others):
    """How far the weights of two files are from each other, as one vector."""
    weights = [name for name in others if not name.startswith("adam/") and name in some]
    return sum((some[name].double() - others[name].double()).square().sum().item() for name in weights) ** 0.5


def test_weights_on_another_machine_are_held_against_what_has_changed():
    middle, end = ({"net/w": torch.full((3,), value)} for value in (1.0, 2.0))
    assert apart(middle, end) == pytest.approx(3**0.5)
    assert apart(end, end) == 0


@pytest.mark.parametrize("name", ["pix2pix", "pix2pixhd"])
def test_a_run_goes_on_to_the_same_weights(name, tmp_path, monkeypatch, capsys):
    """pix2pix with an average of weights and measured statistics; pix2pixHD with features, where a trunk has rested."""
    monkeypatch.chdir(ROOT)
    shutil.copytree(OLD / name / "middle", tmp_path / "run")
    assert train.main(["--config", str(OLD / f"{name}.json"), "--run", str(tmp_path / "run")]) == 0
    assert "resuming after 24 images" in capsys.readouterr().out
    newest = checkpoint.newest(tmp_path / "run")
    assert newest.name == f"{48:012d}"
    for file in sorted((OLD / name / "end").glob("*.safetensors")):
        before = load_file(OLD / name / "middle" / "checkpoints" / f"{24:012d}" / file.name)
        assert_same(load_file(newest / file.name), load_file(file), before, file.name)


@pytest.mark.parametrize(
    ("name", "generator", "shards"),
    [("pix2pix", "middle", "pairs"), ("pix2pixhd", "end/generator.safetensors", "maps")],
)
def test_a_generator_makes_the_same_pictures(name, generator, shards, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    command = [str(OLD / name / generator), str(OLD / shards / "val"), "--out", str(tmp_path / "out")]
    assert translate.main(command) == 0
    files = sorted((OLD / name / "translated").glob("*.png"))
    assert len(files) == 6
    for file in files:
        made, before = (np.asarray(Image.open(at), np.int16) for at in (tmp_path / "out" / "output" / file.name, file))
        assert np.abs(made - before).max() <= 1, file.name  # of 255: a rounding elsewhere may fall on the other side


def test_what_a_generator_was_trained_on_is_still_read():
    G = p2p.load(ROOT / OLD / "pix2pixhd" / "end" / "generator.safetensors")
    assert (G.spec.name, G.spec.channels, G.spec.crop, G.spec.resized) == ("local", (7, 3), 32, True)
    assert (G.spec.view.classes, G.spec.view.boundaries, G.spec.encoder.channels) == (4, True, (3, 2))
    assert not p2p.load(ROOT / OLD / "pix2pix" / "middle").encoder
