"""What clusters do to a run, on real processes: kills, signals, full disks, ranks that do not fit together. Nothing is
lost, nothing hangs, and the cause is said once."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from launch import status as status_command
from p2p import checkpoint, dist, status
from p2p.meeting import NotYetError, meet, verdicts
from tests.conftest import hd_tree, small_tree
from tests.ranks import free_port

ROOT = Path(__file__).parents[1]
ALONE = "G.group=1", "D.group=1"
BOUND = 60
"""Seconds in which every rank must have ended, with the cause."""


@pytest.fixture(scope="module")
def long_config(tmp_path_factory, shard_folder):
    """A run of some 10,000 images that saves every 200, for tests that do not wait for its end."""
    tree = small_tree(shard_folder)
    tree["schedule"] = {"epochs": 400}
    tree["every"] = {"log": 40, "save": 200, "validate": 0, "pictures": 0, "keep": 2}
    path = tmp_path_factory.mktemp("long") / "long.yaml"
    path.write_text(json.dumps(tree))
    return path


def start(config, run, *overrides, ranks=1, folders=None, codes=None, own=None):
    """The ranks of a run as a launcher starts them, each a process; `folders` they work in, `codes` they run,
    `own` more settings of each."""
    port = free_port()
    started = []
    for rank in range(ranks):
        chosen = [*overrides, *(own[rank] if own else [])]
        command = [sys.executable, "-m", "launch.train", "--config", str(config), "--run", str(run)]
        command += sets(*chosen)
        group = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
        group |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)} if ranks > 1 else {}
        env = os.environ | group | {"PYTHONPATH": str(codes[rank] if codes else ROOT), "OMP_NUM_THREADS": "1"}
        where = folders[rank] if folders else ROOT
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=where, env=env, **pipes))
    return started


def sets(*overrides):
    """Arguments."""
    return [part for o in overrides for part in ("--set", o)]


def ends(started):
    """Exit codes of ranks, and what they said on stderr, without what torch says on it."""
    said = [process.communicate(timeout=BOUND) for process in started]
    ours = [line for _, err in said for line in err.splitlines() if line.startswith("p2p-train: ")]
    return [process.returncode for process in started], ours


def until_saved(run, process, images=200):
    """Wait for a checkpoint."""
    while not any(int(path.name) >= images for path in checkpoint.saved(run)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def weights(run):
    return load_file(checkpoint.newest(run) / "G.safetensors")


# Kills


@pytest.mark.parametrize(
    "how", [["--kills", "12"], ["--kills", "3", "--torchrun"], ["--kills", "4", "--task", "pix2pixhd"]]
)
def test_killed_ranks_lose_and_repeat_nothing(how):
    """At any moment, in a save, while they meet, all at once; 1 to 4 ranks; torchrun itself too. The same bits."""
    command = [sys.executable, "-m", "tests.chaos", "--seed", "3", *how]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert re.search(rf"kills +{how[1]} in", done.stdout)
    assert "weights    equal to the undisturbed run's in every run; every sample once an epoch" in done.stdout


def test_nodes_come_and_go(long_config, tmp_path):
    """torchrun's --nnodes=1:2: a second node joins, and dies; training goes on with the ranks that there are."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1:2", "--nproc-per-node=1", "--max-restarts=9"]
    command += ["--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{free_port()}", f"--rdzv-id={os.getpid()}"]
    command += ["--rdzv-conf=last_call_timeout=1,keep_alive_interval=1", "-m", "--", "launch.train"]
    command += ["--config", str(long_config), "--run", str(tmp_path), "--set", "schedule.epochs=9000", *sets(*ALONE)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with open(tmp_path / "said", "w") as said:
        nodes = [subprocess.Popen(command, cwd=ROOT, env=env, stdout=said, stderr=said)]
        until_ranks(tmp_path, 1, nodes[0])
        nodes.append(subprocess.Popen(command, cwd=ROOT, env=env, stdout=said, stderr=said))
        until_ranks(tmp_path, 2, nodes[0])
        nodes[1].kill()  # its worker dies with it
        until_ranks(tmp_path, 1, nodes[0])
        nodes[0].terminate()
        nodes[0].wait(BOUND)
    assert status.read(tmp_path)["state"] == "stopped"
    assert (tmp_path / "said").read_text().count("resuming after ") >= 2


def until_ranks(run, ranks, process):
    """Wait until so many ranks train, and one checkpoint more is there."""
    while status.read(run).get("ranks") != ranks or status.read(run).get("state") != "running":
        assert process.poll() is None
        time.sleep(0.02)
    before = checkpoint.newest(run)
    while checkpoint.newest(run) == before:
        assert process.poll() is None
        time.sleep(0.02)


# Signals


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGUSR1, 0), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_one_rank_stops_all_after_the_same_step(sent, code, long_config, tmp_path):
    ranks = start(long_config, tmp_path, ranks=2)
    until_saved(tmp_path, ranks[0])
    ranks[1].send_signal(sent)
    out = [rank.communicate(timeout=BOUND)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [code, code]
    assert status.read(tmp_path)["state"] == "stopped"
    images = int(checkpoint.newest(tmp_path).name)
    assert f"stopped by {sent.name} after {images:,} images" in out[0]
    assert status_command.main([str(tmp_path)]) == status_command.STOPPED


@pytest.mark.parametrize("make", [small_tree, hd_tree])
def test_a_stopped_run_goes_on_as_if_nothing_had_been(make, request, tmp_path):
    """pix2pixHD's first 10 epochs are the global net's."""
    config_file, shards = tmp_path / "c.yaml", {small_tree: "shard_folder", hd_tree: "label_folder"}[make]
    config_file.write_text(json.dumps(make(request.getfixturevalue(shards))))
    few = ("schedule.epochs=20", "schedule.decay=0", "every.save=0", "every.validate=0", "every.pictures=0")
    if make is hd_tree:
        few = (*few, "schedule.epochs=10", "schedule.alone=5", "coarse=[{epochs: 10}]")
    (whole,) = start(config_file, tmp_path / "whole", *few)
    (part,) = start(config_file, tmp_path / "part", *few)
    while not (tmp_path / "part" / "scalars.jsonl").exists() or len(lines(tmp_path / "part")) < 5:
        assert part.poll() is None
        time.sleep(0.005)
    part.send_signal(signal.SIGUSR1)
    assert ends([whole, part]) == ([0, 0], [])
    assert 0 < int(checkpoint.newest(tmp_path / "part").name) < 480
    assert ends(start(config_file, tmp_path / "part", *few)) == ([0], [])
    expected, got = weights(tmp_path / "whole"), weights(tmp_path / "part")
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def lines(run):
    return (run / "scalars.jsonl").read_text().splitlines()


# Files


def test_a_full_disk_keeps_the_last_checkpoint_and_says_what_to_do(long_config, tmp_path):
    assert ends(start(long_config, tmp_path, "schedule.epochs=9")) == ([0], [])
    before = checkpoint.newest(tmp_path)
    limited = ["bash", "-c", 'ulimit -f 60; exec "$@"', "--", sys.executable, "-m", "launch.train"]
    command = [*limited, "--config", str(long_config), "--run", str(tmp_path), "--set", "schedule.epochs=30"]
    full = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert full.returncode == 2, full.stderr
    (said,) = [line for line in full.stderr.splitlines() if line.startswith("p2p-train: ")]
    assert "cannot be written" in said
    assert "make room, the same command goes on" in said
    assert checkpoint.newest(tmp_path) == before
    assert not list((tmp_path / "checkpoints").glob(".*"))
    assert ends(start(long_config, tmp_path, "schedule.epochs=10")) == ([0], [])


def test_two_jobs_on_one_run_folder(long_config, tmp_path):
    (first,) = start(long_config, tmp_path)
    until_saved(tmp_path, first)
    codes, said = ends(start(long_config, tmp_path, ranks=2))
    assert codes == [2, 2]
    assert len(said) == 1
    assert f"{tmp_path}: process {first.pid} on {dist.host()} is training in it; wait for its end" in said[0]
    assert first.poll() is None
    first.kill()
    first.wait()
    assert status_command.main([str(tmp_path)]) == status_command.NOT_FINISHED
    assert not status.held(tmp_path)
    ranks = start(long_config, tmp_path, ranks=2)  # what a killed job held is free
    until_saved(tmp_path, ranks[0], images=int(checkpoint.newest(tmp_path).name) + 1)
    ranks[0].send_signal(signal.SIGUSR1)
    assert ends(ranks) == ([0, 0], [])


# Ranks that do not fit together


def test_ranks_with_other_settings(long_config, tmp_path):
    codes, said = ends(start(long_config, tmp_path / "run", *ALONE, ranks=3, own=[[], ["optimizer.lr=1e-3"], []]))
    assert codes == [2, 2, 2]
    assert said == [
        f"p2p-train: rank 1 on {dist.host()}: optimizer.lr is 0.001 here, 0.0002 on rank 0;"
        " start every rank with the same command, code and files"
    ]


def test_ranks_with_other_code(long_config, tmp_path):
    for room in ("p2p", "launch"):
        shutil.copytree(ROOT / room, tmp_path / "other" / room, ignore=shutil.ignore_patterns("__pycache__"))
    with open(tmp_path / "other" / "p2p" / "losses.py", "a") as file:
        file.write("# a version of its own\n")
    folders = [ROOT, tmp_path / "other"]
    codes, said = ends(start(long_config, tmp_path / "run", ranks=2, folders=folders, codes=folders))
    assert codes == [2, 2]
    assert len(said) == 1
    assert f"rank 1 on {dist.host()}: the code of p2p is " in said[0]


def test_a_shard_that_one_rank_does_not_see(shard_folder, tmp_path):
    tree = small_tree(Path("set"))
    (tmp_path / "small.yaml").write_text(json.dumps(tree))
    for node in ("a", "b"):
        shutil.copytree(shard_folder, tmp_path / node / "set")
    (tmp_path / "b" / "set" / "train" / "shard-000002.tar").unlink()
    codes, said = ends(
        start(tmp_path / "small.yaml", tmp_path / "run", ranks=2, folders=[tmp_path / "a", tmp_path / "b"])
    )
    assert codes == [2, 2]
    assert len(said) == 1
    assert f"rank 1 on {dist.host()}: " in said[0]
    assert "shard-000002.tar" in said[0]


def test_a_run_folder_that_one_rank_does_not_see(config_file, tmp_path):
    assert ends(start(config_file, tmp_path / "a" / "run", "schedule.epochs=1")) == ([0], [])
    (tmp_path / "b").mkdir()
    codes, said = ends(start(config_file, "run", ranks=2, folders=[tmp_path / "a", tmp_path / "b"]))
    assert codes == [2, 2]
    assert len(said) == 1
    assert "images seen in the run folder is 0 here, 48 on rank 0" in said[0]


def test_a_mistake_that_all_make_is_said_once(config_file, tmp_path):
    codes, said = ends(start(config_file, tmp_path / "run", "data.crop=77", *ALONE, ranks=3))
    assert codes == [2, 2, 2]
    assert len(said) == 1
    assert said[0].startswith("p2p-train: data.")
    assert not (tmp_path / "run").exists()


def test_a_meeting_place_that_nobody_answers_at(monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(dist, "PATIENCE", dist.datetime.timedelta(seconds=1))
    with pytest.raises(NotYetError, match=r"rank 1 on .*: the ranks did not meet at 127.0.0.1:9 within 1 s"):
        meet()


def test_a_rank_that_never_comes_is_named(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr(dist, "PATIENCE", dist.datetime.timedelta(seconds=1))
    store = torch.distributed.HashStore()
    store.set("verdict/2", "node\n")
    with pytest.raises(NotYetError, match=r"ranks 1 of 3 did not come within 1 s"):
        verdicts(store, "")
