"""Tar headers as WebDataset reads them, and the members of one sample."""

import re
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

HEADER_BYTES = 512
REGULAR = b"0\x007"
"""Types of plain files; what contains data and is not one of these belongs to no sample."""
EXTENDED = b"xgLK"
"""Types of entries that tell of those after them: pax, pax of all, GNU's long name and long link."""
EMPTY = b"123456"
"""Types without data, whatever size their header says: links, devices, folders."""
META = re.compile(rb"__[^/]*__(/|\Z)")
"""Names that WebDataset keeps for itself."""


class Header(NamedTuple):
    """One header block."""

    name: bytes
    size: int
    """Bytes of data that follow, without the padding."""
    kind: int
    """The type as a byte: an element of `REGULAR`, `EXTENDED`, ..."""


def split_members(run: bytes | bytearray | memoryview) -> dict[str, Any]:
    """Take the tar bytes of one sample apart: `{"__key__": b"0001", "ab.jpg": ..., "json": ...}`, extensions in small
    letters. Members of a bytearray are memoryviews, those of the others slices of the same type; nothing is copied but
    slices of bytes.

    A run may begin with files of other keys, which belong to no sample. Names are returned, never opened.

    Raises:
        ValueError: a header cannot be read, or leads out of the sample, or two members are called the same.
    """
    view = memoryview(run) if isinstance(run, bytearray) else run
    members: dict[str, Any] = {}
    told: dict[str, bytes] = {}
    at = 0
    while at + HEADER_BYTES <= len(view):
        name, size, kind = read_header(bytes(view[at : at + HEADER_BYTES]), told)
        at += HEADER_BYTES
        if not 0 <= size <= len(view) - at:
            raise ValueError(f"a tar header says {size} bytes, {len(view) - at} are left of the sample")
        data = view[at : at + size]
        at += padded(size)
        if kind in EXTENDED:
            told |= read_extended(kind, bytes(data))
            continue
        told = {}
        if kind in REGULAR and (parts := split_name(name)):
            _add(members, *parts, data)
    if not members:
        raise ValueError("there is no member in the bytes of the sample")
    return members


def _add(members: dict[str, Any], key: bytes, extension: str, data: bytes | memoryview) -> None:
    if members.get("__key__") != key:
        members.clear()
        members["__key__"] = key
    if extension in members:
        raise ValueError(f"a sample has two members {extension!r}")
    members[extension] = data


def read_header(block: bytes, told: Mapping[str, bytes]) -> Header:
    """A header of 512 bytes, and what extended headers have told of it. Its checksum is not looked at.

    Raises:
        ValueError: its size is no number, or it is of a sparse file.
    """
    kind = block[156]
    name = told["path"] if "path" in told and kind not in EXTENDED else _name(block)
    if kind in EMPTY:
        return Header(name, 0, kind)
    if kind == ord("S") or "GNU.sparse.major" in told:
        raise ValueError("a tar header is of a sparse file; make the tar without --sparse")
    size = int(told["size"]) if "size" in told and kind not in EXTENDED else _number(block[124:136])
    return Header(name, size, kind)


def _name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    if block[345] and block[257:263] == b"ustar\0":  # GNU has times there
        return block[345:500].partition(b"\0")[0] + b"/" + name
    return name


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # GNU's, of 8 GiB and more
        return int.from_bytes(field, "big", signed=True) + (1 << 95)
    return int(field.partition(b"\0")[0].strip() or b"0", 8)


def read_extended(kind: int, data: bytes) -> dict[str, bytes]:
    """What an extended header tells of the next entry: `path`, `size` and others of pax, or GNU's long name.

    Raises:
        ValueError: it cannot be read, or renames every entry after it, which a part of a tar does not show.
    """
    if kind in b"LK":
        return {"path": data.rstrip(b"\0")} if kind == ord("L") else {}
    told = {}
    while data.strip(b"\0"):
        length, _, rest = data.partition(b" ")
        if not length.isdigit() or not len(length) + 3 < int(length) <= len(data):
            raise ValueError("an extended tar header (pax) cannot be read")
        word, _, value = rest[: int(length) - len(length) - 2].partition(b"=")
        told[word.decode()] = value
        data = data[int(length) :]
    if kind == ord("g") and not {"path", "size"}.isdisjoint(told):
        raise ValueError("a global tar header (pax) gives all entries one name or size; make the tar anew")
    return told if kind == ord("x") else {}


def split_name(name: bytes) -> tuple[bytes, str] | None:
    """Key and extension, in small letters, as WebDataset has them; None of what is no member of a sample: names that
    have no extension or begin with a dot, and WebDataset's own `__name__`."""
    folder, slash, base = name.rpartition(b"/")
    stem, dot, extension = base.partition(b".")
    if not stem or not dot or META.match(name):
        return None
    return folder + slash + stem, extension.decode(errors="surrogateescape").lower()


def padded(size: int) -> int:
    """Bytes that data of `size` bytes take in a tar."""
    return -(-size // HEADER_BYTES) * HEADER_BYTES


def crc(data: bytes | bytearray | memoryview) -> int:
    """CRC-32 as the rows hold it."""
    return zlib.crc32(data)
