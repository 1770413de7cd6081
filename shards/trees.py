"""Where source files lie: a folder, or the inside of an archive. Listed in one stream, read file by file."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

LARGEST = 2**28
"""Bytes of a file that is read; what is larger is no picture, but a mistake or an attack."""


class File(NamedTuple):
    """A file as it was listed; `name` is relative to its tree."""

    name: str
    size: int
    mtime_ns: int
    """In an archive, that of the archive."""
    place: Sequence[int] = ()
    """Where an archive holds it, as the archive's reader wants it."""


class Bad(NamedTuple):
    """A file that cannot be packed, and why."""

    name: str
    reason: str


class Reader(Protocol):
    """Reads files of a tree; it can be sent to another process."""

    def read(self, file: File) -> bytes:
        """The bytes of a file that must still be the one that was listed.

        Raises:
            ValueError: it has changed or vanished.
            OSError: it cannot be read.
        """


class Tree(Protocol):
    """A folder, wherever it is; `str()` names it to a person."""

    @property
    def reader(self) -> Reader:
        """Reads the files that are listed here."""

    def __truediv__(self, name: str) -> "Tree": ...

    def is_dir(self) -> bool:
        """Whether it is there."""

    def children(self) -> Iterator[tuple[str, bool]]:
        """Names of what is right here and not hidden, and whether each is a folder."""

    def files(self) -> Iterator[File | Bad]:
        """Every file below that is not hidden, in any order."""


@dataclass(frozen=True)
class Folder:
    """A folder of this machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> "Folder":
        return Folder(self.path / name)

    @property
    def reader(self) -> "Folder":
        """As `Tree.reader`."""
        return self

    def is_dir(self) -> bool:
        """As `Tree.is_dir`."""
        return self.path.is_dir()

    def children(self) -> Iterator[tuple[str, bool]]:
        """As `Tree.children`."""
        with os.scandir(self.path) as entries:
            yield from ((entry.name, entry.is_dir()) for entry in entries if entry.name[0] != ".")

    def files(self) -> Iterator[File | Bad]:
        """As `Tree.files`; links are followed, but not back to where they come from."""
        folders = [""]
        while folders:
            below = folders.pop()
            with os.scandir(self.path / below) as entries:
                for entry in entries:
                    if entry.name[0] == ".":
                        continue
                    if not entry.is_dir():
                        yield _listed(below + entry.name, entry)
                    elif not _leads_back(entry):
                        folders.append(f"{below}{entry.name}/")

    def read(self, file: File) -> bytes:
        """As `Reader.read`."""
        path = f"{self.path}/{file.name}"
        try:
            with open(path, "rb", buffering=0) as source:
                status = os.fstat(source.fileno())
                data = source.read(file.size + 1)
        except FileNotFoundError:
            raise ValueError(f"{path}: vanished while it was packed; restore it and try again") from None
        if (len(data), status.st_mtime_ns) != (file.size, file.mtime_ns):
            raise changed(path)
        return data


def changed(path: str) -> ValueError:
    """What to raise where a source is not the one that was listed."""
    return ValueError(f"{path}: changed while it was packed; delete the output and pack again")


def too_large(size: int) -> str:
    """The reason why a file of so many bytes is not read."""
    return f"has {size} bytes; a picture has {LARGEST} at most" if size > LARGEST else ""


def _listed(name: str, entry: os.DirEntry[str]) -> File | Bad:
    try:
        status = entry.stat()
    except OSError as error:
        return Bad(name, f"cannot be read ({error.strerror})")
    if not stat.S_ISREG(status.st_mode):
        return Bad(name, "not a regular file")
    if reason := too_large(status.st_size):
        return Bad(name, reason)
    return File(name, status.st_size, status.st_mtime_ns)


def _leads_back(entry: os.DirEntry[str]) -> bool:
    if not entry.is_symlink():
        return False
    return Path(entry.path).parent.resolve().is_relative_to(Path(entry.path).resolve())
