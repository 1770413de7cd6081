"""What a run says of itself while it goes: pace of each rank, stragglers, gradients, memory, and where it stands."""

import json
import re
import time

import pytest
import torch

from launch import status as status_command
from launch.train import main
from p2p import checkpoint, dist, status
from p2p.engine import Engine
from p2p.loop import train
from p2p.networks import PatchGAN
from p2p.watch import Stopwatch, Watch, stragglers
from tests.ranks import run_ranks


class Slow(PatchGAN):
    """A network that takes longer on one rank."""

    def forward(self, xy):
        time.sleep(0.05 if dist.rank() == 2 else 0.005)
        return super().forward(xy)


class Squares:
    """A task of one turn."""

    def turns(self, batch, nets):
        yield nets["D"], {"loss": nets["D"](batch["x"])[0][-1].square().mean()}, {}


def paces():
    """Three ranks, one of them slow; the figures of each, and what was said."""
    x = torch.rand(2, 3, 16, 16)
    logged, said = [], []
    watch = Watch(torch.device("cpu"), said.append)

    def log(images, figures):
        logged.append(watch(figures))

    nets = {"D": Engine(Slow(3, field=1, width=2))}
    train(Squares(), nets, [{"x": x, "y": x}] * 20, total=120, batch=6, log=log, log_every=60)
    return logged, said


def test_the_rank_that_others_wait_for_is_named(tmp_path):
    """All ranks see the same images/s, since they wait for each other; a rank's own pace tells them apart."""
    for logged, said in run_ranks(3, paces, folder=tmp_path):
        figures, ranks = logged[-1]
        fast, other, slow = ranks["ranks/images/s"]
        assert slow < 0.8 * min(fast, other)
        assert figures["images/s"] < 3 * slow * 1.2  # the slowest rank's pace, three times
        assert len(said) == 1  # not after the first interval yet
        assert any(re.match(r"rank 2 is slow: .* images/s by itself, the others", line) for line in said)
        assert not any(line.startswith(("rank 0", "rank 1")) for line in said)


@pytest.mark.parametrize(
    ("paces", "slow"),
    [
        ([10], []),
        ([10, 10], []),
        ([10, 8.1], []),
        ([10, 7.9], [1]),
        ([10, 10, 7, 10], [2]),
        ([10, 0, 10], []),
        ([5, 10, 5], [0, 2]),
    ],
)
def test_a_straggler_is_slower_than_the_others_by_more_than_a_fifth(paces, slow):
    assert [rank for rank, _ in stragglers(paces)] == slow


def test_a_stopwatch_counts_what_lies_between_start_and_stop(monkeypatch):
    now = iter([10, 13, 20, 24])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now) / 1.0)
    watch = Stopwatch(torch.device("cpu"))
    watch.stop()
    for _ in range(2):
        watch.start()
        watch.stop()
    assert watch.read() == 7
    assert watch.read() == 0


def test_the_norm_of_the_gradients_is_that_of_the_step():
    engine = Engine(PatchGAN(3, field=16, width=4))
    x = torch.rand(2, 3, 16, 16)
    loss = engine(x)[0][-1].square().mean()
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(engine.parameters.values()))]).norm()
    engine.backward(engine(x)[0][-1].square().mean())
    assert torch.allclose(engine.step(measure=True), expected)
    engine.backward(engine(x)[0][-1].square().mean())
    assert engine.step() is None


def test_a_run_writes_what_it_is_watched_by(config_file, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["--config", str(config_file), "--run", str(run)]) == 0
    lines = [json.loads(line) for line in (run / "scalars.jsonl").read_text().splitlines()]
    line = [line for line in lines if "images/s" in line][-1]
    assert {"G/gradient", "D/gradient", "wait", "memory"} <= line.keys()
    assert len(line["ranks/images/s"]) == len(line["ranks/memory"]) == 1
    assert 0.1 < line["memory"] < 10
    log = (run / "logs" / "rank000.log").read_text()
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d rank 0 of 1 on ", log)
    assert re.search(r"images 48  .* images/s by itself  wait .*%", log)
    assert "saved " in log
    capsys.readouterr()
    assert status_command.main([str(run)]) == status_command.FINISHED
    said = capsys.readouterr().out
    assert re.search(r"state     finished: process \d+, 1 rank, rank 0 on ", said)
    assert "images    48 of 48 (100.0%), 0:00:" in said
    assert f"saved     {checkpoint.folder(run, 48)} (" in said


def test_the_state_of_a_run_that_failed_says_why(config_file, tmp_path, capsys):
    assert main(["--config", str(config_file), "--run", str(tmp_path), "--set", "optimizer.lr=1e30"]) == 1
    capsys.readouterr()
    assert status_command.main([str(tmp_path)]) == status_command.NOT_FINISHED
    said = capsys.readouterr().out
    assert "state     failed" in said
    assert re.search(r"why       step \d+ at image \d+: .*nan", said)
    assert "saved     nothing yet" in said


def test_a_folder_without_a_run(tmp_path, capsys):
    assert status_command.main([str(tmp_path)]) == status_command.NO_RUN
    assert "no run is here" in capsys.readouterr().err


def test_a_run_folder_belongs_to_one_process(tmp_path):
    with status.hold(tmp_path):
        assert status.held(tmp_path)
    assert not status.held(tmp_path)
    (tmp_path / status.FILE).write_text("{half")
    assert status.read(tmp_path) == {}
