"""Small shard sets of every form, what each position of them must deliver, and copies that may be damaged."""

import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from functools import cached_property
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from zlib import crc32

import numpy as np
from PIL import Image

from p2p.data.augment import Augment
from p2p.data.format import Index, ShardInfo, read_index
from p2p.data.rows import ROW, rows_name
from p2p.data.shardset import ShardSet
from shards.examine import Where, examine
from shards.writer import write_shard

COUNTS = 7, 24, 9, 9, 13
"""Samples in each shard of a set; every set has two shards of one size."""
PLACES = [(shard, sample) for shard, samples in enumerate(COUNTS) for sample in range(samples)]
SIDE, CROP, SEED = 16, 12, 3
NAMES = "halves", "sides", "strangers"
"""Both sides in one picture, each in its own, and tars as others write them."""

Place = tuple[int, int]
"""Shard and sample."""

augment = Augment(0, CROP, mirror=True, seed=SEED)


def picture(dice: np.random.Generator, width: int, form: str) -> bytes:
    """An encoded picture of noise; as PNG not compressed, so that all have one size."""
    file = BytesIO()
    image = Image.fromarray(dice.integers(0, 256, (SIDE, width, 3), dtype=np.uint8))
    image.save(file, form, compress_level=0, quality=90)
    return file.getvalue()


def members(name: str, dice: np.random.Generator) -> dict[str, bytes]:
    """One sample of a set."""
    if name == "halves":
        return {"ab.png": picture(dice, 2 * SIDE, "PNG"), "json": b'{"source": "a.png"}'}
    a, b = ("edges.png", "jpg") if name == "strangers" else ("a.png", "b.jpg")
    return {a: picture(dice, SIDE, "PNG"), b: picture(dice, SIDE, "JPEG")}


def write_set(folder: Path, name: str) -> None:
    """A set as `shards.pack` writes it, or strangers' tars, with folders and pax headers, as `shards.index` does."""
    folder.mkdir(parents=True)
    dice = np.random.default_rng(len(name))
    write = write_pax if name == "strangers" else write_shard
    shards = []
    for shard, samples in enumerate(COUNTS):
        content = [(f"{shard}{sample:03d}", members(name, dice)) for sample in range(samples)]
        shards.append(write(folder / f"shard-{shard:06d}.tar", content))
    layout = "left" if name == "halves" else "two"
    roles = {"a": "edges.png", "b": "jpg"} if name == "strangers" else {}
    index = Index(layout, 0, (3, 3), (SIDE, SIDE), (SIDE, SIDE), tuple(shards), members=roles)
    (folder / "index.json").write_text(index.dumps())


def write_pax(path: Path, content: list[tuple[str, dict[str, bytes]]]) -> ShardInfo:
    """A tar as others write it, and its rows."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        folder = tarfile.TarInfo("train")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        ends = []
        for key, files in content:
            for extension, data in files.items():
                info = tarfile.TarInfo(f"train/{key}.{extension}")
                info.size, info.mtime = len(data), 0.5  # a fraction needs a header more
                tar.addfile(info, BytesIO(data))
            ends.append(tar.offset)
    data, starts = path.read_bytes(), [0, *ends]
    rows = [(start, end - start, crc32(data[start:end])) for start, end in pairwise(starts)]
    np.save(path.with_suffix(".npy"), np.array(rows, ROW))
    return ShardInfo(path.name, len(rows), len(data), hashlib.sha256(data).hexdigest())


class Pristine:
    """A set as it was packed, and what each position must deliver."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = read_index(folder)
        self.tars = [(folder / shard.name).read_bytes() for shard in self.index.shards]
        self.rows = [np.load(folder / rows_name(shard.name)) for shard in self.index.shards]
        self._shards = ShardSet(str(folder))
        self._known: dict[tuple[Place, int], tuple[str, int]] = {}

    @cached_property
    def places(self) -> dict[str, Place]:
        """Where each key lies."""
        every = [(shard, i) for shard, samples in enumerate(self._shards.counts) for i in range(samples)]
        return {self._shards.read(*place)[0]: place for place in every}

    def expected(self, place: Place, position: int) -> tuple[str, int]:
        """Key and checksum of a sample at a position; of a sample that there is not, nothing that can come."""
        if place[1] >= len(self.rows[place[0]]):
            return "", -1
        if (place, position) not in self._known:
            key, pictures = self._shards.read(*place)
            self._known[place, position] = key, checksum(*augment(pictures, position).values())
        return self._known[place, position]


def checksum(*pictures) -> int:
    """Of pixels."""
    return crc32(b"".join(picture.numpy().tobytes() for picture in pictures))


class Copy:
    """A set that a trial may damage. A file is exchanged for another, as on a good disk; or changed in place."""

    in_place = False

    def __init__(self, pristine: Pristine, folder: Path) -> None:
        self.pristine, self.folder = pristine, Path(shutil.copytree(pristine.folder, folder))
        self.changed: set[str] = set()

    @property
    def shards(self) -> tuple[ShardInfo, ...]:
        return self.pristine.index.shards

    def read(self, name: str) -> bytes:
        """A file; nothing of one that is gone."""
        return (self.folder / name).read_bytes() if (self.folder / name).exists() else b""

    def write(self, name: str, data: bytes | bytearray) -> None:
        path = self.folder / name
        if self.in_place:
            with open(path, "r+b") as file:
                file.write(data)
                file.truncate()
        else:
            path.with_suffix(".new").write_bytes(data)
            os.replace(path.with_suffix(".new"), path)
        self.changed.add(name)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink()
        self.changed.add(name)

    def edit_index(self, change: Callable[[dict], None]) -> None:
        tree = json.loads(self.read("index.json"))
        change(tree)
        self.write("index.json", json.dumps(tree).encode())

    def list_anew(self, shard: int, rows: np.ndarray) -> None:
        """Have rows and index fit a tar that was changed."""
        name = self.shards[shard].name
        data, file = self.read(name), BytesIO()
        np.save(file, rows)
        self.write(rows_name(name), file.getvalue())
        new = {"samples": len(rows), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        self.edit_index(lambda tree: tree["shards"][shard].update(new) or tree.update(samples=total(tree)))

    def damaged(self) -> set[Place]:
        """The samples whose bytes, or rows, are not as packed; found without the code under test."""
        tree = json.loads(self.read("index.json"))
        return {(n, i) for n, listed in enumerate(tree["shards"]) for i in self._damaged(n, listed)}

    def _damaged(self, shard: int, listed: dict) -> Iterator[int]:
        good, was = self.pristine.rows[shard], self.pristine.tars[shard]
        rows, tar = self._rows(shard, listed), self.read(self.shards[shard].name)
        for i in range(listed["samples"]):
            if rows is None or rows[i] != good[i]:
                yield i
            else:
                start, end = int(good[i]["offset"]), int(good[i]["offset"]) + int(good[i]["size"])
                if tar[start:end] != was[start:end]:
                    yield i

    def _rows(self, shard: int, listed: dict) -> np.ndarray | None:
        """None where they cannot be used at all."""
        name, good = rows_name(self.shards[shard].name), self.pristine.rows[shard]
        was, data = (self.pristine.folder / name).read_bytes(), self.read(name)
        header = len(was) - good.nbytes
        if (len(data), data[:header], listed["samples"]) != (len(was), was[:header], len(good)):
            return None
        rows = np.frombuffer(data, ROW, offset=header)
        ends = np.cumsum(rows["size"], dtype=np.uint64)
        return rows if ends[-1] <= listed["bytes"] and np.array_equal(rows["offset"], ends - rows["size"]) else None

    def verified(self) -> list[str]:
        """What `shards.verify` finds in it."""
        try:
            index = read_index(self.folder)
        except ValueError as error:
            return [str(error)]
        where = Where(str(self.folder), str(self.folder), index, images=False)
        found = (examine(where, number, shard) for number, shard in enumerate(index.shards))
        return [finding.line() for one in found for finding in one.findings]


def total(tree: dict) -> int:
    """Samples of all shards of an index."""
    return sum(shard["samples"] for shard in tree["shards"])
