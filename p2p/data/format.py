"""The contract of a shard set: file names, members, index. Written by `shards`, read by `p2p.data`.

A shard set is a folder:

    index.json            what the set holds; the counts and checksums here decide, not the tar's own end marker
    shard-000000.tar      WebDataset form: the members KEY.EXT of one sample stand side by side
    shard-000000.npy      one row a sample: where its bytes lie in the tar, and their CRC-32

    index-1.json          where shards were added later: all of them, the old ones first and as they were

A sample is the run of tar bytes from the end of the one before it to the padding after its last member, so the CRC
covers headers too. Its members are either one encoded picture with both sides (`KEY.ab.jpg`) or one for each
side (`KEY.a.jpg`, `KEY.b.png`), and `KEY.json` with the name of the source file.

A set of `classes` has label maps for x: `KEY.a.png` is 8-bit gray, each pixel the number of its class. A set with
`instances` has `KEY.inst.png` beside, gray of 8 or 16 bits, or `KEY.inst.tif` of 32: each pixel the number of its
instance, of which only equality means something.

A set of other people's tars has an index and rows of its own; `root` says where the tars lie, `members` what their
members are.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from p2p.data.stores import RefusedError, Store, is_remote, open_store

FORMAT = "p2p-shards"
VERSION = 1
INDEX = "index.json"
CLASSES = 256
"""Of a label map at most: its numbers are bytes."""

SCHEMES = ("https", "http", "s3", "gs", "gcs", "hf", "az", "abfs")
"""What an index may name; others may run what they are given."""

ROLES = frozenset(["a", "b", "ab", "inst"])
"""What a member can be: input, target, both side by side, instance map."""

Layout = Literal["left", "right", "two"]
"""Where the input x is: the left or the right half of `KEY.ab.*`, or `KEY.a.*` beside `KEY.b.*`."""


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """One shard as the index knows it."""

    name: str
    """Path of the tar below the root, with `/`; its rows are beside the index, under the same name with `.npy`."""
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
    root: str = ""
    """Folder or URL where the tars lie; empty: beside the index."""
    members: Mapping[str, str] = field(default_factory=dict)
    """Extension by role, as {"a": "edges.png", "b": "jpg"}, where the tars are not ours; the role `ab` holds both
    sides, `inst` the instance map. Empty: our own names, where the role is what stands before the first dot."""

    @property
    def samples(self) -> int:
        return sum(shard.samples for shard in self.shards)

    def dumps(self) -> str:
        return json.dumps({"format": FORMAT, "version": VERSION, "samples": self.samples, **asdict(self)}, indent=1)


@dataclass(frozen=True)
class _Head:
    """What an index says of itself."""

    format: str
    version: int
    samples: int


@dataclass(frozen=True, kw_only=True)
class _File(Index):
    """An index as it is written; a name that is not known may be a known one with a rotten letter."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    format: str
    version: int
    total: Annotated[int, Field(alias="samples")]


_HEAD, _FILE = TypeAdapter(_Head), TypeAdapter(_File)


def index_name(generation: int) -> str:
    """File name of the index after shards were added `generation` times."""
    return f"index-{generation}.json" if generation else INDEX


def generation_of(name: str) -> int | None:
    """The generation of an index by its file name; None of any other name."""
    match = re.fullmatch(r"index(?:-([1-9]\d*))?\.json", name)
    return int(match[1] or 0) if match else None


def read_index(at: str | Path | Store, generation: int | None = None) -> Index:
    """Read the index of a set: of a generation, or the newest.

    Raises:
        ValueError: there is none, it is not ours, or it is damaged; the message names the file.
        StoreError: the store does not answer.
    """
    store = open_store(at) if isinstance(at, str | Path) else at
    name = index_name(newest_generation(store) if generation is None else generation)
    try:
        text = store.read(name)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(
            f"{store.url}: no {name} here; give a folder that `python -m shards.pack` or `shards.index` has written"
        ) from error
    return parse_index(text, f"{store.url}/{name}")


def newest_generation(store: Store) -> int:
    """How many times shards were added to a set.

    Raises:
        ValueError: what is said to be a later index is none.
        StoreError: the store does not answer.
    """
    for generation in count(1):
        try:
            text = store.read(index_name(generation))
        except (FileNotFoundError, NotADirectoryError, RefusedError):  # buckets refuse what they do not have
            return generation - 1
        try:
            _HEAD.validate_json(text)
        except ValueError as error:  # of a server that answers everything with a page
            where, first = f"{store.url}/{index_name(generation)}", f"{store.url}/{INDEX}"
            raise ValueError(f"{where}: is no index; if there is none, name the first one: {first}") from error
    raise AssertionError("unreachable")


def parse_index(text: bytes, where: str) -> Index:
    """An index from its file's bytes.

    Raises:
        ValueError: it is not ours, or damaged; the message says `where`.
    """
    try:
        head = _HEAD.validate_json(text, strict=True)
        if (head.format, head.version) != (FORMAT, VERSION):
            raise ValueError(f"it is not {FORMAT} of version {VERSION}")
        file = _FILE.validate_json(text, strict=True)
        index = Index(**{one.name: getattr(file, one.name) for one in fields(Index)})
        _check_index(index, head.samples)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not a usable index ({_reason(error)}); pack the set again") from error
    return index


def _check_index(index: Index, samples: int) -> None:
    names = [shard.name for shard in index.shards]
    if strange := [name for name in names if not _inside(name)]:
        raise ValueError(f"names {strange[0]!r}, which is no file of this folder")
    if is_remote(index.root) and not any(index.root.startswith(f"{scheme}://") for scheme in SCHEMES):
        raise ValueError(f"has the root {index.root!r}; a file may name {', '.join(SCHEMES)}, or give it as `shards`")
    if not ROLES.issuperset(index.members):
        raise ValueError(f"has members for {sorted(index.members)}; the roles are {', '.join(sorted(ROLES))}")
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


def _inside(name: str) -> bool:
    """Whether a name leads to a file below its folder, wherever that is."""
    parts = PurePosixPath(name).parts
    return bool(name) and str(PurePosixPath(name)) == name and parts[0] != "/" and ".." not in parts


def _reason(error: Exception) -> str:
    """What an exception says, in one line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"].lower()]))
    return (str(error).splitlines() or ["?"])[0]
