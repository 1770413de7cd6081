"""Translate a stream of pictures: read ahead in threads, translated in batches, written in threads, in order."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from p2p.data.reader import in_threads
from p2p.data.views import View, to_uint8
from p2p.made import Bad, How, Picture, Size, Translated, chunks, made
from p2p.names import Names
from p2p.pictures import Entry
from p2p.result import KINDS, write_png

THREADS = 2
WINDOW = 4
"""Batches in which pictures of one size are looked for. In memory are a few times as many: read, in work, written."""
SIZES_SHOWN = 6


class Done(NamedTuple):
    """A picture whose translation is on the disk as `KIND/NAME.png`."""

    source: str
    name: str
    size: Size
    padded: Size
    """What G got; equal to `size` where nothing was padded, less on a side that was cut in tiles."""
    l1: float | None
    """Mean |y - G(x)| in units of [0, 1]; None without a target."""


def translate(how: How, entries: Iterable[Entry], folder: Path) -> Iterator[Done | Bad]:
    """Translate `entries` into `folder/output`, with what G saw in `folder/input` (label maps in colours) and, where it
    is known, what it should have made in `folder/target`. One answer for each, in order.

    A picture does not depend on the others, and what is in memory not on their number.

    Raises:
        OSError: a file cannot be written.
    """
    window = WINDOW * how.batch
    read = in_threads(_attempt, THREADS, ahead=window)
    write = in_threads(partial(_store, folder, how.generator.spec.view), THREADS, ahead=window)
    named = _named(read(chunks(entries, window)))
    return chain.from_iterable(write(made(how, some) for some in named))


def _attempt(entry: Entry) -> Picture | Bad:
    try:
        return Picture(entry.source, *entry.read())
    except ValueError as error:
        return Bad(entry.source, str(error))


def _named(windows: Iterable[list[Picture | Bad]]) -> Iterator[list[Picture | Bad]]:
    names = Names()
    for window in windows:
        yield [p if isinstance(p, Bad) else p._replace(name=names.take(p.name)) for p in window]


def _store(folder: Path, view: View, one: Translated | Bad) -> Done | Bad:
    if isinstance(one, Bad):
        return one
    picture, x = one.picture, one.picture.members["x"]
    shown = view.shown(x[None])[0]
    y = picture.members.get("y")
    target = None if y is None else to_uint8(view.target({"y": y[None]}))[0]
    for kind, values in zip(KINDS, (shown, one.fake, target), strict=True):
        if values is not None:
            write_png(folder / kind / f"{picture.name}.png", values)
    return Done(picture.source, picture.name, picture.size, one.padded, one.l1)


def sizes(done: Sequence[Done]) -> str:
    """How many pictures of which size (width x height) were padded to what, the most frequent first."""
    found = Counter((one.size, one.padded) for one in done).most_common()
    parts = [_one_size(number, size, padded) for (size, padded), number in found[:SIZES_SHOWN]]
    if rest := found[SIZES_SHOWN:]:
        padded = sum(number for (size, padded), number in rest if padded[0] > size[0] or padded[1] > size[1])
        parts.append(f"{sum(number for _, number in rest)} of {len(rest)} other sizes, {padded} of them padded")
    return "; ".join(parts)


def _one_size(number: int, size: Size, padded: Size) -> str:
    pictures = f"{many(number)} of {size[1]}x{size[0]}"
    if size == padded:
        return f"{pictures} as {'it is' if number == 1 else 'they are'}"
    if padded[0] < size[0] or padded[1] < size[1]:
        return f"{pictures} in tiles of up to {padded[1]}x{padded[0]}"
    return f"{pictures} padded to {padded[1]}x{padded[0]} and cropped back"


def many(pictures: int) -> str:
    """A count in words."""
    return "1 picture" if pictures == 1 else f"{pictures} pictures"
