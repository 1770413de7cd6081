"""Ranks to be killed: forked by this process, or started by torchrun. A rank is the training command, which also notes
the samples of each step."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from launch import train
from launch.parent import die_with_parent
from p2p import loop
from tests.ranks import free_port

PATIENCE = 60.0
"""Seconds in which the survivors of a kill must have ended."""


CODES = 0, train.AGAIN, 143, -signal.SIGTERM, -signal.SIGKILL
"""How a rank may end when another was killed: done, left alone, stopped, told to go, killed itself."""


def work(config: Path, run: Path, start: int) -> int:
    """One rank of the `start`-th launch."""
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    noted = run / "seen" / f"{start:05d}.{again:05d}.{os.environ['RANK']}.jsonl"
    noted.parent.mkdir(parents=True, exist_ok=True)
    prepare = loop.prepare

    def noting(share, images, device):
        with open(noted, "a") as file:
            file.write(json.dumps([time.time(), images, share["keys"]]) + "\n")
        return prepare(share, images, device)

    loop.prepare = noting
    return train.main(["--config", str(config), "--run", str(run)])


class Forked:
    """Ranks whose launcher this process is: it tells survivors to end, and starts them again."""

    def __init__(self, config: Path, run: Path, world: int, start: int) -> None:
        self.logs = [run.with_name(f"{run.name}.{start:05d}.{rank}.log") for rank in range(world)]
        group = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        self.codes: dict[int, int] = {}
        self.pids = []
        for rank in range(world):
            environment = group | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            self.pids.append(fork(lambda: work(config, run, start), self.logs[rank], environment))

    def alive(self) -> list[int]:
        """Pids of the ranks that have not ended."""
        for pid in [pid for pid in self.pids if pid not in self.codes]:
            ended, state = os.waitpid(pid, os.WNOHANG)
            if ended:
                self.codes[pid] = os.waitstatus_to_exitcode(state)
        return [pid for pid in self.pids if pid not in self.codes]

    def kill(self, how: str, dice: random.Random) -> bool:
        """Kill one rank, or all; true if they will be started again by themselves."""
        living = self.alive()
        for pid in living if how == "all" else [dice.choice(living)] if living else []:
            os.kill(pid, signal.SIGKILL)
        return False

    def end(self) -> float:
        """Tell the survivors to go, as a launcher does, and wait; returns the seconds that it took.

        Raises:
            AssertionError: one hangs, or ended without saying why.
        """
        began, living = time.monotonic(), self.alive()
        for pid in living:
            os.kill(pid, signal.SIGTERM)
        while self.alive():
            assert time.monotonic() - began < PATIENCE, f"{self.alive()} live {PATIENCE} s after a kill: {self.logs}"
            time.sleep(0.005)
        for pid, log in zip(self.pids, self.logs, strict=True):
            assert self.codes[pid] in CODES, f"{log}: exit code {self.codes[pid]}"
            assert self.codes[pid] != train.AGAIN or "p2p-train: rank" in log.read_text(), f"{log} does not say why"
        return time.monotonic() - began

    def finished(self) -> bool:
        """Whether all ended well."""
        return not self.alive() and not any(self.codes.values())

    def wait(self) -> None:
        """Until the run has ended.

        Raises:
            AssertionError: it ended badly.
        """
        while self.alive():
            time.sleep(0.01)
        assert self.finished(), f"the run did not end well: {self.logs}"


class Torchrun(Forked):
    """Ranks that torchrun starts, and starts again."""

    def __init__(self, config: Path, run: Path, world: int, start: int) -> None:
        self.logs, self.run = [run.with_name(f"{run.name}.{start:05d}.log")], run
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
        command += ["--max-restarts", "1000", "-m", "--", "tests.victims", str(config), str(start), str(run)]
        with open(self.logs[0], "a") as log:
            self.agent = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def alive(self) -> list[int]:
        """Pids of torchrun and of its workers."""
        self.agent.poll()
        found = subprocess.run(["pgrep", "-f", f"tests.victims .* {self.run}$"], capture_output=True, text=True)
        return [int(pid) for pid in found.stdout.split()]

    def kill(self, how: str, dice: random.Random) -> bool:
        """Kill a worker, which torchrun is to start again, or torchrun."""
        workers = [pid for pid in self.alive() if pid != self.agent.pid]
        victim = self.agent.pid if how == "all" or not workers else dice.choice(workers)
        os.kill(victim, signal.SIGKILL)
        return victim != self.agent.pid

    def end(self) -> float:
        """Wait for the workers of a torchrun that was killed; nobody tells them."""
        began = time.monotonic()
        self.agent.wait()
        while self.alive():
            assert time.monotonic() - began < PATIENCE, f"{self.alive()} are orphans: {self.logs}"
            time.sleep(0.02)
        return time.monotonic() - began

    def finished(self) -> bool:
        return self.agent.poll() == 0

    def wait(self) -> None:
        assert self.agent.wait() == 0, f"the run did not end well: {self.logs}"
        assert not self.alive(), f"{self.alive()} are orphans: {self.logs}"


def fork(do, log: Path, environment: dict[str, str]) -> int:
    """Call `do` in a child whose output goes to `log`; its result is the exit code."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.environ |= environment
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        die_with_parent()
        code = do()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(work(Path(sys.argv[1]), Path(sys.argv[3]), int(sys.argv[2])))
