"""The contract of a shard set: file names, members, index. Written by `shards`, read by `p2p.data`.

A shard set is a folder:

    index.json            what the set holds; the counts and checksums here decide, not the tar's own end marker
    shard-000000.tar      WebDataset form: the members KEY.EXT of one sample stand side by side
    shard-000000.npy      one row a sample: where its bytes lie in the tar, and their CRC-32

A sample is the run of tar bytes from its first header to the padding after its last member, so the CRC
covers headers too. Its members are either one encoded picture with both sides (`KEY.ab.jpg`) or one for each
side (`KEY.a.jpg`, `KEY.b.png`), and `KEY.json` with the name of the source file.
"""

import json
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

FORMAT = "p2p-shards"
VERSION = 1
INDEX = "index.json"
HEADER_BYTES = 512

ROW = np.dtype([("offset", "<u8"), ("size", "<u4"), ("crc", "<u4")])
"""One sample in a shard's .npy: first byte, number of bytes, CRC-32 of them."""

Layout = Literal["left", "right", "two"]
"""Where the input x is: the left or the right half of `KEY.ab.*`, or `KEY.a.*` beside `KEY.b.*`."""


@dataclass(frozen=True)
class ShardInfo:
    """One shard as the index knows it."""

    name: str
    """File name of the tar; its rows are in the file of the same stem and `.npy`."""
    samples: int
    bytes: int
    sha256: str
    """Of the whole tar, in hexadecimal."""


@dataclass(frozen=True)
class Index:
    """What a shard set holds. Equal input gives an equal index: nothing in it depends on time or machine."""

    layout: Layout
    seed: int
    """Of the shuffle that put the samples in this order."""
    channels: tuple[int, int]
    """Channels of x and of y."""
    smallest: tuple[int, int]
    """Least height and least width of one side over all samples, pixels."""
    largest: tuple[int, int]
    shards: tuple[ShardInfo, ...] = field(default=())

    @property
    def samples(self) -> int:
        return sum(shard.samples for shard in self.shards)

    def dumps(self) -> str:
        return json.dumps({"format": FORMAT, "version": VERSION, "samples": self.samples, **asdict(self)}, indent=1)


def rows_name(shard: str) -> str:
    """Name of the row file that belongs to a tar: `shard-000000.tar` -> `shard-000000.npy`."""
    return Path(shard).with_suffix(".npy").name


def read_index(folder: str | Path) -> Index:
    """Read `folder/index.json`.

    Raises:
        ValueError: there is none, it is not ours, or it is damaged; the message names the file.
    """
    path = Path(folder) / INDEX
    if not path.is_file():
        raise ValueError(f"{folder}: no {INDEX} here; give a folder that `python -m shards.pack` has written")
    try:
        raw: dict[str, Any] = json.loads(path.read_text())
        if raw.get("format") != FORMAT or raw.get("version") != VERSION:
            raise ValueError(f"is {raw.get('format')} version {raw.get('version')}, not {FORMAT} version {VERSION}")
        index = Index(
            layout=raw["layout"], seed=raw["seed"], channels=tuple(raw["channels"]),
            smallest=tuple(raw["smallest"]), largest=tuple(raw["largest"]),
            shards=tuple(ShardInfo(**shard) for shard in raw["shards"]),
        )  # fmt: skip
        if strange := [shard.name for shard in index.shards if Path(shard.name).name != shard.name]:
            raise ValueError(f"names {strange[0]!r}, which is no file of this folder")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a usable index ({error}); pack the set again") from error
    if index.samples != raw["samples"] or not index.samples:
        raise ValueError(f"{path}: says {raw['samples']} samples, its shards hold {index.samples}; pack again")
    return index


def check_shards(folder: str | Path, index: Index) -> None:
    """Compare each shard's size, and its rows, with the index; no pixel is read.

    Raises:
        ValueError: a shard or its rows are missing, cut short, or do not fit the index.
    """
    for shard in index.shards:
        path = Path(folder) / shard.name
        if not path.is_file():
            raise ValueError(f"{path}: missing, but {INDEX} lists it; restore it or pack the set again")
        if (size := path.stat().st_size) != shard.bytes:
            raise ValueError(f"{path}: has {size} bytes, {INDEX} says {shard.bytes}; copy it again or pack again")
        read_rows(folder, shard)


def read_rows(folder: str | Path, shard: ShardInfo) -> np.ndarray:
    """The rows of one shard, `[samples]` of `ROW`, checked against the index.

    Raises:
        ValueError: the file is missing, is not of `ROW`, or does not fit the shard.
    """
    path = Path(folder) / rows_name(shard.name)
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); pack the set again") from error
    if rows.dtype != ROW or rows.shape != (shard.samples,):
        raise ValueError(
            f"{path}: holds {rows.shape} of {rows.dtype}, {INDEX} says {shard.samples} samples; pack again"
        )
    if shard.samples and int((rows["offset"] + rows["size"]).max()) > shard.bytes:
        raise ValueError(f"{path}: points past the end of {shard.name} ({shard.bytes} bytes); pack the set again")
    return rows


def split_members(data: bytes) -> dict[str, bytes]:
    """Take the tar bytes of one sample apart: `{"__key__": b"0001", "ab.jpg": ..., "json": ...}`.

    Only plain files with a ustar header are in our samples, so no name can lead out of any folder: names are
    returned, never opened.
    """
    members: dict[str, bytes] = {}
    at = 0
    while at + HEADER_BYTES <= len(data):
        header = data[at : at + HEADER_BYTES]
        name = _field(header, 345, 155) + (b"/" if header[345] else b"") + _field(header, 0, 100)
        size = int(_field(header, 124, 12).strip() or b"0", 8)
        folder, _, base = name.rpartition(b"/")
        stem, _, extension = base.partition(b".")
        members["__key__"] = folder + b"/" + stem if folder else stem
        members[extension.decode()] = data[at + HEADER_BYTES : at + HEADER_BYTES + size]
        at += HEADER_BYTES + -(-size // HEADER_BYTES) * HEADER_BYTES
    return members


def _field(header: bytes, start: int, length: int) -> bytes:
    return header[start : start + length].split(b"\0", 1)[0]


def crc(data: bytes) -> int:
    """CRC-32 as the rows hold it."""
    return zlib.crc32(data)
