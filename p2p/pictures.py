"""Pictures for a generator: files, folders and shard sets, one at a time, as uint8 input and target."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image, ImageOps
from torch import Tensor

from p2p.data.augment import Augment
from p2p.data.encoded import EXTENSIONS, decode, walk
from p2p.data.format import INDEX
from p2p.data.shardset import ShardSet
from p2p.data.views import pixels

Sides = tuple[Tensor, Tensor | None]
"""Input and, where it is known, target: uint8 `[C,H,W]` of one size."""


class Entry(NamedTuple):
    """A picture that can be read."""

    source: str
    """For the reader of an error; a shard's sample says more when it fails."""
    read: Callable[[], tuple[str, Tensor, Tensor | None]]
    """-> its name, a path with slashes that nobody has checked, and its sides.

    Raises:
        ValueError: it cannot be; says why.
    """


@dataclass(frozen=True)
class Reader:
    """How bytes become sides.

    Args:
        channels: of input and target, each 1 or 3; a file is brought to them, a shard set has them.
        pairs: which half of a file is the input; empty: the file is the input, and there is no target.
        size: side in pixels that the sides of a file are resized to; 0: as they are.
        shard_size: the same for those of a shard set.
        reverse: a shard set's y is the input.
    """

    channels: tuple[int, int]
    pairs: Literal["", "left", "right"] = ""
    size: int = 0
    shard_size: int = 0
    reverse: bool = False

    def file(self, path: Path, name: str) -> tuple[str, Tensor, Tensor | None]:
        """See `Entry.read`."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ValueError(f"cannot be read ({error.strerror})") from error
        return name, *resized(*self.sides(ImageOps.exif_transpose(decode(data))), self.size)

    def sample(self, shards: ShardSet, prefix: str, at: tuple[int, int]) -> tuple[str, Tensor, Tensor]:
        """See `Entry.read`; `at` is the shard and the number in it."""
        key, x, y = shards.read(*at)
        x, target = resized(x, y, self.shard_size)
        assert target is not None
        return prefix + key, x, target

    def sides(self, image: Image.Image) -> Sides:
        """Cut a decoded picture in two where it is a pair.

        Raises:
            ValueError: it has no two equal halves.
        """
        if not self.pairs:
            return pixels(image, self.channels[0]), None
        W, H = image.size
        if W % 2:
            raise ValueError(f"is {W} pixels wide, an odd number; --pairs needs two halves of one width")
        halves = image.crop((0, 0, W // 2, H)), image.crop((W // 2, 0, W, H))
        x, y = halves if self.pairs == "left" else halves[::-1]
        return pixels(x, self.channels[0]), pixels(y, self.channels[1])


def resized(x: Tensor, y: Tensor | None, size: int) -> Sides:
    """Resize both sides to `size` x `size` pixels as validation does; 0: leave them.

    Raises:
        ValueError: they differ in size.
    """
    if y is not None and x.shape[1:] != y.shape[1:]:
        raise ValueError(f"input and target are {measure(x)} and {measure(y)} pixels; they must be of one size")
    if not size:
        return x, y
    resize = Augment(size, size, mirror=False, train=False)
    x, target = resize(x, x[:0] if y is None else y, 0)
    return x, None if y is None else target


def measure(picture: Tensor) -> str:
    """Width x height of `[...,H,W]`, as picture viewers say it."""
    return f"{picture.shape[-1]}x{picture.shape[-2]}"


@dataclass(frozen=True)
class Source:
    """An input as the user gave it."""

    count: int
    entries: Iterator[Entry]
    passed_over: int = 0
    """Files of a folder that do not look like pictures."""
    shards: bool = False


def open_sources(inputs: Sequence[Path], reader: Reader) -> list[Source]:
    """Look at what was given; no picture is read. Names in folders are relative to these; where there are several
    folders, they begin with the folder's own name.

    Raises:
        ValueError: something is missing, empty or damaged, or a shard set does not have the reader's channels.
    """
    several = sum(path.is_dir() for path in inputs) > 1
    return [_open(path, reader, f"{path.resolve().name}/" if several else "") for path in inputs]


def _open(path: Path, reader: Reader, prefix: str) -> Source:
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; give pictures, folders of them, or shard sets")
    if not path.is_dir():
        return Source(1, iter([Entry(str(path), partial(reader.file, path, path.name))]))
    return (_shards if (path / INDEX).is_file() else _folder)(path, reader, prefix)


def _folder(path: Path, reader: Reader, prefix: str) -> Source:
    found = sorted(file for file in walk(path) if file.is_file())
    chosen = [file for file in found if file.suffix.lower() in EXTENSIONS]
    if not chosen:
        raise ValueError(f"{path}: no pictures here ({' '.join(EXTENSIONS)}); give another folder")
    named = ((file, prefix + file.relative_to(path).as_posix()) for file in chosen)
    entries = (Entry(str(file), partial(reader.file, file, name)) for file, name in named)
    return Source(len(chosen), entries, len(found) - len(chosen))


def _shards(path: Path, reader: Reader, prefix: str) -> Source:
    shards = ShardSet(str(path), reader.reverse)
    if shards.channels != reader.channels:
        raise ValueError(
            f"{path}: holds pairs of {_arrow(shards.channels)} channels, the generator makes "
            f"{_arrow(reader.channels)}; give the set that it was trained for, or --reverse"
        )
    places = ((s, n) for s, count in enumerate(shards.counts) for n in range(count))
    entries = (Entry(str(path), partial(reader.sample, shards, prefix, place)) for place in places)
    return Source(sum(shards.counts), entries, shards=True)


def _arrow(channels: tuple[int, int]) -> str:
    return f"{channels[0]} -> {channels[1]}"
