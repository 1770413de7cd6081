"""The loop: what is due when, what is logged, and what stops it."""

import pytest
import torch

from p2p import dist, evaluate
from p2p.engine import Engine
from p2p.log import Meter, NonFiniteError, cut_after
from p2p.loop import Chore, due, train
from tests.ranks import run_ranks


class Least(torch.nn.Module):
    """One weight."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor([0.5]))

    def forward(self, x):
        return x * self.w


class Play:
    """A game of one turn whose loss is the mean of w * x."""

    def turns(self, batch, nets):
        yield nets["G"], {"loss": nets["G"](batch["x"]).mean()}, {"figure": batch["x"].mean()}


def batches(values, size=4):
    return [{"x": torch.tensor(values[i : i + size])} for i in range(0, len(values), size)]


def test_due_is_a_multiple_that_was_passed():
    """Also where the batch does not divide the interval: never rarely, never twice."""
    seen = [now for now in range(7, 71, 7) if due(10, now - 7, now)]
    assert seen == [14, 21, 35, 42, 56, 63, 70]
    assert due(0, None, 0)
    assert not due(0, 0, 10)


@pytest.mark.parametrize("micro", [0, 1, 3])
def test_logged_means_are_over_images_whatever_the_micro_batches(micro):
    seen = []
    values = [float(v) for v in range(8)]
    nets = {"G": Engine(Least(), lr=0.0)}
    train(Play(), nets, batches(values), total=8, micro=micro, log=lambda i, f: seen.append((i, f)), log_every=4)
    assert [(i, f["figure"], f["loss"]) for i, f in seen] == [(4, 1.5, 0.75), (8, 5.5, 2.75)]


def test_chores_come_first_last_and_in_between():
    done = []
    chores = [Chore(8, lambda i: done.append(("a", i))), Chore(0, lambda i: done.append(("b", i)))]
    train(Play(), {"G": Engine(Least())}, batches([1.0] * 20), total=20, chores=chores)
    assert done == [("a", 0), ("b", 0), ("a", 8), ("a", 16), ("a", 20), ("b", 20)]


def test_nothing_is_stored_after_a_loss_that_was_not_finite():
    stored = []
    data = batches([1.0] * 8 + [float("nan")] * 4 + [1.0] * 4)
    for number, batch in enumerate(data):
        batch["keys"] = [f"{number}-{i}" for i in range(4)]
    with pytest.raises(NonFiniteError, match=r"step 2 at image 8: loss = nan; samples 2-0, 2-1, 2-2, 2-3"):
        train(Play(), {"G": Engine(Least())}, data, total=16, chores=[Chore(4, stored.append)], log_every=100)
    assert stored == [0, 4, 8]


def watch(bad_rank):
    meter = Meter(4, torch.device("cpu"))
    for step in range(3):
        value = float("inf") if step == 1 and dist.rank() == bad_rank else 1.0
        meter.add(step * 4, ["a", "b"], {"loss": torch.tensor(value)}, {})
    try:
        meter.check()
    except NonFiniteError as error:
        return str(error)
    return "fine"


def figures_of(world_batch):
    """What two ranks log of one batch of `world_batch`."""
    seen = []
    mine = [float(v) for v in range(world_batch)][dist.rank() :: dist.world()]
    nets = {"G": Engine(Least(), lr=0.0)}
    train(Play(), nets, batches(mine, len(mine)), total=world_batch, batch=world_batch, log=lambda i, f: seen.append(f))
    return seen[0]["figure"], seen[0]["loss"]


def on_two(bad_rank):
    return watch(bad_rank), figures_of(6)


def test_two_ranks_stop_together_and_log_the_mean_of_both(tmp_path):
    results = run_ranks(2, on_two, 1, folder=tmp_path)
    assert [r[0] for r in results] == [
        "step at image 4: another rank has a loss that is not finite",
        "step 1 at image 4: loss = inf; samples a, b",
    ]
    assert results[0][1] == results[1][1] == (2.5, 1.25)


def test_batches_that_end_early_are_named():
    with pytest.raises(ValueError, match="the batches ended after 4 of 8 images"):
        train(Play(), {"G": Engine(Least())}, batches([1.0] * 4), total=8)


def test_lines_beyond_the_clock_and_broken_ones_are_cut(tmp_path):
    path = tmp_path / "scalars.jsonl"
    path.write_text(
        '{"images": 4, "a": 1}\n{"a": 1}\nx}\n{"images": 8, "a": 2}\n{"images": 12, "a": 3}\n{"images": 8, "a"'
    )
    cut_after(path, 8)
    assert path.read_text() == '{"images": 4, "a": 1}\n{"images": 8, "a": 2}\n'


def test_the_best_constant_picture_is_the_median():
    targets = [torch.tensor([[[[0]]], [[[0]]]], dtype=torch.uint8), torch.tensor([[[[255]]]], dtype=torch.uint8)]
    assert evaluate.constant_l1(targets) == pytest.approx(1 / 3)
