"""The contracts: what is said of a task, a view, a network or a metric that lacks a part; and nothing else is asked.

Each mistake is one line that names the piece, before anything starts where it can be known then.
"""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import p2p
from launch import translate
from launch.train import main as train
from tests.conftest import small_tree
from tests.test_extending import added, mine, settings_file

__all__ = ["added"]  # a fixture for every test here


def refused(config, run, capsys, *settings):
    """The one line of a run that does not start."""
    capsys.readouterr()
    sets = [part for setting in settings for part in ("--set", setting)]
    assert train(["--config", str(config), "--run", str(run), *sets]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("p2p-train: ")
    assert not (run / "checkpoints").exists()
    return said


class Silent(nn.Module):
    """A generator that does not say what sides it takes."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, padding=1)

    def forward(self, x, z):
        return self.conv(x)


class Narrow(Silent):
    """A generator that makes another number of channels."""

    size = 1

    def forward(self, x, z):
        return self.conv(x)[:, :1]


class Flat(nn.Module):
    """A discriminator that answers with one map."""

    def __init__(self, c_in: int):
        super().__init__()
        self.conv = nn.Conv2d(c_in, 1, 3)

    def forward(self, xy):
        return self.conv(xy)


class Half(p2p.Task):
    """A task without turns."""

    def networks(self, x, y):
        return {"G": p2p.NetworkRole("G", x, y)}


@dataclass(kw_only=True)
class Unpaired(p2p.Pix2Pix):
    """A task whose y is any picture."""

    paired = False


class Misnamed(p2p.Pix2Pix):
    """A task with a network that would be written over another file."""

    def networks(self, x, y):
        return super().networks(x, y) | {"task": p2p.NetworkRole("D", y, 1)}


class Elsewhere(p2p.Pix2Pix):
    """A task with a network that no section of the settings chooses."""

    def networks(self, x, y):
        return super().networks(x, y) | {"Q": p2p.NetworkRole("Q", y, 1)}


class Sharing(p2p.Pix2Pix):
    """A task that shares the optimiser of a network that it does not have."""

    def shared(self):
        return [("G", "F")]


class Keeping(p2p.Pix2Pix):
    """A task that keeps nothing."""

    def generators(self):
        return {}


class Halfway(p2p.Pix2Pix):
    """A task that is stored and cannot be read."""

    def state(self):
        return {"weight": torch.ones(1)}


class Swapped(p2p.Pix2Pix):
    """A task whose G gets more channels in training than in use."""

    def networks(self, x, y):
        return super().networks(x, y) | {"G": p2p.NetworkRole("G", x + 1, y)}


class Twice(p2p.Pix2Pix):
    """A task with one name for two networks."""

    def frozen(self):
        return {"D": nn.Conv2d(1, 1, 1)}


class Flattened(p2p.Pix2Pix):
    """A task that names what shares an optimiser, and not in groups."""

    def shared(self):
        return ("G", "D")


class Listed(p2p.Pix2Pix):
    """A task whose networks are no roles."""

    def networks(self, x, y):
        return {"G": ("G", x, y)}


class Blind(Silent):
    """A generator that takes no keys."""

    size = 1

    def forward(self, x):
        return self.conv(x)


class Single(nn.Module):
    """A generator of as many channels as it sees."""

    size = 1

    def __init__(self, channels: int):
        super().__init__()


class Normed(Silent):
    """A generator with a norm of torch's own."""

    size = 1

    def __init__(self, c_in: int, c_out: int):
        super().__init__(c_in, c_out)
        self.norm = nn.BatchNorm2d(c_out)


class Untyped(Silent):
    """A generator with a setting of any type."""

    size = 1

    def __init__(self, c_in: int, c_out: int, *, width=4):
        super().__init__(c_in, c_out)


@dataclass(frozen=True)
class Wide(p2p.View):
    """A view that promises other channels than it makes."""

    def channels(self, x, y):
        return x + 1, y


@dataclass(frozen=True)
class Sparse(p2p.View):
    """A view that needs what no shard has."""

    members = frozenset(["x", "depth"])


@dataclass(frozen=True)
class Gray(p2p.View):
    """A view whose pictures are not like their targets."""

    def decode(self, y, x):
        return y[:, :1]


class Forgotten(p2p.View):
    """A view with a setting that is not stored."""

    def __init__(self, classes: int, boundaries: bool, *, gamma: float = 1.0):
        super().__init__(classes, boundaries)
        object.__setattr__(self, "gamma", gamma)

    def __eq__(self, other):
        return self.gamma == other.gamma


class Depths(p2p.Pix2Pix):
    """A task that reads what no shard has."""

    members = frozenset(["x", "y", "depth"])


@pytest.mark.parametrize(
    ("registry", "piece", "settings", "says"),
    [
        (p2p.NETWORKS["G"], Silent, {"G": {"name": "piece"}}, "G.name: Silent has no `size`"),
        (p2p.NETWORKS["G"], Narrow, {"G": {"name": "piece"}}, "G: makes (1, 1, 32, 32) of (1, 3, 32, 32)"),
        (p2p.NETWORKS["D"], Flat, {"D": {"name": "piece"}}, "D: answers with Tensor; D gives a list of scales"),
        (p2p.TASKS, Half, {"task": {"name": "piece"}}, "task.name: piece lacks turns; make it a subclass of p2p.Task"),
        (p2p.TASKS, object, {"task": {"name": "piece"}}, "task.name: piece lacks networks, turns, shared"),
        (p2p.TASKS, Depths, {"task": {"name": "piece"}}, "piece reads depth of each sample"),
        (p2p.TASKS, Misnamed, {"task": {"name": "piece"}}, "piece calls a network 'task'"),
        (p2p.TASKS, Elsewhere, {"task": {"name": "piece"}}, "piece has Q in section Q; use G, D, E"),
        (p2p.TASKS, Sharing, {"task": {"name": "piece"}}, "piece shares or keeps F, and its networks are G, D"),
        (p2p.TASKS, Keeping, {"task": {"name": "piece"}}, "piece keeps no generator"),
        (p2p.TASKS, Halfway, {"task": {"name": "piece"}}, "task.name: piece lacks load"),
        (p2p.TASKS, Swapped, {"task": {"name": "piece"}}, "piece keeps G of 4 -> 3 channels; in use it gets 3"),
        (p2p.TASKS, Twice, {"task": {"name": "piece"}}, "piece has D both trained and frozen"),
        (p2p.TASKS, Flattened, {"task": {"name": "piece"}}, "piece shares optimisers of ['G', 'D']; give lists"),
        (p2p.TASKS, Listed, {"task": {"name": "piece"}}, "task.name: piece fails (AttributeError"),
        (p2p.NETWORKS["G"], Blind, {"G": {"name": "piece"}}, "G: does not take pictures of data.crop 32 pixels"),
        (p2p.NETWORKS["G"], Single, {"G": {"name": "piece"}}, "G.name: piece cannot be called with (channels in"),
        (p2p.NETWORKS["G"], Normed, {"G": {"name": "piece"}}, "Normed has norm, whose statistics depend on ranks"),
        (p2p.NETWORKS["G"], Untyped, {"G": {"name": "piece"}}, "G.width: has no type in the signature"),
        (p2p.VIEWS, Wide, {"view": {"name": "piece"}}, "piece encodes (3, 3) channels, and says that they are (4, 3)"),
        (p2p.VIEWS, Sparse, {"view": {"name": "piece"}}, "view.name: piece needs depth, and"),
        (p2p.VIEWS, Gray, {"view": {"name": "piece"}}, "piece decodes to (1, 1, 8, 8), and its target is (1, 3, 8, 8)"),
        (
            p2p.VIEWS,
            Forgotten,
            {"view": {"name": "piece", "gamma": 2.0}},
            "view.name: piece cannot be stored with a generator",
        ),
        (p2p.METRICS, print, {"validation": {"metrics": ["piece"]}}, "piece is no metric; make it a p2p.Metric"),
        (p2p.METRICS, p2p.Metric(lambda fake, real: 1.0), {"validation": {"metrics": ["piece"]}}, "gives float"),
        (p2p.METRICS, p2p.Metric(lambda fake, real: fake @ 3), {"validation": {"metrics": ["piece"]}}, "piece on pict"),
        (p2p.METRICS, None, {"validation": {"metrics": ["PSNR"]}, "data": {"val": ""}}, "nothing to measure on"),
        (
            p2p.TASKS,
            Unpaired,
            {"task": {"name": "piece"}, "validation": {"metrics": ["L1"]}},
            "validation.metrics: L1 compares G(x) with the y of the same sample",
        ),
        (
            p2p.METRICS,
            None,
            {"validation": {"metrics": ["piece"]}},
            "validation.metrics: no metric 'piece'; there is L1",
        ),
        (p2p.METRICS, None, {"validation": {"best": "PSNR"}}, "validation.best: PSNR is not measured"),
        (p2p.VIEWS, None, {"view": {"name": "piece"}}, "view.name: no view 'piece'; there is pixels"),
        (p2p.VIEWS, None, {"view": {"name": "chroma", "bakwards": True}}, "did you mean 'backwards'?"),
        (p2p.TASKS, None, {"task": {"name": "cycle", "remembred": 2}}, "did you mean 'remembered'?"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_lacks_a_part_is_named_before_anything_starts(
    registry, piece, settings, says, shard_folder, tmp_path, capsys, monkeypatch
):
    if piece is not None:
        monkeypatch.setitem(registry, "piece", piece)
    small = small_tree(shard_folder)
    both = {name: small[name] | value if name == "data" else value for name, value in settings.items()}
    config = settings_file(tmp_path, small | both)
    assert says in refused(config, tmp_path / "run", capsys)


def test_a_task_without_pairs_is_not_measured_against_them(shard_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(p2p.TASKS, "piece", Unpaired)
    config = settings_file(tmp_path, small_tree(shard_folder) | {"task": {"name": "piece"}})
    assert train(["--config", str(config), "--run", str(tmp_path / "run"), "--set", "schedule.epochs=0"]) == 0
    lines = (tmp_path / "run" / "scalars.jsonl").read_text()
    assert "G/l1" in lines
    assert "val/" not in lines


@pytest.mark.parametrize(
    ("turns", "says"),
    [
        (2, "micro-batch 1 end after 1, those of micro-batch 0 go on"),
        (0, "micro-batch 0 end after 0, those of micro-batch 1 go on"),
    ],
)
def test_games_of_different_length_are_named(turns, says):
    class Uneven:
        def turns(self, batch, nets):
            for _ in range(turns if batch["keys"] == ["0"] else 1):
                yield nets["G"], {"loss": nets["G"](batch["x"], None).mean()}, {}

    batch = {"x": torch.rand(2, 1, 4, 4), "y": torch.rand(2, 1, 4, 4)}
    with pytest.raises(ValueError, match=says):
        p2p.train(Uneven(), {"G": p2p.Engine(mine.Small(1, 1))}, [batch], total=2, micro=1)


def test_every_game_is_played_to_its_end():
    """Also what stands behind the last `yield`, for every micro-batch."""
    ended = []

    class Counted:
        def turns(self, batch, nets):
            yield nets["G"], {"loss": nets["G"](batch["x"], None).mean()}, {}
            ended.append(batch["keys"])

    batch = {"x": torch.rand(3, 1, 4, 4), "y": torch.rand(3, 1, 4, 4)}
    p2p.train(Counted(), {"G": p2p.Engine(mine.Small(1, 1))}, [batch], total=3, micro=1)
    assert ended == [["0"], ["1"], ["2"]]


@pytest.mark.parametrize(
    ("turn", "says"),
    [
        (lambda G, loss: (G.net, {"loss": loss}, {}), "a turn is of Small, which no optimiser updates; yield one of"),
        (lambda G, loss: (G, {"loss": loss}), r"a turn is \(one of `nets`, losses by name, figures by name\)"),
        (lambda G, loss: (G, {}, {}), "a turn of G has no losses"),
        (lambda G, loss: (G, {"loss": loss}, {"half": 0.5}), "half is float; losses and figures are tensors of one"),
        (lambda G, loss: (G, {"loss": torch.ones(2) * loss}, {}), "loss is Tensor; losses and figures are tensors of"),
    ],
)
def test_what_is_no_turn_is_named(turn, says):
    class Wrong:
        def turns(self, batch, nets):
            yield turn(nets["G"], nets["G"](batch["x"], None).mean())

    batch = {"x": torch.rand(1, 1, 4, 4), "y": torch.rand(1, 1, 4, 4)}
    with pytest.raises(ValueError, match=says):
        p2p.train(Wrong(), {"G": p2p.Engine(mine.Small(1, 1))}, [batch], total=1)


def test_the_same_turn_of_two_micro_batches_is_of_one_network():
    class Mixed:
        def turns(self, batch, nets):
            net = nets["G" if batch["keys"] == ["0"] else "H"]
            yield net, {"loss": net(batch["x"], None).mean()}, {}

    nets = {name: p2p.Engine(mine.Small(1, 1)) for name in "GH"}
    batch = {"x": torch.rand(2, 1, 4, 4), "y": torch.rand(2, 1, 4, 4)}
    with pytest.raises(ValueError, match="turn 0 of micro-batches 0 and 1 update different networks"):
        p2p.train(Mixed(), nets, [batch], total=2, micro=1)


def test_the_contract_is_all_that_is_asked_of_a_task(shard_folder, tmp_path, monkeypatch):
    """Whatever else a task has, nobody outside reads it: one that has nothing but the contract trains and resumes."""
    contract = {name for name in vars(p2p.Task) if not name.startswith("_")}

    class Guarded:
        """Hands out what the contract has, and nothing else."""

        def __init__(self, task):
            self._task = task

        def __getattribute__(self, name):
            if name in contract:
                return getattr(object.__getattribute__(self, "_task"), name)
            if name.startswith("__") or name == "_task":
                return object.__getattribute__(self, name)
            raise AssertionError(f"task.{name} is no part of the contract")

    def guarded(*, l1: float = 100.0):
        return Guarded(p2p.Pix2Pix(l1=l1, matching=10.0))

    monkeypatch.setitem(p2p.TASKS, "guarded", guarded)
    config = settings_file(tmp_path, small_tree(shard_folder) | {"task": {"name": "guarded", "l1": 10.0}})
    command = ["--config", str(config), "--run", str(tmp_path / "run")]
    assert train([*command, "--set", "schedule.decay=0"]) == 0
    assert train(command) == 0
    assert translate.main([str(tmp_path / "run"), str(shard_folder / "val"), "--out", str(tmp_path / "out")]) == 0
