"""Real Slurm clusters on this machine, for tests; `cluster.sh` makes them."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from tests.conftest import small_tree

EPOCHS = 60
ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("cluster.sh")
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED"}
T = TypeVar("T")


def until(what: Callable[[], T], seconds: float = 120, why: Callable[[], str] = str) -> T:
    """What `what` returns as soon as that is true; `why` says more where it does not come."""
    end = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < end, f"not in {seconds} s: {why()}"
        time.sleep(0.1)
    return value


@dataclass(frozen=True)
class Job:
    """A job `7` of a cluster, or an array's task `7_2`."""

    cluster: "Cluster"
    name: str

    def show(self, field: str) -> str:
        """A field of `scontrol show job`."""
        found = re.search(rf"\b{field}=(\S+)", self.cluster.run("scontrol", "show", "job", self.name, "--oneliner"))
        assert found, field
        return found[1]

    @property
    def log(self) -> str:
        """What it has printed so far, over all its starts."""
        path = Path(self.show("StdOut"))
        return path.read_text() if path.exists() else ""

    @property
    def restarts(self) -> int:
        """How often it came back from the queue."""
        return int(self.show("Restarts"))

    def says(self, pattern: str, seconds: float = 120) -> str:
        """Wait for it in the log."""
        found = until(lambda: re.search(pattern, self.log, re.MULTILINE), seconds, lambda: f"{pattern} in\n{self.log}")
        return found[0]

    def ended(self, seconds: float = 240) -> str:
        """Wait for its end, requeues included; returns state and exit code, such as `FAILED 2`."""
        until(lambda: self.show("JobState") in ENDED, seconds, lambda: self.log)
        return f"{self.show('JobState')} {self.show('ExitCode').split(':')[0]}"


class Cluster:
    """Nodes and their controller. They end with this process, however that ends."""

    def __init__(self, folder: Path, nodes: int, hosts: str) -> None:
        self.folder, self.nodes = folder, [f"node{i + 1}" for i in range(nodes)]
        self.touched: set[str] = set()
        with (folder.parent / f"{folder.name}.log").open("w") as log:
            command = ["setpriv", "--pdeathsig", "KILL", str(SCRIPT), "up", str(folder), str(nodes), hosts]
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        until(lambda: (folder / "pid/ctl").exists())
        self.ready()

    def run(self, *command: str, host: str = "ctl", check: bool = True) -> str:
        """Run a command on a host; returns its output."""
        self.touched |= {host} - {"ctl"}
        line = [str(SCRIPT), "exec", str(self.folder), host, *command]
        done = subprocess.run(line, capture_output=True, text=True)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def fault(self, kind: str, node: str, check: bool = True) -> None:
        """What `cluster.sh` can do to a node: `crash`, `kill`, `start`, ..."""
        self.touched.add(node)
        subprocess.run([str(SCRIPT), kind, str(self.folder), node], check=check, capture_output=not check)

    def submit(self, out: Path, *arguments: str) -> Job:
        """What a user types behind `sbatch`; the output goes into the folder `out`."""
        return Job(self, self.run("sbatch", "--parsable", f"--output={out}/%j.out", *arguments).strip())

    def ready(self) -> None:
        """Wait until every node is idle."""
        ask = ("sinfo", "--noheader", "--Node", "--partition=main", "--format=%T")
        until(lambda: self.run(*ask, check=False).split() == ["idle"] * len(self.nodes))

    def renew(self) -> None:
        """As new: no jobs, and nodes that a test has touched are booted afresh."""
        self.run("scancel", "--user=root")
        for node in self.touched:
            self.fault("crash", node, check=False)
            self.fault("start", node)
        self.touched.clear()
        self.ready()


@contextmanager
def running(hosts: str, nodes: int = 2) -> Iterator[Cluster]:
    """A cluster for a while. Its folder is not pytest's, which munged refuses: nobody else could search it."""
    with tempfile.TemporaryDirectory(prefix="p2p-slurm-") as folder:
        Path(folder).chmod(0o711)
        cluster = Cluster(Path(folder) / hosts, nodes, hosts)
        try:
            yield cluster
        finally:
            cluster.process.kill()
            cluster.process.wait()


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are submitted from the top of the repository."""
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="session")
def able() -> None:
    """Skip where no cluster can be."""
    if os.environ.get("P2P_SLURM") != "1":
        pytest.skip("make slurm runs these; needs root and Debian's slurm-wlm")
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not all(map(shutil.which, ("slurmctld", "slurmd", "munged", "ip", "pkill"))):
        install = "apt-get -qq update && apt-get -qq install -y --no-install-recommends slurm-wlm munge iproute2 procps"
        if subprocess.run(["sh", "-c", install], stdin=subprocess.DEVNULL).returncode:
            pytest.skip("apt-get cannot install slurm-wlm, munge, iproute2 and procps")
    if subprocess.run(["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "true"]).returncode:
        pytest.skip("this machine allows no new namespaces")


@pytest.fixture(scope="session")
def debian(able: None) -> Iterator[Cluster]:
    """Two nodes that take their own names for 127.0.1.1, as Debian has it."""
    with running("debian") as cluster:
        yield cluster


@pytest.fixture
def slurm(debian: Cluster) -> Iterator[Cluster]:
    """Two nodes, as new."""
    yield debian
    debian.renew()


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory, shard_folder: Path) -> Path:
    """A small experiment that is long enough to be disturbed, and whose weights no number of ranks changes."""
    tree = small_tree(shard_folder)
    tree["data"]["val"] = ""
    tree["schedule"] = {"name": "constant", "epochs": EPOCHS}
    tree["engine"]["reduction"] = "exact"
    tree["every"] = {"log": 24, "save": 96}
    path = tmp_path_factory.mktemp("config") / "long.yaml"
    path.write_text(json.dumps(tree))
    return path
