"""Pictures through G: in batches of one padded size, or in tiles."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from p2p.data.views import to_uint8
from p2p.generator import Generator
from p2p.members import Members
from p2p.tiles import check, tiled

T = TypeVar("T")
Size = tuple[int, int]
"""Height and width, pixels."""
Tell = Callable[[str, Mapping[str, Tensor]], Tensor]
"""Key and members of a picture -> the features that G is told, `[1,F,H,W]`; where some were edited `[2,F,H,W]`, before
and after."""


class Picture(NamedTuple):
    """Read, and given its name in the result."""

    source: str
    name: str
    key: str
    members: Members

    @property
    def size(self) -> Size:
        H, W = self.members["x"].shape[1:]
        return H, W


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


@dataclass(frozen=True)
class How:
    """How pictures are made.

    Args:
        generator: see `p2p.load`.
        batch: pictures of one padded size that share a forward, at most.
        tell: for a generator with features.
        tile: height and width of the windows in which larger pictures are made one by one, so that memory does not
            grow with them; None: as a whole. Norms that measure the picture measure the window.

    Raises:
        ValueError: the generator cannot make windows of this size.
    """

    generator: Generator
    batch: int
    tell: Tell | None = None
    tile: Size | None = None

    def __post_init__(self) -> None:
        if self.tile:
            check(self.tile, self.overlap, self.multiple)
            least = max(2 * self.multiple, self.generator.least)
            if min(self.tile) < least:
                raise ValueError(f"tile: {min(self.tile)} pixels leave no room to overlap; use {least} or more")

    @property
    def multiple(self) -> int:
        """What sides must be multiples of."""
        return self.generator.multiple

    @property
    def overlap(self) -> int:
        """Pixels that neighbouring windows share, at least: a quarter where there is room."""
        return min(min(self.tile) // 4, min(self.tile) - self.multiple) if self.tile else 0

    def in_tiles(self, size: Size) -> bool:
        """Whether a picture of this size is made in several windows."""
        return self.tile is not None and any(side > most for side, most in zip(size, self.tile, strict=True))


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last shorter."""
    remaining = iter(items)
    while some := list(islice(remaining, size)):
        yield some


def made(how: How, window: list[Picture | Bad]) -> list[Translated | Bad]:
    """The pictures of a window through G, in their order."""
    answers: dict[int, Translated | Bad] = {}
    groups: dict[Size, list[tuple[int, Picture]]] = defaultdict(list)
    for at, one in enumerate(window):
        if isinstance(one, Bad):
            answers[at] = one
        elif how.in_tiles(one.size):
            answers[at] = _by_tiles(how, one)
        else:
            H, W = one.size
            groups[how.generator.padded(H), how.generator.padded(W)].append((at, one))
    for padded, group in groups.items():
        for some in chunks(group, how.batch):
            places, pictures = zip(*some, strict=True)
            answers.update(zip(places, _forward(how, pictures, padded), strict=True))
    return [answers[at] for at in range(len(window))]


def _forward(how: How, pictures: Sequence[Picture], padded: Size) -> Iterator[Translated]:
    x = torch.cat([_pad(_seen(how.generator, one, *map(_whole, one.size)), padded) for one in pictures])
    tell = how.tell
    told = [_pad(tell(one.key, one.members), padded) for one in pictures] if tell else []
    if any(len(features) == 2 for features in told):
        fakes = torch.cat([_told(how.generator, *one) for one in zip(x.split(1), told, strict=True)])
    else:
        fakes = how.generator(x, torch.cat(told) if told else None)
    fakes = how.generator.spec.view.decode(fakes, x.to(fakes.device))
    for picture, fake in zip(pictures, fakes, strict=True):
        H, W = picture.size
        yield _made(how.generator, picture, fake[:, :H, :W], padded)


def _told(generator: Generator, x: Tensor, features: Tensor | None) -> Tensor:
    """One picture, with features as `Tell` has them."""
    if features is None or len(features) == 1:
        return generator(x, features)
    return generator.changed(x, *features.split(1))


def _whole(side: int) -> slice:
    return slice(0, side)


def _by_tiles(how: How, picture: Picture) -> Translated:
    assert how.tile
    features = how.tell(picture.key, picture.members) if how.tell else None

    def make(rows: slice, columns: slice) -> Tensor:
        told = None if features is None else features[..., rows, columns]
        x = _seen(how.generator, picture, rows, columns)
        return how.generator.spec.view.decode(_told(how.generator, x, told), x)

    fake = tiled(make, picture.size, tile=how.tile, overlap=how.overlap, multiple=how.multiple)
    H, W = (min(most, how.generator.padded(side)) for most, side in zip(how.tile, picture.size, strict=True))
    return _made(how.generator, picture, fake[0], (H, W))


def _made(generator: Generator, picture: Picture, fake: Tensor, padded: Size) -> Translated:
    l1 = None
    if "y" in picture.members and generator.spec.paired:
        target = generator.spec.view.target({"y": picture.members["y"][None].to(fake.device)})[0]
        l1 = float((fake - target).abs().mean(dtype=torch.float64) / 2)
    return Translated(picture, to_uint8(fake).cpu(), padded, l1)


def _seen(generator: Generator, picture: Picture, rows: slice, columns: slice) -> Tensor:
    """A window of x as the view has it, float `[1,C,h,w]`. What the view sees around a place is that of the whole
    picture, before anything is padded."""
    view = generator.spec.view
    top, left = max(rows.start - view.margin, 0), max(columns.start - view.margin, 0)
    around = slice(top, rows.stop + view.margin), slice(left, columns.stop + view.margin)
    members = {name: member[:, *around] for name, member in picture.members.items() if name != "y"}
    seen: Tensor = view.encode({name: m[None].to(generator.device) for name, m in members.items()})["x"]
    return seen[..., rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]


def _pad(x: Tensor, size: Size) -> Tensor:
    """As G itself pads, so that sizes which become equal can share a batch."""
    H, W = x.shape[-2:]
    return F.pad(x, (0, size[1] - W, 0, size[0] - H), mode="replicate")
