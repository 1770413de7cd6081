"""Training jobs on real Slurm clusters: they end with the weights of a run that nobody disturbed, or say why not."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import p2p
from p2p import checkpoint
from tests.conftest import write_pairs
from tests.slurm.conftest import EPOCHS, ROOT, Cluster, Job, running, until

SCRIPT = "slurm/train_edges2handbags.sh"
MINUTE = 60
RANK, AGENT = "^python -u -m launch.train", "^python slurm/agent.py"


def submit(slurm: Cluster, config: Path, folder: Path, *machines: str, sets: tuple[str, ...] = ()) -> Job:
    """A training job on two nodes; its run is `folder`/run."""
    more = [word for setting in sets for word in ("--set", setting)]
    arguments = ["--config", str(config), f"--run={folder}/run", *more]
    return slurm.submit(folder, "--nodes=2", *machines, SCRIPT, *arguments)


def weights(run: Path, images: int = EPOCHS * 24) -> str:
    """The SHA-256 of G's weights and Adam's moments in a checkpoint."""
    return hashlib.sha256((checkpoint.folder(run, images) / "G.safetensors").read_bytes()).hexdigest()


def the_cause(job: Job) -> str:
    """The one line in which p2p says why it ended."""
    (line,) = (line for line in job.log.splitlines() if line.startswith(("p2p-train: ", "p2p: ")))
    assert "Traceback" not in job.log, job.log
    return line


@pytest.fixture(scope="session")
def undisturbed(able: None, config: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights with which one process ends that is left alone."""
    run = tmp_path_factory.mktemp("undisturbed")
    command = [sys.executable, "-m", "launch.train", "--config", str(config), "--run", str(run)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return weights(run)


# ---- what the scripts say -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", sorted(ROOT.glob("slurm/*.sh")), ids=lambda path: path.name)
def test_script_is_bash(script):
    subprocess.run(["bash", "-n", script], check=True)


RECIPES = [p for p in sorted(ROOT.glob("configs/*.yaml")) if p.stem != "demo" and "pix2pixhd" not in p.read_text()]


@pytest.mark.parametrize("recipe", [p.stem for p in RECIPES])
def test_every_recipe_has_a_script_without_a_setting_of_its_own(recipe):
    *comments, call = (ROOT / f"slurm/train_{recipe}.sh").read_text().splitlines()
    assert all(line.startswith("#") for line in comments)
    job = '"$SLURM_SUBMIT_DIR/slurm/job.sh"'
    assert call == f'exec bash {job} --config configs/{recipe}.yaml --run runs/{recipe} "$@"'


def test_any_recipe_goes_by_its_name(tmp_path):
    """What slurm/train.sh hands to the job, and what it says without a name."""
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "job.sh").write_text('printf "%s\\n" "$@"\n')
    env = os.environ | {"SLURM_SUBMIT_DIR": str(tmp_path)}

    def call(*arguments):
        return subprocess.run(["bash", ROOT / "slurm/train.sh", *arguments], env=env, capture_output=True, text=True)

    said = call("cityscapes_512p", "--set", "a=b c").stdout.splitlines()
    assert said == ["--config", "configs/cityscapes_512p.yaml", "--run", "runs/cityscapes_512p", "--set", "a=b c"]
    nothing = call()
    assert nothing.returncode != 0
    assert "name a recipe of configs/" in nothing.stderr


# ---- left alone ---------------------------------------------------------------------------------------------------


def trains(slurm: Cluster, config: Path, folder: Path) -> None:
    job = submit(slurm, config, folder, sets=("schedule.epochs=1",))
    assert job.ended() == "COMPLETED 0", job.log
    assert "2 ranks" in job.log
    assert p2p.load(folder / "run")


def test_trains_on_two_nodes(slurm, config, tmp_path):
    trains(slurm, config, tmp_path)


@pytest.mark.parametrize("hosts", ["good", "none"])
def test_trains_whatever_the_nodes_take_their_names_for(hosts, able, config, tmp_path):
    with running(hosts) as cluster:
        trains(cluster, config, tmp_path)


# ---- asked to stop ------------------------------------------------------------------------------------------------


def person(slurm: Cluster, job: Job) -> None:
    """Only the ranks and what they run under hear it."""
    slurm.run("scancel", "--signal=USR1", job.name)


def termination(slurm: Cluster, job: Job) -> None:
    """What Slurm does first before a preemption, where it is not set up to send a job's own signal."""
    slurm.run("scancel", "--signal=TERM", job.name)


def preemption(slurm: Cluster, job: Job) -> None:
    """Another job needs the nodes. Only the batch shell hears of it, as it does before the time limit."""
    other = slurm.submit(Path("/tmp"), "--partition=urgent", "--nodes=2", "--gpus-per-node=2", "--wrap=true")
    assert other.ended() == "COMPLETED 0"
    assert job.restarts == 1


@pytest.mark.parametrize("ask", [person, termination, preemption])
def test_asked_to_stop_it_saves_and_goes_on_after_the_queue(ask, slurm, config, undisturbed, tmp_path):
    job = submit(slurm, config, tmp_path, sets=("every.save=0",))  # so that it has only what it saves when asked
    job.says("^images 96 of")
    ask(slurm, job)
    until(lambda: job.restarts == 1, why=lambda: job.log)
    assert job.ended() == "COMPLETED 0", job.log
    assert job.restarts == 1
    assert job.says("^resuming after ([0-9]+) images")
    assert weights(tmp_path / "run") == undisturbed


# ---- things die ---------------------------------------------------------------------------------------------------


def power_loss(slurm: Cluster) -> str:
    """Nobody says anything any more; Slurm has to notice."""
    slurm.fault("kill", "node2")
    return "node2"


def crash_of_the_first_node(slurm: Cluster) -> str:
    """With the batch shell, the rendezvous and rank 0 on it; an operator sees it at once."""
    slurm.fault("crash", "node1")
    slurm.run("scontrol", "update", "NodeName=node1", "State=DOWN", "Reason=crash")
    return "node1"


@pytest.mark.parametrize("fail", [power_loss, crash_of_the_first_node])
def test_lost_node_it_goes_on_from_the_checkpoint_when_the_node_is_back(fail, slurm, config, undisturbed, tmp_path):
    job = submit(slurm, config, tmp_path)
    job.says("^saved")
    node = fail(slurm)
    until(lambda: job.restarts == 1, why=lambda: job.log)
    slurm.fault("start", node)
    assert job.ended() == "COMPLETED 0", job.log
    assert job.says("^resuming after")
    assert weights(tmp_path / "run") == undisturbed


def test_lost_node_it_goes_on_with_the_others_where_the_job_may(slurm, config, undisturbed, tmp_path):
    job = submit(slurm, config, tmp_path, "--no-kill")
    job.says("^saved")
    slurm.fault("crash", "node2")
    assert job.ended() == "COMPLETED 0", job.log
    assert job.restarts == 0
    assert job.says("= 1 rank x 4 images")
    assert weights(tmp_path / "run") == undisturbed


def test_killed_rank_is_replaced_on_the_spot(slurm, config, undisturbed, tmp_path):
    job = submit(slurm, config, tmp_path)
    job.says("^saved")
    slurm.run("pkill", "-KILL", "-f", RANK, host="node2")
    assert job.ended() == "COMPLETED 0", job.log
    assert job.restarts == 0
    assert job.says("^resuming after")
    assert weights(tmp_path / "run") == undisturbed


def test_killed_torchrun_ends_the_job(slurm, config, tmp_path):
    job = submit(slurm, config, tmp_path, sets=("schedule.epochs=1000",))
    job.says("^saved")
    slurm.run("pkill", "-KILL", "-f", AGENT, host="node2")
    assert job.ended(MINUTE).startswith("FAILED"), job.log


# ---- it cannot work -----------------------------------------------------------------------------------------------


def test_two_jobs_in_one_folder(slurm, config, tmp_path):
    first = submit(slurm, config, tmp_path, sets=("schedule.epochs=1000",))
    first.says("^images 24 of")
    second = submit(slurm, config, tmp_path, sets=("schedule.epochs=1000",))
    assert second.ended(MINUTE) == "FAILED 2", second.log
    assert str(tmp_path / "run") in the_cause(second)
    assert first.show("JobState") == "RUNNING"


def test_shards_that_one_node_does_not_have(slurm, config, shard_folder, tmp_path):
    slurm.run("mount", "-t", "tmpfs", "nothing", str(shard_folder / "train"), host="node2")
    job = submit(slurm, config, tmp_path)
    assert job.ended(MINUTE) == "FAILED 2", job.log
    assert str(shard_folder / "train") in the_cause(job)


def test_rendezvous_out_of_reach(slurm, config, tmp_path):
    slurm.run("ip", "rule", "add", "ipproto", "tcp", "dport", "20000-29999", "prohibit", host="node2")
    job = submit(slurm, config, tmp_path)
    job.says("rendezvous")
    assert job.ended(MINUTE) == "FAILED 2", job.log
    assert the_cause(job).startswith("p2p: node2 cannot reach 10.77.0.11:20")


# ---- other jobs ---------------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(slurm, tmp_path, monkeypatch):
    """A submit folder in which `runs/` may be written to."""
    for name in ("slurm", "launch", "p2p", "shards", ".venv"):
        if (ROOT / name).exists():
            (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_sweep_takes_a_line_each_and_signals_concern_one_task(slurm, config, elsewhere):
    (elsewhere / "small.txt").write_text("--set task.l1=10 --set schedule.epochs=1\n--set task.l1=20\n")
    arguments = ("small.txt", "--config", str(config), "--set", "schedule.epochs=30")
    array = slurm.submit(elsewhere, "--array=1-2", "--gpus-per-node=2", "slurm/sweep.sh", *arguments)
    tasks = [Job(slurm, f"{array.name}_{i}") for i in (1, 2)]
    tasks[1].says("^images 96 of")
    slurm.run("scancel", "--batch", "--signal=USR1", tasks[1].name)  # its job number is the whole array's
    assert [task.ended() for task in tasks] == ["COMPLETED 0"] * 2
    assert [task.restarts for task in tasks] == [0, 1]
    assert all(f"l1: {10 * i}" in task.log and "2 ranks" in task.log for i, task in enumerate(tasks, 1))
    assert p2p.load(elsewhere / "runs/small/1")
    assert p2p.load(elsewhere / "runs/small/2")


def test_packs(slurm, elsewhere):
    write_pairs(elsewhere / "pairs/train", 4)
    job = slurm.submit(elsewhere, "--cpus-per-task=2", "slurm/pack.sh", "pairs", "pairs", "set", "--input", "right")
    assert job.ended() == "COMPLETED 0", job.log
    assert (elsewhere / "set/train/index.json").exists()
