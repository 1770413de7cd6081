"""What lies in the source folders: the samples to check, and the files that cannot be one."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from p2p.data.encoded import EXTENSIONS, walk
from shards.writer import tar_header

SPLITS = ("train", "val", "test")
NOT_LISTED = ("Thumbs.db", "desktop.ini")


class Part(NamedTuple):
    """A folder of the source, and what a sample takes from it."""

    root: Path
    missing: str = ""
    """What is said of a sample that has no file here."""
    stem: str = "(.+)"
    """Pattern of a name without its extension; its group is the sample's key."""
    skip: str = "(?!)"
    """Pattern of whole names that belong to something else and are passed over."""
    member: str = "ab.jpg"
    """The longest member that a sample can have; a tar must have room for its name."""


class Source(NamedTuple):
    """Where the samples come from."""

    sets: dict[str, tuple[Part, ...]]
    """Folders by the set that they become below OUT; one without a name becomes OUT itself."""
    instances: bool = False
    notes: tuple[str, ...] = ()
    """What a person should know of what is left out, one line each."""


class File(NamedTuple):
    """A file as it was listed; `name` is relative to its folder."""

    name: str
    size: int
    mtime_ns: int


class Sample(NamedTuple):
    """Files that make one sample, under its key in the tar."""

    key: str
    files: tuple[File, ...]
    """One, or those of input and target, with the instance map between them."""


class Bad(NamedTuple):
    """A file that cannot be packed, and why."""

    name: str
    reason: str


class Listing(NamedTuple):
    """What lies in the source folders."""

    samples: list[Sample]
    bad: list[Bad]


def find_splits(roots: tuple[Path, ...]) -> list[str]:
    """Those of train, val and test that the folders are divided in; none if they hold pictures themselves.

    Raises:
        ValueError: there is no such folder, the division is not clear, or not the same on both sides.
    """
    found = [_splits_of(root) for root in roots]
    if found[0] != found[-1]:
        raise ValueError(f"{roots[0]} is divided in {found[0]}, {roots[-1]} in {found[-1]}; make them equal")
    return found[0]


def _splits_of(root: Path) -> list[str]:
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; give one that holds pictures")
    entries = [entry for entry in root.iterdir() if entry.name[0] != "." and entry.name not in NOT_LISTED]
    folders = {entry.name for entry in entries if entry.is_dir()}
    if folders.isdisjoint(SPLITS) or any(is_picture(entry.name) for entry in entries):
        return []
    if others := sorted(folders.difference(SPLITS)):
        raise ValueError(f"{root}: {others[0]} stands beside train, val, test; pack each by itself or move it")
    return [split for split in SPLITS if split in folders]


def list_samples(parts: tuple[Part, ...]) -> Listing:
    """All samples below the folders, in the order of their keys, and what cannot be one.

    Files of several folders are matched by key, that is by the relative path without extension.
    """
    listed = [_list_folder(part) for part in parts]
    sides = [files for files, _ in listed]
    samples, bad = [], [one for _, unfit in listed for one in unfit]
    for key in sorted(set().union(*sides)):
        files = tuple(side[key] for side in sides if key in side)
        if lacks := [part.missing for part, side in zip(parts, sides, strict=True) if key not in side]:
            bad.append(Bad(files[0].name, ", ".join(lacks)))
        else:
            samples.append(Sample(key, files))
    return Listing(samples, sorted(bad))


def _list_folder(part: Part) -> tuple[dict[str, File], list[Bad]]:
    found: dict[str, File] = {}
    bad = []
    for name in sorted(_names(part)):
        try:
            key, file = _key(part, name), _file(part.root, name)
            if key in found:
                raise ValueError(f"same key {key} as {found[key].name}")
            found[key] = file
        except ValueError as error:
            bad.append(Bad(name, str(error)))
    return found, bad


def _names(part: Part) -> Iterator[str]:
    for file in walk(part.root):
        if file.name not in NOT_LISTED and not re.fullmatch(part.skip, file.name, re.DOTALL):
            yield file.relative_to(part.root).as_posix()


def is_picture(name: str) -> bool:
    """Whether a file is taken for a picture, by its extension."""
    return name.lower().endswith(EXTENSIONS)


def _key(part: Part, name: str) -> str:
    if not is_picture(name):
        raise ValueError(f"not a picture ({os.path.splitext(name)[1] or 'no extension'})")
    if not (match := re.fullmatch(part.stem, os.path.splitext(name)[0], re.DOTALL)):
        raise ValueError("not a name that Cityscapes gives")
    key = match[1].replace(".", "_")  # readers cut a member's name at the first dot
    tar_header(f"{key}.{part.member}", 0)
    return key


def _file(root: Path, name: str) -> File:
    try:
        status = os.stat(root / name)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    return File(name, status.st_size, status.st_mtime_ns)
