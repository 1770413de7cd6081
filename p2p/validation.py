"""The validation pairs of a stage: what is measured on them, and what is shown of them."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torchvision.utils import make_grid

from p2p import dist
from p2p.data.augment import sides
from p2p.data.dataset import DataSet
from p2p.data.views import rgb, to_uint8
from p2p.evaluate import constant_l1, evaluate
from p2p.experiment import Experiment
from p2p.generator import Generator

PICTURES = 8
"""Validation pairs in the picture grid, and on a rank at once, at most."""
PIXELS = 2**21
"""Of all of them together, unless one has more."""
CONSTANT_PAIRS = 256
"""Validation pairs that the best constant picture is made of, at most."""
CONSTANT_PIXELS = 2**26
"""Of all of them together, at most."""


class Validation:
    """The validation pairs of a stage, on this rank.

    Args:
        experiment: the stage.
        val: its validation shards.
        warn: told of samples that cannot be read.
    """

    def __init__(self, experiment: Experiment, val: DataSet, warn: Callable[[str], None]) -> None:
        self.experiment, self.warn, self.count = experiment, warn, sum(val.counts)

    def figures(self, generators: Mapping[str, Generator], images: int) -> dict[str, float]:
        """Every metric of every generator as `val/METRIC`, of a second generator `val/NAME/METRIC`; the first time in a
        stage with the L1 that the best constant picture would have."""
        batches = self.batches(dist.rank(), dist.world())
        measured = evaluate(generators, batches, self.count, self.experiment.metrics, self.experiment.facing)
        found: dict[str, float] = {}
        for at, (name, figures) in enumerate(measured.items()):
            prefix = f"val/{name}/" if at else "val/"
            found |= {prefix + metric: value for metric, value in figures.items()}
        if "L1" in self.experiment.metrics and (images == 0 or self._first(images)):
            found["val/L1 of the best constant"] = self.constant_l1()
        return found

    def _first(self, images: int) -> bool:
        """Whether this validation is the first of a later stage, whose pictures are larger."""
        every, begin = self.experiment.config.every.validate, self.experiment.begin
        first = min((begin // every + 1) * every if every else self.experiment.total, self.experiment.total)
        return begin > 0 and images - self.experiment.config.data.batch < first <= images

    def constant_l1(self) -> float:
        """See `p2p.evaluate.constant_l1`; of the first validation pairs."""
        limit = self._fitting(CONSTANT_PAIRS, CONSTANT_PIXELS)
        view = self.experiment.view
        return constant_l1(to_uint8(view.target(batch)) for batch in self.batches(0, 1, limit=limit))

    def grid(self, name: str, generator: Generator) -> tuple[str, Tensor]:
        """What the columns are, and a row of each of the first pairs: x, G(x) and, where G should make it, y; uint8
        `[3,H,W]`."""
        first = next(iter(self.batches(0, 1, limit=self._fitting(PICTURES, PIXELS))))
        batch, view = self.experiment.facing(name, first), generator.spec.view
        columns = [view.shown(batch["x"]), to_uint8(generator.of(batch)).cpu()]
        if self.experiment.task.paired:
            columns.append(to_uint8(view.target(batch)))
        rows = [rgb(column[i]) for i in range(len(columns[0])) for column in columns]
        title = f"x, {name}(x), y" if self.experiment.task.paired else f"x, {name}(x)"
        return title, make_grid(rows, nrow=len(columns), padding=2, pad_value=255)

    def batches(self, rank: int, world: int, limit: int = 0) -> Any:
        """The pairs, or the first `limit` of them, as the reader gives them."""
        count = min(limit, self.count) or self.count
        at_once = self._fitting(PICTURES, PIXELS) * world
        return self.experiment.validation(rank, world, min(count, at_once), self.warn).batches(0, count)

    def _fitting(self, most: int, pixels: int) -> int:
        """How many pairs of this stage have so many pixels, at least 1."""
        h, w = sides(self.experiment.config.data.crop)
        return max(1, min(most, pixels // (h * w)))
