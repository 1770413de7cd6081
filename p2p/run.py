"""A run in its folder: what is stored, shown and measured on the way, and how it goes on."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.utils import make_grid

from p2p import __version__, checkpoint, dist, evaluate, status
from p2p import config as conf
from p2p.data.augment import sides
from p2p.data.transfer import transferred
from p2p.data.views import painted, rgb, to_uint8
from p2p.generator import FILE, Generator
from p2p.log import Journal, Log, NonFiniteError
from p2p.loop import Chore, split, train
from p2p.plan import Plan
from p2p.resume import beginning
from p2p.stages import grown
from p2p.watch import Watch

PICTURES = 8
"""Validation pairs in the picture grid, and on a rank at once, at most."""
PIXELS = 2**21
"""Of all of them together, unless one has more."""
CALIBRATION_IMAGES = 256
"""Training images whose statistics become the running averages."""
CONSTANT_PAIRS = 256
"""Validation pairs that the best constant picture is made of, at most."""
CONSTANT_PIXELS = 2**26
"""Of all of them together, at most."""


class Run:
    """A stage of a planned experiment, in a folder, on this rank.

    Args:
        plan: the stage, see `Plan.at`.
        total: images of the whole experiment.
        folder: holds everything that the run writes; an earlier part of the run in it is gone on with.
        device: of this rank.
        journal: takes lines for the reader.

    Raises:
        ValueError: the folder holds another experiment, or a damaged checkpoint.
    """

    def __init__(self, plan: Plan, folder: Path, device: torch.device, journal: Journal, total: int = 0) -> None:
        self.plan, self.folder, self.device, self.total = plan, folder, device, total or plan.total
        self.say = journal.say if dist.main() else journal.note
        self.note, self.warn = journal.note, journal.say
        self.writer = checkpoint.Writer()
        self.watch = Watch(device, self.say)
        self.nets, self.fixed = plan.engines(device), plan.fixed(device)
        self.ema: AveragedModel | None = None
        self.images = self.saved = self._resume()
        self.stream = plan.stream(dist.rank(), dist.world(), self.warn, device)

    def go(self, wish: Callable[[], int] = lambda: 0) -> int:
        """Train to the end of the stage, or until any rank has a `wish` to stop.

        Returns:
            The wish that all ranks stopped for, after a checkpoint; 0 at the end of the stage.

        Raises:
            NonFiniteError: a loss was not finite; the last checkpoint stays.
        """
        plan, every, batch = self.plan, self.plan.config.every, self.plan.config.data.batch
        total = self.images + -(-(plan.total - self.images) // batch) * batch  # whole steps from wherever it goes on
        whole = max(total, self.total)
        log = Log(self.folder, self.images, whole, self.say) if dist.main() else None
        if log:
            status.write(self.folder, "running", images=self.images, total=whole, began=time.time())
        record = partial(self._record, log)
        chores = [Chore(every.save, self.save)]
        if plan.val:
            chores.insert(0, Chore(every.validate, partial(self.validate, record)))
            chores.insert(0, Chore(every.pictures, partial(self.pictures, log)))
        vote, asked = dist.Vote(), [0]

        def stop() -> bool:
            asked[0] = vote(wish())
            return asked[0] > 0

        seen = train(
            plan.task,
            self.nets,
            transferred(self.stream.batches(self.images, total), self.device),
            total=total,
            images=self.images,
            batch=batch,
            micro=plan.micro,
            view=plan.view,
            fixed=self.fixed,
            rate=plan.rate,
            averaged=self._average,
            log=record,
            log_every=every.log,
            chores=chores,
            stop=stop,
        )
        vote.answer()
        self.images = seen
        if seen < total:
            self.save(seen)
        self.writer.finish()
        if log:
            if seen >= whole or seen < total:
                status.write(self.folder, "finished" if seen >= whole else "stopped", images=seen)
            log.close()
        dist.barrier()  # nobody leaves before everything is written
        return asked[0] if seen < total else 0

    def generator(self) -> Generator:
        """G as it would be stored now: averaged where there is an average, in the configured inference mode."""
        net = self.ema.module if self.ema else self.nets["G"].net
        generator = Generator(net, self.plan.generator, self.plan.config.inference)
        if generator.inference.statistics == "running":
            batch = self.plan.config.data.batch
            # Every rank measures the same images, so all have the same averages.
            steps = self.plan.stream(0, 1, self.warn).batches(0, -(-CALIBRATION_IMAGES // batch) * batch)
            generator.calibrate(part for step in steps for part in split(step, self.plan.micro or batch))
        return generator

    def save(self, images: int) -> None:
        """Store a checkpoint after `images` images, unless there is one, or nothing was seen.

        Raises:
            NonFiniteError: a weight is no longer finite, though every loss so far was; the same on every rank.
        """
        if images in (0, self.saved):
            return
        for name, engine in self.nets.items():
            if not all(bool(p.isfinite().all()) for p in engine.net.parameters()):
                raise NonFiniteError(f"step before image {images}: the weights of {name} are no longer finite")
        generator = self.generator()
        tensors = {name: engine.state() for name, engine in self.nets.items()}  # of all ranks, where it is sharded
        if self.ema:
            tensors["ema"] = self.ema.state_dict()
        if dist.main():
            copies = {name: checkpoint.copied(state) for name, state in tensors.items()}
            files = {"config.yaml": conf.dump(self.plan.experiment).encode(), FILE: generator.to_bytes()}
            self.writer.start(partial(self._write, images, copies, files))
        self.saved = images

    def _write(self, images: int, tensors: dict[str, dict[str, Tensor]], files: dict[str, bytes]) -> None:
        versions = {"p2p": __version__, "torch": torch.__version__}
        path = checkpoint.save(self.folder, images, tensors, {**versions, **self.plan.held}, files)
        checkpoint.keep(self.folder, self.plan.config.every.keep)
        self.say(f"saved {path}")

    def validate(self, record: Callable[[int, dict[str, float]], None], images: int) -> None:
        """Measure the validation L1; the first time in a stage with what the best constant picture would have."""
        figures = {"val/L1": evaluate.l1(self.generator(), self._validation(dist.rank(), dist.world()))}
        if images == 0 or self._first(images):
            figures["val/L1 of the best constant"] = self.constant_l1()
        record(images, figures)

    def _first(self, images: int) -> bool:
        """Whether this validation is the first of a later stage, whose pictures are larger."""
        every, begin = self.plan.config.every.validate, self.plan.begin
        first = min((begin // every + 1) * every if every else self.plan.total, self.plan.total)
        return begin > 0 and images - self.plan.config.data.batch < first <= images

    def constant_l1(self) -> float:
        """See `p2p.evaluate.constant_l1`; of the first validation pairs."""
        limit = self._fitting(CONSTANT_PAIRS, CONSTANT_PIXELS)
        return evaluate.constant_l1(b["y"] for b in self._validation(0, 1, limit=limit))

    def _fitting(self, most: int, pixels: int) -> int:
        """How many pairs of this stage have so many pixels, at least 1."""
        h, w = sides(self.plan.config.data.crop)
        return max(1, min(most, pixels // (h * w)))

    def pictures(self, log: Log | None, images: int) -> None:
        """Show x, G(x) and y of the first validation pairs, a row each."""
        generator = self.generator()
        if log:
            batch = next(iter(self._validation(0, 1, limit=self._fitting(PICTURES, PIXELS))))
            fake = to_uint8(generator.of(batch)).cpu()
            x = painted(batch["x"]) if self.plan.view.classes else batch["x"]
            rows = [rgb(v[i]) for i in range(len(fake)) for v in (x, fake, batch["y"])]
            log.picture(images, "x, G(x), y", make_grid(rows, nrow=3, padding=2, pad_value=255))

    def _validation(self, rank: int, world: int, limit: int = 0) -> Any:
        assert self.plan.val is not None
        count = min(limit, sum(self.plan.val.counts)) or sum(self.plan.val.counts)
        at_once = self._fitting(PICTURES, PIXELS) * world
        return self.plan.validation(rank, world, min(count, at_once), self.warn).batches(0, count)

    def _record(self, log: Log | None, images: int, figures: dict[str, float]) -> None:
        """Write figures on the main rank, with the holes that any rank has met; too many end the run on all."""
        self.writer.check()
        found = dist.union(dict(self.stream.holes.found))
        ranks: dict[str, list[float]] = {}
        if "pace" in figures:
            self.note(f"images {images:,}  {figures['pace']:.3g} images/s by itself  wait {figures['wait']:.1%}")
            figures, ranks = self.watch(figures)
        if log:
            log.scalars(images, figures | ({"holes": len(found)} if found else {}), ranks)
        try:
            self.stream.holes.check(found)
        except ValueError as error:
            if dist.main():
                raise
            raise dist.ElsewhereError from error

    def _averaged(self) -> AveragedModel | None:
        """An exponential average of G's weights whose half-life is counted in images."""
        half_life, batch = self.plan.config.ema.half_life, self.plan.config.data.batch
        if not half_life:
            return None
        decay = 0.5 ** (batch / half_life)
        return AveragedModel(self.nets["G"].net, multi_avg_fn=get_ema_multi_avg_fn(decay))

    def _average(self) -> None:
        if self.ema:
            self.ema.update_parameters(self.nets["G"].net)

    def _resume(self) -> int:
        """Take over the newest checkpoint, or that of the stage before, or what `init_from` names; returns the images
        seen."""
        found = beginning(self.plan, self.folder)
        if found is None:
            self.ema = self._averaged()
            return 0
        path, state = found
        ours = path.parents[1].resolve() == self.folder.resolve()
        same = ours and state.get("stage", 0) == self.plan.stage
        for name, engine in self.nets.items():
            if f"{name}.safetensors" not in state["files"] and not ours:
                self.say(f"{path} has no {name}; its weights are new")
                continue
            tensors = checkpoint.read_tensors(path, name, state)
            try:
                engine.load(tensors if same else grown(engine.net, engine.state(), tensors))
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
        self.ema = self._averaged()
        if self.ema and ours and "ema.safetensors" in state["files"]:
            average = checkpoint.read_tensors(path, "ema", state)
            own = {name: tensor.shape for name, tensor in self.ema.state_dict().items()}
            if own == {name: tensor.shape for name, tensor in average.items()}:  # else a larger net's begins here
                self.ema.load_state_dict(average)
        return int(state["images"]) if ours else 0
