"""The stored generator: what it remembers, what it refuses, and pictures of any kind."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import p2p
from launch.translate import main as translate
from p2p.config import Inference
from p2p.generator import FILE, Generator
from p2p.spec import Spec


def make(channels=(3, 3), **settings):
    torch.manual_seed(2)
    spec = Spec("unet", {"size": 16, "width": 2, **settings}, channels, crop=16)
    return Generator(spec.build(), spec, Inference(seed=7))


@pytest.fixture
def stored(tmp_path):
    make().save(tmp_path / FILE)
    return tmp_path / FILE


def test_what_is_stored_comes_back(tmp_path):
    G = make((1, 3), norm="instance", skips=False)
    G.inference = Inference(dropout=False, seed=3, statistics="batch")
    G.save(tmp_path / FILE)
    again = p2p.load(tmp_path)
    assert again.spec == replace(G.spec, settings=dict(G.spec.settings))
    assert again.inference == G.inference
    x = torch.rand(2, 1, 20, 40) * 2 - 1
    assert torch.equal(again(x), G(x))
    assert again(x).shape == (2, 3, 20, 40)


def test_a_picture_does_not_know_its_neighbours_and_repeats():
    G = make()
    x = torch.rand(3, 3, 32, 32) * 2 - 1
    assert torch.allclose(G(x)[1:2], G(x[1:2]), atol=1e-6)
    assert torch.equal(G(x), G(x))
    off = Generator(G.net, G.spec, Inference(dropout=False))
    other = Generator(G.net, G.spec, Inference(seed=8))
    assert not torch.equal(G(x), off(x))
    assert not torch.equal(G(x), other(x))


def test_using_it_leaves_a_network_in_training_as_it_was():
    G = make()
    G.net.train()
    G(torch.zeros(1, 3, 16, 16))
    assert G.net.training


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK", "1"])
def test_pictures_of_any_mode_and_size(mode):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (21, 34, 3), dtype=np.uint8)).convert(mode)
    y = make().picture(image)
    assert (y.mode, y.size) == ("RGB", (34, 21))
    assert make((3, 1)).picture(image).mode == "L"


def test_a_picture_lying_on_its_side_is_turned_upright():
    image = Image.new("RGB", (34, 21), "red")
    image.getexif()[0x0112] = 6
    assert make().picture(image).size == (21, 34)


def rewrite(path, change):
    from safetensors import safe_open

    with safe_open(path, "pt") as opened:
        about = json.loads(opened.metadata()["p2p"])
    change(about)
    save_file(load_file(path), path, metadata={"p2p": json.dumps(about)})


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.pop("spec"),
        lambda a: a.pop("inference"),
        lambda a: a.update(spec=[]),
        lambda a: a["spec"].update(name="patch"),
        lambda a: a["spec"].update(crop="x"),
        lambda a: a["spec"].update(channels=[3]),
        lambda a: a["spec"].update(channels=[10**9, 3]),
        lambda a: a["spec"]["settings"].update(width=-1),
        lambda a: a["spec"]["settings"].update(width=10**9),
        lambda a: a["spec"]["settings"].update(surprise=1),
        lambda a: a["inference"].update(seed=10**30),
        lambda a: a["inference"].update(statistics="none"),
    ],
)
def test_a_header_that_lies_is_one_line(stored, change, capsys, tmp_path):
    rewrite(stored, change)
    picture = tmp_path / "a.png"
    Image.new("RGB", (16, 16)).save(picture)
    assert translate([str(stored), str(picture), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{stored}: no usable generator" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\xff" * 100, b'{"a": 1}'])
def test_what_is_no_generator_is_one_line(stored, content):
    stored.write_bytes(content)
    with pytest.raises(ValueError, match=r"no usable generator \(.*\); it was cut short"):
        p2p.load(stored)


def test_half_a_file_and_none(stored, tmp_path):
    stored.write_bytes(stored.read_bytes()[:-100])
    with pytest.raises(ValueError, match="no usable generator"):
        p2p.load(stored)
    with pytest.raises(ValueError, match="no such file; give a run folder"):
        p2p.load(tmp_path / "nowhere")
