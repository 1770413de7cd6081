"""What lies in the source folders: the samples to check, and the files that cannot be one."""

import os
import stat
from pathlib import Path
from typing import NamedTuple

from p2p.data.encoded import EXTENSIONS, walk
from shards.writer import tar_header

SPLITS = ("train", "val", "test")
NOT_LISTED = ("Thumbs.db", "desktop.ini")


class File(NamedTuple):
    """A file as it was listed; `name` is relative to its folder."""

    name: str
    size: int
    mtime_ns: int


class Sample(NamedTuple):
    """Files that make one sample, under its key in the tar."""

    key: str
    files: tuple[File, ...]
    """One, or those of input and target."""


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
    if folders.isdisjoint(SPLITS) or any(_is_picture(entry.name) for entry in entries):
        return []
    if others := sorted(folders.difference(SPLITS)):
        raise ValueError(f"{root}: {others[0]} stands beside train, val, test; pack each by itself or move it")
    return [split for split in SPLITS if split in folders]


def list_samples(roots: tuple[Path, ...]) -> Listing:
    """All samples below the folders, in the order of their keys, and what cannot be one.

    Two folders are matched by key, that is by the relative path without extension.
    """
    listed = [_list_folder(root) for root in roots]
    sides = [files for files, _ in listed]
    bad = [one for _, unfit in listed for one in unfit]
    common = set.intersection(*(set(files) for files in sides))
    for files, other in zip(sides, ("target", "input"), strict=False):
        alone = [file.name for key, file in files.items() if key not in common]
        bad += [Bad(name, f"no partner in the {other} folder") for name in alone]
    samples = [Sample(key, tuple(files[key] for files in sides)) for key in sorted(common)]
    return Listing(samples, sorted(bad))


def _list_folder(root: Path) -> tuple[dict[str, File], list[Bad]]:
    found: dict[str, File] = {}
    bad = []
    for name in sorted(file.relative_to(root).as_posix() for file in walk(root) if file.name not in NOT_LISTED):
        try:
            key, file = _key(name), _file(root, name)
            if key in found:
                raise ValueError(f"same key {key} as {found[key].name}")
            found[key] = file
        except ValueError as error:
            bad.append(Bad(name, str(error)))
    return found, bad


def _is_picture(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def _key(name: str) -> str:
    if not _is_picture(name):
        raise ValueError(f"not a picture ({os.path.splitext(name)[1] or 'no extension'})")
    key = os.path.splitext(name)[0].replace(".", "_")  # readers cut a member's name at the first dot
    tar_header(f"{key}.ab.jpg", 0)
    return key


def _file(root: Path, name: str) -> File:
    try:
        status = os.stat(root / name)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    return File(name, status.st_size, status.st_mtime_ns)
