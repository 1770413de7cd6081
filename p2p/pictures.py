"""Pictures for a generator: files, folders and shard sets, one at a time, with what belongs to each by name."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from p2p.data.dataset import DataSet
from p2p.data.encoded import EXTENSIONS, walk
from p2p.data.format import INDEX
from p2p.data.shardset import ShardSet
from p2p.members import CALLED, Beside, Reader, Sample, wants_instances
from p2p.spec import Spec

CITYSCAPES = re.compile(r"_(?:gt(?:Fine|Coarse)_(label(?:Train)?Ids|instance(?:Train)?Ids|color)|(leftImg8bit))\Z")
"""What Cityscapes puts behind the name of a scene."""
PHOTOS = frozenset(["color", "leftImg8bit"])
KINDS = {"labels": frozenset(["labelIds"]), "instances": frozenset(["instanceIds"]), "y": PHOTOS}
"""Cityscapes' files that are taken from a folder of these; a folder of pictures is taken whole."""


class Entry(NamedTuple):
    """A picture that can be read."""

    source: str
    """For the reader of an error; a shard's sample says more when it fails."""
    read: Callable[[], Sample]
    """Raises:
        ValueError: it cannot be; says why.
    """


@dataclass(frozen=True)
class Source:
    """An input as the user gave it."""

    count: int
    entries: Iterator[Entry]
    passed_over: int = 0
    """Files of a folder that by their names are something else."""
    shards: bool = False
    files: Sequence[tuple[Path, str]] = ()
    """With the key of each."""


def open_sources(inputs: Sequence[Path], reader: Reader) -> list[Source]:
    """Look at what was given; no picture is read. Names in folders are relative to these; where there are several
    folders, they begin with the folder's own name.

    Raises:
        ValueError: something is missing, empty or damaged, a shard set is not for this generator, or several inputs
            would get the same file from beside them.
    """
    several = sum(path.is_dir() for path in inputs) > 1
    sources = [_open(path, reader, f"{path.resolve().name}/" if several else "") for path in inputs]
    first: dict[str, Path] = {}
    for file, key in (one for source in sources for one in source.files if reader.beside):
        if first.setdefault(key, file) != file:
            what = " and ".join(CALLED[member] for member in reader.beside)
            raise ValueError(f"{first[key]} and {file}: only one can be the input of {what} {key}; leave one out")
    return sources


def _open(path: Path, reader: Reader, prefix: str) -> Source:
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; give pictures, folders of them, or shard sets")
    if not path.is_dir():
        return _files([path], path.parent, reader)
    return (_shards if (path / INDEX).is_file() else _folder)(path, reader, prefix)


def _folder(path: Path, reader: Reader, prefix: str) -> Source:
    labels = reader.spec.view.classes > 0
    chosen, others = _listed(path, "labels" if labels else "x")
    if not chosen:
        what = "label maps" if labels else "pictures"
        raise ValueError(f"{path}: no {what} here ({' '.join(EXTENSIONS)}); give another folder")
    return _files(chosen, path, reader, prefix, others)


def _files(files: Sequence[Path], folder: Path, reader: Reader, prefix: str = "", others: int = 0) -> Source:
    keyed = [(file, key_of(file.relative_to(folder))) for file in files]
    labels = reader.spec.view.classes > 0  # named as what is made of them, not as label maps
    named = ((f, key, key + f.suffix if labels else f.relative_to(folder).as_posix()) for f, key in keyed)
    entries = (Entry(str(file), partial(reader.file, file, prefix + name, key)) for file, key, name in named)
    return Source(len(files), entries, others, files=keyed)


def _listed(folder: Path, kind: str) -> tuple[list[Path], int]:
    """The pictures below a folder that can be of a kind, sorted, and how many other files there are."""
    found = sorted(file for file in walk(folder) if file.is_file())
    chosen = [file for file in found if file.suffix.lower() in EXTENSIONS and _can_be(file, kind)]
    return chosen, len(found) - len(chosen)


def _can_be(file: Path, kind: str) -> bool:
    match = CITYSCAPES.search(file.stem)
    return match is None or kind not in KINDS or (match[1] or match[2]) in KINDS[kind]


def key_of(path: Path) -> str:
    """What a file is called, below its folder: without its extension, and without what Cityscapes puts before that;
    with `_` for a dot, as in shard sets."""
    return CITYSCAPES.sub("", os.path.splitext(path.as_posix())[0]).replace(".", "_")


def beside(member: str, folder: Path) -> Beside:
    """The files of a folder that are `instances` or `y` of inputs.

    Raises:
        ValueError: there are none.
    """
    files = _listed(folder, member)[0] if folder.is_dir() else []
    if not files:
        raise ValueError(f"{folder}: no {CALLED[member]}s here; give the folder that holds one for each input")
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(key_of(file.relative_to(folder)), []).append(file)
    return Beside(folder, found)


def _shards(path: Path, reader: Reader, prefix: str) -> Source:
    shards = ShardSet(str(path), reader.reverse)
    check_shards(shards, reader.spec)
    places = ((s, n) for s, count in enumerate(shards.counts) for n in range(count))
    entries = (Entry(str(path), partial(reader.sample, shards, prefix, place)) for place in places)
    return Source(sum(shards.counts), entries, shards=True)


def check_shards(shards: DataSet, spec: Spec) -> None:
    """Raises:
    ValueError: a shard set does not hold what the generator was trained on.
    """
    classes, known = shards.index.classes, spec.view.classes
    if bool(classes) != bool(known):
        holds, wants = ("label maps" if one else "pictures" for one in (classes, known))
        raise ValueError(f"{shards.folder}: holds {holds}, the generator translates {wants}; give another set")
    if shards.channels != spec.pictures:
        raise ValueError(
            f"{shards.folder}: holds pairs of {_arrow(shards.channels)} channels, the generator makes "
            f"{_arrow(spec.pictures)}; give the set that it was trained for, or --reverse"
        )
    if classes > known:
        raise ValueError(f"{shards.folder}: holds {classes} classes, the generator knows {known}; give another set")
    if wants_instances(spec) and not shards.index.instances:
        raise ValueError(f"{shards.folder}: holds no instance maps, the generator needs them; pack it with them")


def _arrow(channels: tuple[int, int]) -> str:
    return f"{channels[0]} -> {channels[1]}"
