"""Figures of a run: gathered on the device, reduced over ranks when they are written, and watched."""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from p2p import dist

NEVER = 1 << 62


class NonFiniteError(RuntimeError):
    """A loss is no longer a finite number."""


class Meter:
    """Means of losses and figures since the last reading, without waiting for the device in between.

    Args:
        batch: global batch, images per step over all ranks.
        device: of the losses.
    """

    def __init__(self, batch: int, device: torch.device) -> None:
        self.batch, self.device = batch, device
        self.sums: dict[str, Tensor] = {}
        self.norms: dict[str, Tensor] = {}
        """Of the gradients of the last step, by network."""
        self.steps = 0
        self.watched: list[tuple[int, Sequence[str], dict[str, Tensor]]] = []

    def add(self, images: int, keys: Sequence[str], losses: Mapping[str, Tensor], report: Mapping[str, Tensor]) -> None:
        """Take in the figures of one turn of one micro-batch, whose samples are `keys`; each is a mean over them."""
        detached = {name: value.detach() for name, value in losses.items()}
        self.watched.append((images, keys, detached))
        for name, value in (detached | dict(report)).items():
            part = value.double() * (len(keys) / self.batch)
            self.sums[name] = self.sums[name] + part if name in self.sums else part

    def check(self) -> None:
        """Have all ranks agree that every loss so far was finite.

        Raises:
            NonFiniteError: on every rank; names the step, the losses and the samples of the ranks that saw it.
        """
        bad = next((entry for entry in self.watched if not _finite(entry[2])), None)
        first = dist.least(bad[0] if bad else NEVER, self.device)
        self.watched.clear()
        if first == NEVER:
            return
        if bad is None or bad[0] != first:
            raise NonFiniteError(f"step at image {first}: another rank has a loss that is not finite")
        values = ", ".join(f"{name} = {float(value)}" for name, value in bad[2].items())
        raise NonFiniteError(f"step {first // self.batch} at image {first}: {values}; samples {', '.join(bad[1])}")

    def read(self) -> dict[str, float]:
        """Means over all images since the last reading, over all ranks; then start anew."""
        if not self.sums:
            return {}
        values = dist.total(torch.stack(list(self.sums.values()))).tolist()
        means = {name: value / self.steps for name, value in zip(self.sums, values, strict=True)}
        norms = {f"{name}/gradient": float(norm) for name, norm in self.norms.items()}
        self.sums, self.norms, self.steps = {}, {}, 0
        return means | norms


def _finite(losses: Mapping[str, Tensor]) -> bool:
    return bool(torch.isfinite(torch.stack(list(losses.values())).sum()))


class Log:
    """Scalars and pictures of a run as JSON lines, TensorBoard, and one readable line an interval.

    Args:
        run: folder of the run; `scalars.jsonl` and `tensorboard/` go into it.
        images: where the run goes on; what was written beyond is cut away, it will be written again.
        total: images of the whole run.
        say: takes the readable line.
    """

    def __init__(self, run: Path, images: int, total: int, say: Callable[[str], None]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path, self.total, self.say = run / "scalars.jsonl", total, say
        run.mkdir(parents=True, exist_ok=True)
        cut_after(self.path, images)
        self.board = SummaryWriter(str(run / "tensorboard"), purge_step=images + 1)
        self.began, self.first = time.monotonic(), images

    def scalars(self, images: int, values: Mapping[str, float], ranks: Mapping[str, Sequence[float]]) -> None:
        """Write figures that belong to the clock `images`; `ranks` has those of each rank."""
        with open(self.path, "a") as file:
            file.write(json.dumps({"images": images, "time": round(time.time(), 3), **values, **ranks}) + "\n")
        for name, value in values.items():
            self.board.add_scalar(name, value, images)
        for name, each in ranks.items():
            for rank, value in enumerate(each):
                self.board.add_scalar(f"{name}/{rank}", value, images)
        self.say(self.line(images, values))

    def line(self, images: int, values: Mapping[str, float]) -> str:
        """`images 1,200 of 8,000  G/l1 23.1  ...  left 0:12:05`."""
        done = images - self.first
        left = (time.monotonic() - self.began) / done * (self.total - images) if done else 0
        figures = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        return f"images {images:,} of {self.total:,}  {figures}" + (f"  left {clock(left)}" if left else "")

    def picture(self, images: int, name: str, grid: Tensor) -> None:
        """Show a uint8 `[C,H,W]` in TensorBoard."""
        self.board.add_image(name, grid, images)

    def close(self) -> None:
        self.board.close()


class Journal:
    """What a rank says: all of it, with the time, in RUN/logs/rank000.log; some of it to the reader too.

    Args:
        run: folder of the run.
        rank: of this process.
        show: takes a line for the reader.
    """

    def __init__(self, run: Path, rank: int, show: Callable[[str], None]) -> None:
        self.path, self.show = run / "logs" / f"rank{rank:03d}.log", show
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def note(self, text: str) -> None:
        """Write lines to the file only; a disk that is full of them is no reason to stop."""
        with suppress(OSError), open(self.path, "a") as file:
            file.write("".join(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n" for line in text.splitlines()))

    def say(self, text: str) -> None:
        """Write lines, and show them."""
        self.note(text)
        self.show(text)


def cut_after(path: Path, images: int) -> None:
    """Drop the JSON lines that lie beyond `images`, and a last line that was cut short by a kill."""
    if not path.is_file():
        return
    kept = [line for line in path.read_text(errors="replace").splitlines() if _images(line) <= images]
    aside = path.with_suffix(".tmp")
    aside.write_text("".join(line + "\n" for line in kept))
    os.replace(aside, path)


def _images(line: str) -> int:
    """The clock of a JSON line; beyond every run for what is none."""
    try:
        return int(json.loads(line)["images"])
    except (ValueError, KeyError, TypeError):
        return NEVER


def clock(seconds: float) -> str:
    """Seconds as 1:02:03."""
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"
