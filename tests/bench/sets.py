"""Sets of pairs to measure on: real or generated pictures, packed; and large sets that take no room."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from p2p.data import format as form
from p2p.data.rows import rows_name
from shards import pack

PAIRS, SHARDS = 1000, 4


def make_pairs(folder: Path) -> Path:
    """Pairs of neighbouring crops of a photograph, 512x256, JPEG of quality 90."""
    import skimage.data
    from PIL import Image

    photo = Image.fromarray(skimage.data.astronaut()).resize((1024, 1024))
    folder.mkdir()
    for i in range(PAIRS):
        top, left = i * 7 % 768, i * 13 % 512
        photo.crop((left, top, left + 512, top + 256)).save(folder / f"{i:04d}.jpg", quality=90)
    return folder


@contextmanager
def packed(pairs: Path | None) -> Iterator[tuple[Path, Path]]:
    """A folder of JPEG pairs, given (or its `train`) or made, and `SHARDS` shards of them."""
    with tempfile.TemporaryDirectory() as scratch:
        pairs = pairs or make_pairs(Path(scratch, "pairs"))
        pairs = pairs / "train" if (pairs / "train").is_dir() else pairs
        each = -(-sum(1 for _ in pairs.rglob("*.jpg")) // SHARDS)
        shards = Path(scratch, "shards")
        assert pack.main(["pairs", str(pairs), str(shards), "--input", "left", "--samples", str(each)]) == 0
        yield pairs, shards


def linked(few: Path, many: Path, samples: int) -> Path:
    """A set of at least that many samples: the shards of another again and again, as hard links; a real index."""
    index = form.read_index(few)
    many.mkdir()
    shards: list[form.ShardInfo] = []
    while sum(shard.samples for shard in shards) < samples:
        old = index.shards[len(shards) % len(index.shards)]
        shards.append(replace(old, name=f"shard-{len(shards):06d}.tar"))
        for name in (lambda shard: shard.name, lambda shard: rows_name(shard.name)):
            os.link(few / name(old), many / name(shards[-1]))
    (many / form.INDEX).write_text(replace(index, shards=tuple(shards)).dumps())
    return many
