"""The contract of a shard set: file names, members, index. Written by `shards`, read by `p2p.data`.

A shard set is a folder:

    index.json            what the set holds; the counts and checksums here decide, not the tar's own end marker
    shard-000000.tar      WebDataset form: the members KEY.EXT of one sample stand side by side
    shard-000000.npy      one row a sample: where its bytes lie in the tar, and their CRC-32

A sample is the run of tar bytes from its first header to the padding after its last member, so the CRC
covers headers too. Its members are either one encoded picture with both sides (`KEY.ab.jpg`) or one for each
side (`KEY.a.jpg`, `KEY.b.png`), and `KEY.json` with the name of the source file.

A set of `classes` has label maps for x: `KEY.a.png` is 8-bit gray, each pixel the number of its class. A set with
`instances` has `KEY.inst.png` beside, gray of 8 or 16 bits, or `KEY.inst.tif` of 32: each pixel the number of its
instance, of which only equality means something.
"""

import json
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

FORMAT = "p2p-shards"
VERSION = 1
INDEX = "index.json"
HEADER_BYTES = 512
CLASSES = 256
"""Of a label map at most: its numbers are bytes."""

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
    classes: int = 0
    """x is a label map with the numbers 0 to classes - 1; 0: x is a picture."""
    instances: bool = False
    """There is an instance map beside each pair."""

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
        if (raw.pop("format"), raw.pop("version")) != (FORMAT, VERSION):
            raise ValueError(f"it is not {FORMAT} of version {VERSION}")
        samples = raw.pop("samples")
        index = TypeAdapter(Index).validate_json(json.dumps(raw), strict=True)
        _check_index(index, samples)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: not a usable index ({_reason(error)}); pack the set again") from error
    return index


def _check_index(index: Index, samples: Any) -> None:
    names = [shard.name for shard in index.shards]
    if strange := [name for name in names if Path(name).name != name]:
        raise ValueError(f"names {strange[0]!r}, which is no file of this folder")
    if len(set(names)) < len(names):
        raise ValueError("names a shard twice")
    if not {1, 3}.issuperset(index.channels):
        raise ValueError(f"says {index.channels} channels; a side has 1 or 3")
    if not 0 <= index.classes <= CLASSES or (index.classes and (index.layout, index.channels[0]) != ("two", 1)):
        raise ValueError(
            f"says {index.classes} classes of a {index.layout} layout; label maps are members of their own"
        )
    if index.instances and index.layout != "two":
        raise ValueError(f"says instances of a {index.layout} layout; they go with members of their own")
    if index.samples != samples or min((shard.samples for shard in index.shards), default=0) < 1:
        raise ValueError(f"says {samples} samples, its shards hold {index.samples}")


def _reason(error: Exception) -> str:
    """What an exception says, in one line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
    return f"lacks {error}" if isinstance(error, KeyError) else (str(error).splitlines() or ["?"])[0]


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
        ValueError: the file is missing, is not of `ROW`, or its samples do not stand side by side in the shard.
    """
    path = Path(folder) / rows_name(shard.name)
    try:
        rows: np.ndarray = np.load(path, allow_pickle=False)
        fits = rows.dtype == ROW and rows.shape == (shard.samples,)
    except Exception as error:  # numpy raises whatever a damaged header makes it raise
        raise ValueError(f"{path}: cannot be read ({_reason(error)}); pack the set again") from error
    if not fits:
        raise ValueError(f"{path}: does not hold the {shard.samples} rows that {INDEX} says; pack the set again")
    ends = np.cumsum(rows["size"], dtype=np.uint64)
    if not np.array_equal(rows["offset"], ends - rows["size"]) or ends[-1] > shard.bytes:
        raise ValueError(f"{path}: its rows do not follow each other inside {shard.name}; pack the set again")
    return rows


def split_members(data: bytes) -> dict[str, bytes]:
    """Take the tar bytes of one sample apart: `{"__key__": b"0001", "ab.jpg": ..., "json": ...}`.

    Only plain files with a ustar header are in our samples, so no name can lead out of any folder: names are
    returned, never opened.

    Raises:
        ValueError: a header has no size, or one that leads out of the sample.
    """
    members: dict[str, bytes] = {}
    at = 0
    while at + HEADER_BYTES <= len(data):
        header = data[at : at + HEADER_BYTES]
        name = _field(header, 345, 155) + (b"/" if header[345] else b"") + _field(header, 0, 100)
        size = int(_field(header, 124, 12).strip() or b"0", 8)
        left = len(data) - at - HEADER_BYTES
        if not 0 <= size <= left:
            raise ValueError(f"a tar header says {size} bytes, {left} are left of the sample")
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
