"""Kill ranks of a small run, again and again: `python -m tests.chaos --kills 1000`, or with `--task pix2pixhd`, whose
runs go from coarse to fine.

Runs of 1 to 4 ranks with `reduction: exact` are disturbed at random moments and gone on with on another number of
ranks until they end. Each must end with the very weights of an undisturbed run and must have seen every sample exactly
once an epoch; no process may be left over, and survivors must end in a stated time and say why.

By default this process plays the launcher: it forks ranks from an image in which everything is imported, so that a
kill costs no import of torch. With `--torchrun` the launcher is torchrun, and is itself killed now and then.
"""

import argparse
import hashlib
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib import import_module
from pathlib import Path

from p2p import checkpoint
from tests.conftest import CLASSES, hd_tree, small_tree, write_maps, write_pairs
from tests.victims import Forked, Torchrun

PAIRS, BATCH, PART, STEPS, SAVE = 36, 12, 3, 102, 48
LIFE, MEETING = 2.0, 0.3
"""Seconds that ranks live at most before one is killed, at any moment or while they meet."""
HOW = "one", "one", "start", "save", "all"
"""One rank at any moment, while the ranks meet, during a save; or all of them (with torchrun: torchrun)."""


def settings(root: Path, task: str) -> Path:
    """Small pairs and a small experiment."""
    epochs, data, out = STEPS * BATCH / PAIRS, root / "pairs", root / "set"
    if task == "pix2pix":
        tree = small_tree(out) | {"schedule": {"epochs": epochs}}
        tree["G"]["group"] = tree["D"]["group"] = PART
        write_pairs(data / "train", PAIRS)
        form = ["pairs", str(data), str(out), "--input", "right"]
    else:
        tree = hd_tree(out) | {"coarse": [{"epochs": epochs / 3}]}
        tree["schedule"] = {"epochs": epochs * 2 / 3, "alone": epochs / 6}
        write_maps(data, "train", PAIRS)
        form = ["labels", str(data), str(out), "--classes", str(CLASSES)]
    tree["data"] |= {"val": "", "batch": BATCH, "micro": PART}
    tree["engine"]["reduction"] = "exact"
    tree["every"] = {"log": 60, "save": SAVE, "validate": 0, "pictures": 0}
    subprocess.run([sys.executable, "-m", "shards.pack", *form], check=True, stdout=subprocess.DEVNULL)
    (root / "chaos.yaml").write_text(json.dumps(tree))
    return root / "chaos.yaml"


class Game:
    """One run, disturbed until it ends."""

    def __init__(self, config: Path, run: Path, dice: random.Random, launcher: type[Forked]) -> None:
        self.config, self.run, self.dice, self.launcher = config, run, dice, launcher
        self.kills: list[tuple[str, float, int]] = []
        """How, when, and in which launch."""
        self.launches, self.slowest = 0, 0.0

    def play(self, kills: int) -> "Game":
        """Train to the end, with at most so many kills."""
        ranks = self.launch()
        while len(self.kills) < kills and self.moment(how := self.dice.choice(HOW), ranks):
            self.kills.append((how, time.time(), self.launches))
            if not ranks.kill(how, self.dice):
                self.slowest = max(self.slowest, ranks.end())
                ranks = self.launch()
        ranks.wait()
        return self

    def launch(self) -> Forked:
        """Ranks that go on with the run, 1 to 4."""
        self.launches += 1
        return self.launcher(self.config, self.run, self.dice.randint(1, 4), self.launches)

    def moment(self, how: str, ranks: Forked) -> bool:
        """Wait for the time of a kill; false if the run ended before."""
        life = LIFE * (3 if self.launcher is Torchrun else 1)  # torch is imported first
        until = time.monotonic() + self.dice.uniform(0, MEETING if how == "start" else life)
        while time.monotonic() < until and not ranks.finished():
            if how == "save" and any((self.run / "checkpoints").glob(".*.tmp")):
                break
            time.sleep(0.002)
        return not ranks.finished()

    def steps(self) -> list[tuple[str, float, int, list[str]]]:
        """What the ranks noted, in the order of the launches: launch, time, images before the step, samples."""
        return [
            (path.name.rpartition(".")[0].rpartition(".")[0], *json.loads(line))
            for path in sorted((self.run / "seen").glob("*.jsonl"))
            for line in path.read_text().splitlines()
            if line.endswith("]")  # the last may have been cut short
        ]

    def recovered(self) -> list[float]:
        """Seconds from each kill to the next step of a later launch."""
        steps = [(int(name.split(".")[0]), when) for name, when, _, _ in self.steps()]
        same = self.launcher is Torchrun
        after = [[w - when for n, w in steps if w > when and n >= nth + (not same)] for _, when, nth in self.kills]
        return [min(times) for times in after if times]

    def samples(self) -> list[list[str]]:
        """The samples of each step that counts: of the last launch that made it."""
        made: dict[int, tuple[str, list[str]]] = {}
        for launch, _, images, keys in self.steps():
            last, before = made.get(images, ("", []))
            made[images] = (launch, [*before, *keys] if launch == last else keys)
        return [made[images][1] for images in sorted(made)]

    def check(self, expected: str) -> None:
        """The weights, and the samples.

        Raises:
            AssertionError: something was lost, repeated or changed.
        """
        assert self.digest() == expected, f"{self.run}: other weights"
        samples = [key for step in self.samples() for key in step]
        epochs = [samples[i : i + PAIRS] for i in range(0, len(samples), PAIRS)]
        assert len(samples) == STEPS * BATCH, f"{self.run}: {len(samples)} samples"
        assert all(len(set(epoch)) == PAIRS for epoch in epochs), f"{self.run}: a sample twice in an epoch"

    def digest(self) -> str:
        """Of weights and Adam's moments at the end."""
        folder = checkpoint.folder(self.run, STEPS * BATCH)
        return hashlib.sha256(b"".join((folder / f"{n}.safetensors").read_bytes() for n in "GD")).hexdigest()


def main() -> None:
    """Disturb runs until enough was killed, then report."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--kills", type=int, default=1000)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--task", choices=["pix2pix", "pix2pixhd"], default="pix2pix")
    p.add_argument("--torchrun", action="store_true", help="under torchrun, which starts killed ranks again")
    args = p.parse_args()
    import_module("torch.utils.tensorboard")  # so that forked ranks have it
    root = Path(tempfile.mkdtemp(prefix="chaos-"))
    config, launcher = settings(root, args.task), Torchrun if args.torchrun else Forked
    report(*games(root, config, args.kills, random.Random(args.seed), launcher))
    shutil.rmtree(root)


def games(
    root: Path, config: Path, kills: int, dice: random.Random, launcher: type[Forked]
) -> tuple[list[Game], float, float]:
    """Disturbed runs; with the seconds that one takes undisturbed, and that all took."""
    undisturbed = Game(config, root / "undisturbed", dice, Forked).play(0)
    expected = undisturbed.digest()
    undisturbed.check(expected)
    times = [when for _, when, _, _ in undisturbed.steps()]
    played: list[Game] = []
    began = time.time()
    while kills > 0:
        game = Game(config, root / f"run{len(played)}", dice, launcher).play(kills)
        game.check(expected)
        kills -= len(game.kills)
        played.append(game)
        print(
            f"run {len(played)}: {len(game.kills)} kills, {game.launches} launches, same weights; {kills} to go",
            flush=True,
        )
        shutil.rmtree(game.run / "checkpoints")
    return played, max(times) - min(times), time.time() - began


def report(played: list[Game], undisturbed: float, seconds: float) -> None:
    """What happened, in lines."""
    recovered = sorted(r for game in played for r in game.recovered())
    kinds = Counter(how for game in played for how, _, _ in game.kills)
    print(
        f"kills      {kinds.total()} in {len(played)} runs: "
        + ", ".join(f"{n} {how}" for how, n in kinds.most_common())
    )
    print(f"recovered  mean {statistics.mean(recovered):.2f} s, median {statistics.median(recovered):.2f} s,"
          f" 95 % within {recovered[int(len(recovered) * 0.95)]:.2f} s, worst {recovered[-1]:.2f} s")  # fmt: skip
    print(f"survivors  all ended within {max(game.slowest for game in played):.2f} s")
    print(f"useful     {len(played) * undisturbed / seconds:.0%} of {seconds:.0f} s")
    print("weights    equal to the undisturbed run's in every run; every sample once an epoch; nothing left running")


if __name__ == "__main__":
    main()
