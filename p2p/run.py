"""A run in its folder: how it trains, what it stores on the way, and how it goes on."""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from p2p import __version__, checkpoint, dist, status
from p2p import config as conf
from p2p.averages import Averages
from p2p.build import build_networks
from p2p.data.transfer import transferred
from p2p.engine import engines_of
from p2p.experiment import Experiment
from p2p.generator import Generator
from p2p.log import Journal, NonFiniteError
from p2p.loop import Chore, split, train
from p2p.recorder import Recorder
from p2p.resume import beginning
from p2p.stages import grown
from p2p.validation import Validation

CALIBRATION_IMAGES = 256
"""Training images whose statistics become the running averages."""
TASK = "task"
"""What the file of the task's state is called in a checkpoint."""


class Run:
    """A stage of an experiment, in a folder, on this rank.

    Args:
        experiment: the stage, see `Experiment.at`.
        total: images of the whole experiment.
        folder: holds everything that the run writes; an earlier part of the run in it is gone on with.
        device: of this rank.
        journal: takes lines for the reader.

    Raises:
        ValueError: the folder holds another experiment, or a damaged checkpoint.
    """

    def __init__(
        self, experiment: Experiment, folder: Path, device: torch.device, journal: Journal, total: int = 0
    ) -> None:
        self.experiment, self.folder, self.device, self.total = experiment, folder, device, total or experiment.total
        self.warn = journal.say
        self.writer = checkpoint.Writer()
        self.nets = build_networks(experiment, device)
        self.engines = engines_of(self.nets)
        self.images = self.saved = self._resume(journal.say)
        self.stream = experiment.stream(dist.rank(), dist.world(), self.warn, device)
        self.recorder = Recorder(device, journal, self.stream.holes)
        self.say = self.recorder.say
        self.validation = Validation(experiment, experiment.val, self.warn) if experiment.val else None
        self.best = checkpoint.read_best(folder) if dist.main() else {}

    def go(self, wish: Callable[[], int] = lambda: 0) -> int:
        """Train to the end of the stage, or until any rank has a `wish` to stop.

        Returns:
            The wish that all ranks stopped for, after a checkpoint; 0 at the end of the stage.

        Raises:
            NonFiniteError: a loss was not finite; the last checkpoint stays.
        """
        experiment, every, batch = self.experiment, self.experiment.config.every, self.experiment.config.data.batch
        total = self.images + -(-(experiment.total - self.images) // batch) * batch  # whole steps from wherever it is
        whole = max(total, self.total)
        self.recorder.open(self.folder, self.images, whole)
        if dist.main():
            status.write(self.folder, "running", images=self.images, total=whole, began=time.time())
        vote, asked = dist.Vote(), [0]

        def stop() -> bool:
            asked[0] = vote(wish())
            return asked[0] > 0

        seen = train(
            experiment.task,
            self.nets,
            transferred(self.stream.batches(self.images, total), self.device),
            total=total,
            images=self.images,
            batch=batch,
            micro=experiment.micro,
            view=experiment.view,
            rate=experiment.rate,
            averaged=self.averages.update,
            log=self._record,
            log_every=every.log,
            chores=self._chores(),
            stop=stop,
        )
        vote.answer()
        self.images = seen
        if seen < total:
            self.save(seen)
        self.writer.finish()
        if dist.main() and (seen >= whole or seen < total):
            status.write(self.folder, "finished" if seen >= whole else "stopped", images=seen)
        self.recorder.close()
        dist.barrier()  # nobody leaves before everything is written
        return asked[0] if seen < total else 0

    def _chores(self) -> list[Chore]:
        every = self.experiment.config.every
        chores = [Chore(every.save, self.save)]
        if self.validation:
            shown = [Chore(every.pictures, self.pictures), Chore(every.validate, self.validate)]
            chores = shown + chores
        return chores

    def _record(self, images: int, figures: dict[str, float]) -> None:
        self.writer.check()
        self.recorder(images, figures)

    def generators(self) -> dict[str, Generator]:
        """The task's generators as they would be stored now: averaged where there is an average, in the configured
        inference mode."""
        found: dict[str, Generator] = {}
        for name, kept in self.experiment.task.generators().items():
            net = self.averages.network(kept.network)
            if kept.encoder:
                net = nn.ModuleDict({"G": net, "E": self.averages.network(kept.encoder)})
            spec, inference = self.experiment.generators[name], self.experiment.config.inference
            found[name] = Generator(net, spec, inference)
            if inference.statistics == "running":
                found[name].calibrate(self._calibration(name))
        return found

    def _calibration(self, name: str) -> Iterator[Mapping[str, Any]]:
        """Training images in parts, the same on every rank, so that all have the same running averages."""
        batch = self.experiment.config.data.batch
        steps = self.experiment.stream(0, 1, self.warn).batches(0, -(-CALIBRATION_IMAGES // batch) * batch)
        for part in (part for step in steps for part in split(step, self.experiment.micro or batch)):
            yield self.experiment.facing(name, part)

    def save(self, images: int) -> None:
        """Store a checkpoint after `images` images, unless there is one, or nothing was seen.

        Raises:
            NonFiniteError: a weight is no longer finite, though every loss so far was; the same on every rank.
        """
        if images in (0, self.saved):
            return
        for name, engine in self.engines.items():
            if not all(bool(p.isfinite().all()) for p in engine.net.parameters()):
                raise NonFiniteError(f"step before image {images}: the weights of {name} are no longer finite")
        generators = self.generators()
        tensors = {name: engine.state() for name, engine in self.engines.items()}  # of all ranks, where it is sharded
        tensors |= self.averages.state()
        if remembered := self._remembered():
            tensors[TASK] = remembered
        if dist.main():
            copies = {name: checkpoint.copied(state) for name, state in tensors.items()}
            self.writer.start(partial(self._write, images, copies, self._files(generators)))
        self.saved = images

    def _files(self, generators: dict[str, Generator]) -> dict[str, bytes]:
        """What is needed to use the generators, by name of the file."""
        names = self.experiment.generator_files
        settings = {"config.yaml": conf.dump(self.experiment.given).encode()}
        return settings | {names[name]: generator.to_bytes() for name, generator in generators.items()}

    def _write(self, images: int, tensors: dict[str, dict[str, Tensor]], files: dict[str, bytes]) -> None:
        versions = {"p2p": __version__, "torch": torch.__version__}
        path = checkpoint.save(self.folder, images, tensors, {**versions, **self.experiment.held}, files)
        checkpoint.keep(self.folder, self.experiment.config.every.keep)
        self.say(f"saved {path}")

    def validate(self, images: int) -> None:
        """Measure the generators on the validation pairs, and keep them where they are the best so far."""
        assert self.validation
        generators = self.generators()
        figures = self.validation.figures(generators, images)
        if figures:
            self._record(images, figures)
        best = self.experiment.best
        if dist.main() and images and best:
            now = {"images": images, "stage": self.experiment.stage, "metric": best, "value": figures[f"val/{best}"]}
            if checkpoint.is_better(self.best, now, self.experiment.metrics[best].better):
                self.best = now
                self.writer.start(partial(checkpoint.save_best, self.folder, now, self._files(generators)))

    def pictures(self, images: int) -> None:
        """Show the first validation pairs, and what the generators make of them."""
        assert self.validation
        generators = self.generators()
        if self.recorder.log:
            for name, generator in generators.items():
                self.recorder.log.picture(images, *self.validation.grid(name, generator))

    def _resume(self, say: Callable[[str], None]) -> int:
        """Take over the newest checkpoint, or that of the stage before, or what `init_from` names; returns the images
        seen."""
        found = beginning(self.experiment, self.folder)
        if found is None:
            self.averages = Averages(self.experiment, self.engines)
            self._load_task(self.folder, {})
            return 0
        path, state = found
        ours = path.parents[1].resolve() == self.folder.resolve()
        same = ours and state.get("stage", 0) == self.experiment.stage
        for name, engine in self.engines.items():
            if f"{name}.safetensors" not in state["files"] and not ours:
                say(f"{path} has no {name}; its weights are new")
                continue
            tensors = checkpoint.read_tensors(path, name, state)
            try:
                engine.load(tensors if same else grown(engine.net, engine.state(), tensors))
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
        self.averages = Averages(self.experiment, self.engines)
        if ours:
            self.averages.load(path, state)
        stored = checkpoint.read_tensors(path, TASK, state) if same and f"{TASK}.safetensors" in state["files"] else {}
        self._load_task(path, stored, known=same)
        return int(state["images"]) if ours else 0

    def _load_task(self, path: Path, stored: dict[str, Tensor], *, known: bool = False) -> None:
        """Have the task remember what it did, or begin; `known`: what it remembers is all in `stored`.

        Raises:
            ValueError: it does not fit; names the checkpoint.
        """
        task, name = self.experiment.task, self.experiment.config.task.name
        try:
            task.load({})
            if known and (missing := sorted(task.state().keys() - stored.keys())):
                raise ValueError(f"{', '.join(missing)} is missing there")
            if stored:
                task.load({key: tensor.to(self.device) for key, tensor in stored.items()})
        except Exception as error:  # somebody's own code may raise anything
            said = str(error).partition("\n")[0] or type(error).__name__
            raise ValueError(
                f"{path}: what task {name} remembers does not fit ({said}); give another --run folder, with init_from"
                " to begin with these weights"
            ) from error

    def _remembered(self) -> dict[str, Tensor]:
        """What the task remembers.

        Raises:
            ValueError: it is not made of tensors by name.
        """
        found = self.experiment.task.state()
        for key, value in found.items():
            if not isinstance(value, Tensor):
                name = self.experiment.config.task.name
                raise ValueError(f"task.name: {name} remembers {key}, {type(value).__name__}; state() is of tensors")
        return found
