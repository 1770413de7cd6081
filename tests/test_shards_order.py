"""`python -m shards.order` prints what the training reads."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from p2p import config as conf
from p2p.build import build_experiment
from p2p.data.format import index_name
from shards import order
from tests.conftest import small_tree


def printed(capsys, *argv):
    """What the command prints, as JSON lines."""
    assert order.main([*map(str, argv), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def keys_read(tree, world, first, steps):
    """(step, rank, position, key) of what the streams of all ranks deliver."""
    made = build_experiment(conf.from_tree(tree), world, torch.device("cpu"))
    batch, found = made.config.data.batch, []
    for rank in range(world):
        stream = made.stream(rank, world, print)
        for number, got in enumerate(stream.batches(first, first + steps * batch), start=first // batch):
            found += [(number, rank, got["position"] + i, key) for i, key in enumerate(got["keys"])]
    return sorted(found)


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize(("block", "window"), [(16, 2), (1, 1), (0, 2)])
def test_it_is_what_the_training_reads(shard_folder, capsys, world, block, window):
    tree = small_tree(shard_folder) | {"seed": 7}
    tree["data"] |= {"block": block, "window": window, "lanes": 4}
    sizes = ["--lanes", 4, "--block", block, "--window", window, "--seed", 7, "--unit", 2]
    lines = printed(capsys, shard_folder / "train", "--batch", 4, "--ranks", world, "--steps", 9, "--from", 8, *sizes)
    shown = sorted((line["step"], line["rank"], line["position"], line["key"]) for line in lines)
    assert shown == keys_read(tree, world, 8, 9)
    assert [line["epoch"] for line in lines] == [line["position"] // 24 for line in lines]


def test_sets_are_mixed_as_in_training(shard_folder, capsys):
    train, val = shard_folder / "train", shard_folder / "val"
    tree = small_tree(shard_folder)
    tree["data"]["train"] = [{"at": str(train), "weight": 0.75}, {"at": str(val), "weight": 0.25}]
    lines = printed(capsys, train, val, "--weights", 3, 1, "--batch", 4, "--ranks", 2, "--steps", 12, "--unit", 2)
    shown = sorted((line["step"], line["rank"], line["position"], line["key"]) for line in lines)
    assert shown == keys_read(tree, 2, 0, 12)
    assert sum(int(line["key"]) >= 100 for line in lines) == 12  # keys of the validation set, a quarter of 48


def test_lines_for_people_and_a_pipe_that_closes(shard_folder):
    command = [sys.executable, "-m", "shards.order", str(shard_folder / "train"), "--batch", "4", "--steps", "4000"]
    piped = f"{' '.join(command)} | head -2"
    done = subprocess.run(piped, shell=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.stderr == ""
    step, rank, position, epoch, key = done.stdout.splitlines()[1].split("\t")
    assert (step, rank, position, epoch) == ("0", "0", "1", "0")
    assert key.isdecimal()


def test_it_needs_no_torch(shard_folder):
    code = (
        "import sys; from shards import order\n"
        f"assert order.main([{str(shard_folder / 'train')!r}, '--batch', '4', '--steps', '1']) == 0\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=Path(__file__).parents[1])


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["nowhere", "--batch", "4", "--steps", "1"], "nowhere: no index.json here"),
        (["SET", "--batch", "2", "--ranks", "3", "--steps", "1"], "--batch 2: must be a multiple of --unit 1"),
        (["SET", "--batch", "4", "--steps", "1", "--weights", "1", "2"], "--weights: there are 2 for 1 sets"),
        (["SET", "--batch", "4", "--steps", "1", "--weights", "0"], "each must be above 0"),
        (["SET/" + index_name(3), "--batch", "4", "--steps", "1"], "no index-3.json here"),
    ],
)
def test_a_mistake_is_one_line(shard_folder, capsys, argv, says):
    assert order.main([word.replace("SET", str(shard_folder / "train")) for word in argv]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
