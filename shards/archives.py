"""Source files inside a .tar or .zip: listed once, then read at their place. Nothing is ever unpacked to a file."""

import errno
import json
import os
import sqlite3
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import BufferedReader, FileIO
from pathlib import Path, PurePosixPath

from shards.trees import LARGEST, Bad, File, Reader, changed, too_large

Entry = tuple[str, int, tuple[int, ...], str]
"""Name, bytes, place, and why it cannot be used."""
LOCAL = struct.Struct("<4s22xHH")
"""Of a zip's local header: signature, bytes of the name and of the extra field that follow it."""


class Archive:
    """The members of an archive, in a database of their names that lies on the disk."""

    def __init__(self, path: Path, title: str) -> None:
        """Read all headers; `title` is what a person calls the archive.

        Raises:
            ValueError: it is damaged, or cut short.
        """
        self.title, self.mtime_ns = title, path.stat().st_mtime_ns
        is_zip = path.suffix.lower() == ".zip"
        self.reader: Reader = ZipReader(path, title) if is_zip else TarReader(path, title)
        self.db = sqlite3.connect("", isolation_level=None)
        self.db.execute("CREATE TABLE members (name BLOB, size INT, place TEXT, reason TEXT, outside INT)")
        self.db.execute("BEGIN")
        visible = (_row(entry) for entry in _scan(path, title, is_zip) if not _is_hidden(entry[0]))
        self.db.executemany("INSERT INTO members VALUES (?, ?, ?, ?, ?)", visible)
        self.db.execute("CREATE INDEX names ON members (name)")
        self.db.execute(
            "UPDATE members SET reason = 'stands in the archive more than once' WHERE reason = '' AND"
            " name IN (SELECT name FROM members GROUP BY name HAVING count(*) > 1)"
        )


@dataclass(frozen=True)
class Inside:
    """A folder in an archive, as `shards.trees.Tree`; `path` is empty or ends with a slash."""

    archive: Archive
    path: str = ""

    def __str__(self) -> str:
        return f"{self.archive.title}/{self.path}".rstrip("/")

    def __truediv__(self, name: str) -> "Inside":
        return Inside(self.archive, f"{self.path}{name}/")

    @property
    def reader(self) -> Reader:
        """As `Tree.reader`."""
        return self.archive.reader

    def is_dir(self) -> bool:
        """As `Tree.is_dir`."""
        return self._first(_blob(self.path)) is not None

    def children(self) -> Iterator[tuple[str, bool]]:
        """As `Tree.children`; from one name the next is looked up, so that no folder is run through."""
        after: bytes | None = _blob(self.path)
        while after is not None and (found := self._first(after)) is not None:
            name, slash, _ = found[len(self.path) :].partition("/")
            yield name, bool(slash)
            after = _blob(self.path + name) + (b"0" if slash else b"\0")  # "0" comes after "/"

    def files(self) -> Iterator[File | Bad]:
        """As `Tree.files`. What would lead out of the archive is told of wherever one looks."""
        rows = self.archive.db.execute(
            "SELECT name, size, place, reason FROM members WHERE outside OR (name >= ? AND name < ?)", self._range
        )
        for blob, size, place, reason in rows:
            name = _text(blob).removeprefix(self.path)
            yield Bad(name, reason) if reason else File(name, size, self.archive.mtime_ns, tuple(json.loads(place)))

    @property
    def _range(self) -> tuple[bytes, bytes]:
        return _blob(self.path), _blob(self.path[:-1]) + b"0" if self.path else b"\xff"

    def _first(self, after: bytes) -> str | None:
        query = "SELECT min(name) FROM members WHERE NOT outside AND name >= ? AND name < ?"
        (found,) = self.archive.db.execute(query, (after, self._range[1])).fetchone()
        return None if found is None else _text(found)


def look_through(root: Inside, known: tuple[str, ...]) -> Inside:
    """The only folder of an archive, as archives often have one around all; not one of the `known` names."""
    children = root.children()
    first, second = next(children, None), next(children, None)
    if first and first[1] and second is None and first[0] not in known:
        return root / first[0]
    return root


def _scan(path: Path, title: str, is_zip: bool) -> Iterator[Entry]:
    try:
        yield from _scan_zip(path) if is_zip else _scan_tar(path)
    except (tarfile.TarError, zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
        raise ValueError(f"{title}: not a usable archive ({error}); fetch it again") from error


def _scan_tar(path: Path) -> Iterator[Entry]:
    end = path.stat().st_size
    with _Careful(FileIO(path)) as file, tarfile.TarFile(fileobj=file) as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep them all
            if member.offset_data + member.size > end and member.isreg():
                raise ValueError(f"it ends inside {member.name}")
            if not member.isdir():
                yield member.name, member.size, (member.offset_data,), _why_not(member)
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes anything odd for the end
            raise ValueError(f"no header and no end mark at byte {tar.offset}")


class _Careful(BufferedReader):
    """A file of which no header makes anyone read more than a picture's bytes at once."""

    def read(self, size: int | None = -1) -> bytes:
        """As of any file."""
        if size and size > LARGEST:
            raise ValueError(f"it has a header of {size} bytes")
        return super().read(size)


def _why_not(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return "a link, not a file"
    if not member.isreg() or member.issparse():
        return "not a regular file"
    return too_large(member.size)


def _scan_zip(path: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                place = (info.header_offset, info.compress_size, info.compress_type, info.CRC)
                yield info.filename, info.file_size, place, _why_not_zipped(info)


def _why_not_zipped(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & 1:
        return "encrypted; unpack it with its password first"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"compressed by method {info.compress_type}; deflate is read"
    if (info.external_attr >> 16) & 0o170000 == 0o120000:
        return "a link, not a file"
    return too_large(max(info.file_size, info.compress_size))


def _is_hidden(name: str) -> bool:
    return any(part[0] == "." and part != ".." for part in PurePosixPath(name).parts)


def _row(entry: Entry) -> tuple[bytes, int, str, str, bool]:
    """An entry as the database holds it; a name that leads out of the archive stays as it is, for a message."""
    name, size, place, reason = entry
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts
    if outside:
        return _blob(name), size, "[]", "its name leads out of the archive", True
    return _blob(str(path)), size, json.dumps(place), reason, False


def _blob(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


def _text(blob: bytes) -> str:
    return blob.decode("utf-8", "surrogatepass")


@lru_cache(maxsize=8)
def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY)


def _part(path: Path, title: str, file: File, offset: int, size: int) -> bytes:
    handle = _open(path)
    if os.fstat(handle).st_mtime_ns != file.mtime_ns:
        raise changed(title)
    data = os.pread(handle, size, offset)
    if len(data) != size:
        raise OSError(errno.EIO, "the archive ends before it")
    return data


@dataclass(frozen=True)
class TarReader:
    """Reads members of a plain tar, as `shards.trees.Reader`."""

    path: Path
    title: str

    def read(self, file: File) -> bytes:
        """As `Reader.read`."""
        return _part(self.path, self.title, file, file.place[0], file.size)


@dataclass(frozen=True)
class ZipReader:
    """Reads members of a zip, as `shards.trees.Reader`."""

    path: Path
    title: str

    def read(self, file: File) -> bytes:
        """As `Reader.read`; never more bytes than were listed."""
        offset, size, method, crc = file.place
        signature, name, extra = LOCAL.unpack(_part(self.path, self.title, file, offset, LOCAL.size))
        data = _part(self.path, self.title, file, offset + LOCAL.size + name + extra, size)
        try:
            plain = zlib.decompressobj(-15).decompress(data, file.size + 1) if method else data
        except zlib.error as error:
            raise OSError(errno.EIO, "its compressed bytes are damaged") from error
        if signature != b"PK\3\4" or len(plain) != file.size or zlib.crc32(plain) != crc:
            raise OSError(errno.EIO, "it is not the bytes that the archive says")
        return plain
