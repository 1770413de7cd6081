"""Where the figures of a run go: the log, with unreadable samples and slow ranks."""

from collections.abc import Callable
from pathlib import Path

import torch

from p2p import dist
from p2p.data.reader import Holes
from p2p.log import Journal, Log
from p2p.watch import Watch


class Recorder:
    """Takes figures on every rank; the main one writes them.

    Args:
        device: of this rank.
        journal: takes lines for the reader.
        holes: what this rank could not read.
    """

    def __init__(self, device: torch.device, journal: Journal, holes: Holes) -> None:
        self.holes, self.note = holes, journal.note
        self.say: Callable[[str], None] = journal.say if dist.main() else journal.note
        self.watch = Watch(device, self.say)
        self.log: Log | None = None

    def open(self, folder: Path, images: int, total: int) -> None:
        """Begin to write, where a run goes on after `images` of `total` images."""
        self.log = Log(folder, images, total, self.say) if dist.main() else None

    def close(self) -> None:
        """Everything is written."""
        if self.log:
            self.log.close()

    def __call__(self, images: int, figures: dict[str, float]) -> None:
        """Write figures on the main rank, with the holes that any rank has met.

        Raises:
            ValueError: there are too many, on the main rank.
            ElsewhereError: there are, on the others.
        """
        found = dist.union(dict(self.holes.found))
        ranks: dict[str, list[float]] = {}
        if "pace" in figures:
            self.note(f"images {images:,}  {figures['pace']:.3g} images/s by itself  wait {figures['wait']:.1%}")
            figures, ranks = self.watch(figures)
        if self.log:
            self.log.scalars(images, figures | ({"holes": len(found)} if found else {}), ranks)
        try:
            self.holes.check(found)
        except ValueError as error:
            if dist.main():
                raise
            raise dist.ElsewhereError from error
