"""Translate a stream of pictures: read ahead in threads, translated in batches, written in threads, in order."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, count, islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from p2p.data.encoded import EXTENSIONS
from p2p.data.reader import in_threads
from p2p.data.views import to_float, to_uint8
from p2p.generator import Generator
from p2p.pictures import Entry
from p2p.result import KINDS, write_png

THREADS = 2
WINDOW = 4
"""Batches in which pictures of one size are looked for. In memory are a few times as many: read, in work, written."""
SIZES_SHOWN = 6
PART_BYTES = 200
"""Longest part of a name; file systems allow 255 with what is put before and after it."""
ZERO_WIDTH_JOINER = "\u200d"
"""Unprintable, but part of some emoji and scripts."""

T = TypeVar("T")
Size = tuple[int, int]
"""Height and width, pixels."""


class Picture(NamedTuple):
    """Read, and given its name in the result."""

    source: str
    name: str
    x: Tensor
    y: Tensor | None


class Bad(NamedTuple):
    """What could not be read."""

    source: str
    reason: str


class Translated(NamedTuple):
    """A picture that went through G and is not written yet."""

    picture: Picture
    fake: Tensor
    """uint8 `[C,H,W]` on the CPU."""
    padded: Size
    l1: float | None


class Done(NamedTuple):
    """A picture whose translation is on the disk as `KIND/NAME.png`."""

    source: str
    name: str
    size: Size
    padded: Size
    """What G got; equal to `size` where nothing was padded."""
    l1: float | None
    """Mean |y - G(x)| in units of [0, 1]; None without a target."""


def translate(generator: Generator, entries: Iterable[Entry], folder: Path, *, batch: int) -> Iterator[Done | Bad]:
    """Translate `entries` into `folder/output`, with what G saw in `folder/input` and, where it is known, what it
    should have made in `folder/target`. One answer for each, in order.

    Up to `batch` pictures of one padded size share a forward. A picture does not depend on the others, and what is
    in memory not on their number.

    Raises:
        OSError: a file cannot be written.
    """
    window = WINDOW * batch
    read = in_threads(_attempt, THREADS, ahead=window)
    write = in_threads(partial(_store, folder), THREADS, ahead=window)
    named = _named(read(_chunks(entries, window)))
    return chain.from_iterable(write(_translated(generator, some, batch) for some in named))


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    remaining = iter(items)
    while some := list(islice(remaining, size)):
        yield some


def _attempt(entry: Entry) -> Picture | Bad:
    try:
        return Picture(entry.source, *entry.read())
    except ValueError as error:
        return Bad(entry.source, str(error))


def _named(windows: Iterable[list[Picture | Bad]]) -> Iterator[list[Picture | Bad]]:
    names = Names()
    for window in windows:
        yield [p if isinstance(p, Bad) else p._replace(name=names.take(p.name)) for p in window]


def _translated(generator: Generator, window: list[Picture | Bad], batch: int) -> list[Translated | Bad]:
    answers: dict[int, Translated | Bad] = {}
    groups: dict[Size, list[tuple[int, Picture]]] = defaultdict(list)
    for at, one in enumerate(window):
        if isinstance(one, Bad):
            answers[at] = one
        else:
            H, W = one.x.shape[1:]
            groups[generator.padded(H), generator.padded(W)].append((at, one))
    for padded, group in groups.items():
        for some in _chunks(group, batch):
            places, pictures = zip(*some, strict=True)
            answers.update(zip(places, _forward(generator, pictures, padded), strict=True))
    return [answers[at] for at in range(len(window))]


def _forward(generator: Generator, pictures: Sequence[Picture], padded: Size) -> Iterator[Translated]:
    fakes = generator(torch.stack([_pad(to_float(picture.x), padded) for picture in pictures]))
    for picture, fake in zip(pictures, fakes, strict=True):
        _, H, W = picture.x.shape
        fake = fake[:, :H, :W].clamp(-1, 1)
        yield Translated(picture, to_uint8(fake).cpu(), padded, _l1(fake, picture.y))


def _pad(x: Tensor, size: Size) -> Tensor:
    """As G itself pads, so that sizes which become equal can share a batch."""
    H, W = x.shape[1:]
    return F.pad(x, (0, size[1] - W, 0, size[0] - H), mode="replicate")


def _l1(fake: Tensor, y: Tensor | None) -> float | None:
    if y is None:
        return None
    return float((fake - to_float(y.to(fake.device))).abs().mean(dtype=torch.float64) / 2)


def _store(folder: Path, one: Translated | Bad) -> Done | Bad:
    if isinstance(one, Bad):
        return one
    source, name, x, y = one.picture
    for kind, values in zip(KINDS, (x, one.fake, y), strict=True):
        if values is not None:
            write_png(folder / kind / f"{name}.png", values)
    return Done(source, name, (x.shape[1], x.shape[2]), one.padded, one.l1)


def sizes(done: Sequence[Done]) -> str:
    """How many pictures of which size (width x height) were padded to what, the most frequent first."""
    found = Counter((one.size, one.padded) for one in done).most_common()
    parts = [_one_size(number, size, padded) for (size, padded), number in found[:SIZES_SHOWN]]
    if rest := found[SIZES_SHOWN:]:
        padded = sum(number for (size, padded), number in rest if size != padded)
        parts.append(f"{sum(number for _, number in rest)} of {len(rest)} other sizes, {padded} of them padded")
    return "; ".join(parts)


def _one_size(number: int, size: Size, padded: Size) -> str:
    pictures = f"{many(number)} of {size[1]}x{size[0]}"
    if size == padded:
        return f"{pictures} as {'it is' if number == 1 else 'they are'}"
    return f"{pictures} padded to {padded[1]}x{padded[0]} and cropped back"


def many(pictures: int) -> str:
    """A count in words."""
    return "1 picture" if pictures == 1 else f"{pictures} pictures"


class Names:
    """Gives every picture a name of its own, which as a path stays below any folder it is put in."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, name: str) -> str:
        """The picture's own name without its extension; with it, or with a number, where that one is taken."""
        full = safe(name)
        stem, extension = os.path.splitext(full)
        own = [stem, full] if extension.lower() in EXTENSIONS else [full]
        numbered = (f"{full}-{number}" for number in count(2))
        # casefold: apart on file systems that do not tell A from a, too
        free = next(one for one in chain(own, numbered) if one.casefold() not in self._taken)
        self._taken.add(free.casefold())
        return free


def safe(name: str) -> str:
    """A name as a relative path: no root, no `..`, no control characters, no part longer than a file system takes."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    *folders, last = map(_safe_part, parts or ["picture"])
    # A folder x.png would stand where the picture of the name x goes.
    return "/".join([*(f"{f}_" if f.lower().endswith(".png") else f for f in folders), last])


def _safe_part(part: str) -> str:
    plain = "".join(c if c.isprintable() or c == ZERO_WIDTH_JOINER else "_" for c in part)
    return plain.encode()[:PART_BYTES].decode(errors="ignore")
