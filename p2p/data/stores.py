"""Where files lie: a folder, a web server, an object store, a command; each read whole, in parts, or in sequence."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

PIECE = 2**20
"""Bytes that are handed on at once where a file is read in sequence."""


class StoreError(OSError):
    """A store that does not answer, or refuses: `URL: reason`, in one line."""


class RefusedError(StoreError):
    """A store that answers, but not to us; some refuse what they do not have."""


class Store(Protocol):
    """Files under one root; names are relative, with `/`."""

    url: str

    @property
    def seekable(self) -> bool:
        """Whether parts of a file can be read; a web server is asked, once."""

    def read(self, name: str) -> bytes:
        """A whole small file.

        Raises:
            FileNotFoundError: there is none.
            StoreError: the store does not answer.
        """

    def part(self, name: str, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset` on.

        Raises:
            ValueError: the file ends before; FileNotFoundError, StoreError as `read`.
        """

    def chunks(self, name: str) -> Iterator[bytes]:
        """The whole file, piece by piece. A stream that breaks goes on where it broke.

        Raises:
            FileNotFoundError, StoreError: as `read`.
        """

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where the store cannot say.

        Raises:
            FileNotFoundError, StoreError: as `read`.
        """

    def put(self, name: str, path: Path) -> None:
        """Store a finished local file under a name.

        Raises:
            ValueError: this kind of store cannot be written; StoreError as `read`.
        """


STORES: dict[str, Callable[..., Store]] = {}
"""Further stores by scheme, before fsspec is asked: a class, called with the URL and with what takes lines for the
reader."""


def is_remote(url: str | Path) -> bool:
    """Whether this is a URL, or a `pipe:`, and no path."""
    return str(url).startswith("pipe:") or "://" in str(url)


def open_store(url: str | Path, report: Callable[[str], None] = lambda line: None) -> Store:
    """The store at a URL or folder; `report` is told of each retry in a line.

    Raises:
        ValueError: the URL is not usable, or a package that it needs is not installed.
    """
    if not is_remote(url):
        return Local(url)
    from p2p.data import pipe, remote, web  # late: they fulfil the contract that stands here

    scheme = str(url).partition(":")[0]
    known: dict[str, Callable[..., Store]] = {"pipe": pipe.Pipe, "http": web.Http, "https": web.Http, **STORES}
    return known.get(scheme, remote.Fsspec)(str(url), report)


class Local:
    """A folder of this machine."""

    seekable = True

    def __init__(self, folder: str | Path) -> None:
        self.url, self.folder = str(folder), Path(folder)

    def read(self, name: str) -> bytes:
        """As `Store.read`."""
        return (self.folder / name).read_bytes()

    def part(self, name: str, offset: int, size: int) -> bytes:
        """As `Store.part`."""
        with open(self.folder / name, "rb", buffering=0) as file:
            data = os.pread(file.fileno(), size, offset)
        if len(data) != size:
            raise ValueError(f"{self.folder / name}: ends before byte {offset + size}")
        return data

    def chunks(self, name: str) -> Iterator[bytes]:
        """As `Store.chunks`."""
        with open(self.folder / name, "rb", buffering=0) as file:
            while piece := file.read(PIECE):
                yield piece

    def size(self, name: str) -> int | None:
        """As `Store.size`."""
        return (self.folder / name).stat().st_size

    def put(self, name: str, path: Path) -> None:
        """As `Store.put`."""
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        hidden = (self.folder / name).with_name(f".{Path(name).name}.tmp")
        shutil.copyfile(path, hidden)
        os.replace(hidden, self.folder / name)
