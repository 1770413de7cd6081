"""What lies in the source folders: the files of each side under their keys, and those that cannot be packed."""

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from p2p.data.encoded import EXTENSIONS
from shards.trees import Bad, File, Tree
from shards.writer import tar_header

SPLITS = ("train", "val", "test")
NOT_LISTED = ("Thumbs.db", "desktop.ini")


class Part(NamedTuple):
    """A folder of the source, and what a sample takes from it."""

    root: Tree
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


class Sample(NamedTuple):
    """Files that make one sample, under its key in the tar."""

    key: str
    files: tuple[File, ...]
    """One, or those of input and target, with the instance map between them."""


def find_splits(roots: tuple[Tree, ...]) -> list[str]:
    """Those of train, val and test that the folders are divided in; none if they hold pictures themselves.

    Raises:
        ValueError: there is no such folder, the division is not clear, or not the same on both sides.
    """
    found = [_splits_of(root) for root in roots]
    if found[0] != found[-1]:
        raise ValueError(f"{roots[0]} is divided in {found[0]}, {roots[-1]} in {found[-1]}; make them equal")
    return found[0]


def _splits_of(root: Tree) -> list[str]:
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; give one that holds pictures, or an archive of them")
    folders = set()
    for name, is_folder in root.children():
        if is_folder:
            folders.add(name)
        elif is_picture(name):
            return []
    if folders.isdisjoint(SPLITS):
        return []
    if others := sorted(folders.difference(SPLITS)):
        raise ValueError(f"{root}: {others[0]} stands beside train, val, test; pack each by itself or move it")
    return [split for split in SPLITS if split in folders]


def list_part(part: Part) -> Iterator[tuple[str, File] | Bad]:
    """Each file of a part and its key, that is its relative path without extension; or why it has none."""
    skip, stem = re.compile(part.skip, re.DOTALL), re.compile(part.stem, re.DOTALL)
    for file in part.root.files():
        base = file.name.rpartition("/")[2]
        if base in NOT_LISTED or skip.fullmatch(base):
            continue
        if isinstance(file, Bad):
            yield file
            continue
        try:
            key = _key(stem, file.name)
            tar_header(f"{key}.{part.member}", 0)
            yield key, file
        except ValueError as error:
            yield Bad(file.name, str(error))


def is_picture(name: str) -> bool:
    """Whether a file is taken for a picture, by its extension."""
    return name.lower().endswith(EXTENSIONS)


def _key(stem: re.Pattern[str], name: str) -> str:
    before, extension = os.path.splitext(name)
    if not is_picture(name):
        raise ValueError(f"not a picture ({extension or 'no extension'})")
    if not (match := stem.fullmatch(before)):
        raise ValueError("not a name that Cityscapes gives")
    return match[1].replace(".", "_")  # readers cut a member's name at the first dot
