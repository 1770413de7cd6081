"""Metrics: one pass for all, the same figures on any number of ranks, and the best generator kept by one of them."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

import p2p
from p2p import checkpoint, dist
from p2p.config import Inference
from p2p.data.steps import rank_slice
from p2p.evaluate import evaluate
from p2p.generator import Generator
from p2p.metrics import METRICS, Metric, l1
from p2p.spec import Spec
from tests.ranks import run_ranks
from tests.test_train import scalars, train

COUNT, AT_ONCE = 7, 3


def colours(fake, real):
    """Six numbers a picture."""
    return torch.cat([fake.mean((2, 3)), real.mean((2, 3))], 1)


def distance(of_all):
    """Of the mean colours of a set, with their spread: no mean of figures of single pictures."""
    fake, real = of_all.split(3, 1)
    return float((fake.mean(0) - real.mean(0)).norm() + (fake.std(0) - real.std(0)).norm())


def moments(fake, real):
    """Sums from which mean and variance of all pixels follow."""
    pixels = fake.double()
    return torch.stack([pixels.sum(), pixels.square().sum(), torch.tensor(pixels.numel(), dtype=torch.float64)])


def deviation(state):
    total, squares, count = state.tolist()
    return math.sqrt(squares / count - (total / count) ** 2)


ASKED = {
    "L1": Metric(l1),
    "colours": Metric(colours, distance, pairs=False),
    "deviation": Metric(moments, deviation, pairs=False, summed=True),
}


def generator():
    torch.manual_seed(0)
    spec = Spec("unet", {"size": 16, "width": 4}, (3, 3), 16)
    return Generator(spec.build(), spec, Inference())


def pictures():
    numbers = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (COUNT, 3, 16, 16), generator=numbers, dtype=torch.uint8) for _ in "xy"]


def batches(rank, world):
    """As the reader gives them to a rank: its share of each step, which may be empty."""
    x, y = pictures()
    for start in range(0, COUNT, AT_ONCE):
        mine = list(rank_slice(start, min(AT_ONCE, COUNT - start), rank, world))
        keys, position = [str(place) for place in mine], mine[0] if mine else -1
        yield {"x": x[mine], "y": y[mine], "keys": keys, "position": position}


def figures(_=0):
    return evaluate({"G": generator()}, batches(dist.rank(), dist.world()), COUNT, ASKED)["G"]


def test_a_figure_is_the_formula_over_all_pictures():
    x, y = pictures()
    G, found = generator(), figures()
    fake, real = G.of({"x": x}).double(), y.double() / 127.5 - 1
    assert found["L1"] == pytest.approx((fake - real).abs().mean().item() / 2, abs=1e-6)
    assert found["colours"] == pytest.approx(distance(colours(fake, real)), abs=1e-6)
    assert found["deviation"] == pytest.approx(fake.std(correction=0).item(), abs=1e-6)


@pytest.mark.parametrize("world", [2, 4])
def test_any_number_of_ranks_has_the_same_bits(world, tmp_path):
    """7 pictures in steps of 3; of four ranks one never has any. What is summed agrees but for rounding."""
    expected = figures()
    for found in run_ranks(world, figures, 0, folder=tmp_path):
        assert found.pop("deviation") == pytest.approx(expected["deviation"], rel=1e-12)
        assert found == {name: value for name, value in expected.items() if name != "deviation"}


def test_what_gives_no_row_a_picture_is_named():
    with pytest.raises(ValueError, match=r"validation.metrics: whole gives \(\) for 3 pictures; one row each"):
        evaluate({"G": generator()}, batches(0, 1), COUNT, {"whole": Metric(lambda fake, real: (fake - real).mean())})


@pytest.mark.parametrize(("better", "pick"), [("lower", min), ("higher", max)])
def test_the_best_generator_is_kept(better, pick, config_file, tmp_path, monkeypatch):
    """By the chosen metric, with the bits that the checkpoint of that moment has; and it can be translated with."""
    monkeypatch.setitem(METRICS, "chosen", Metric(l1, better=better))
    run = tmp_path / "run"
    kept = ["every.validate=8", "every.save=8", "every.keep=9", "optimizer.lr=0.003"]
    assert train(config_file, run, "validation.metrics=[L1, chosen]", "validation.best=chosen", *kept) == 0
    measured = {line["images"]: line["val/chosen"] for line in scalars(run) if "val/chosen" in line}
    del measured[0]  # a generator that has learnt nothing is not kept
    best = json.loads((run / "best" / "best.json").read_text())
    assert best["value"] == pick(measured.values()) == measured[best["images"]]
    assert best["metric"] == "chosen"
    there = load_file(checkpoint.folder(run, best["images"]) / "generator.safetensors")
    here = load_file(run / "best" / "generator.safetensors")
    assert all(torch.equal(tensor, here[name]) for name, tensor in there.items())
    assert p2p.load(run / "best").spec.channels == (3, 3)


def test_no_best_is_kept_where_none_is_asked_for(config_file, tmp_path):
    assert train(config_file, tmp_path / "run", "validation.best=none") == 0
    assert not (tmp_path / "run" / "best").exists()


def at(images, value, stage=0, metric="L1"):
    return {"images": images, "value": value, "stage": stage, "metric": metric}


@pytest.mark.parametrize(
    ("before", "now", "better", "expected"),
    [
        ({}, at(8, 0.5), "lower", True),
        (at(8, 0.5), at(16, 0.4), "lower", True),
        (at(8, 0.5), at(16, 0.5), "lower", False),
        (at(8, 0.5), at(16, 0.4), "higher", False),
        (at(8, 0.1), at(16, 0.4, stage=1), "lower", True),  # of smaller pictures
        (at(8, 0.1), at(16, 0.4, metric="PSNR"), "lower", True),  # by another measure
        (at(24, 0.1), at(16, 0.4), "lower", True),  # of a part of the run that was lost
        (at(8, math.nan), at(16, 0.4), "lower", True),
        (at(8, 0.5), at(16, math.nan), "higher", False),
        ({}, at(16, math.nan), "lower", False),
    ],
)
def test_what_counts_as_better(before, now, better, expected):
    assert checkpoint.is_better(before, now, better) == expected
