"""A tar read once from its first byte to its last: every header checked, sample by sample."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from p2p.data.tars import EXTENDED, HEADER_BYTES, REGULAR, Header, padded, read_extended, read_header, split_name

OCTAL = re.compile(rb"[0-7]+")
ZEROS = bytes(HEADER_BYTES)
LONGEST = 2**32 - 1
"""Bytes of a sample at most: a row has 32 bits for them."""


class DamageError(ValueError):
    """What is wrong with a tar, and where: `byte N: what`."""

    def __init__(self, byte: int, what: str) -> None:
        super().__init__(f"byte {byte}: {what}")
        self.byte, self.what = byte, what


class Tape:
    """Bytes in sequence, hashed as they come."""

    def __init__(self, pieces: Iterable[bytes], at: int = 0) -> None:
        self.at = at
        """The next byte."""
        self.sha256 = hashlib.sha256()
        self._pieces = iter(pieces)
        self._piece = memoryview(b"")

    def more(self) -> bool:
        """Whether there is another byte."""
        while not self._piece:
            if (piece := next(self._pieces, None)) is None:
                return False
            self.sha256.update(piece)
            self._piece = memoryview(piece)
        return True

    def take(self, size: int) -> bytes:
        """The next `size` bytes, or fewer where the tape ends."""
        parts = []
        while size and self.more():
            parts.append(self._piece[:size])
            self._piece = self._piece[size:]
            size -= len(parts[-1])
            self.at += len(parts[-1])
        return b"".join(parts)

    def rest(self) -> Iterator[bytes]:
        """All that is left, in pieces."""
        while self.more():
            yield self.take(len(self._piece))


class Entry(NamedTuple):
    """A header with what it is of."""

    name: bytes
    kind: int
    at: int
    """First byte of its data in the tar."""
    size: int


class Sample(NamedTuple):
    """Files of one key, side by side."""

    key: bytes
    at: int
    """First byte of the run."""
    run: bytes
    """From the end of the sample before to the padding after its last file."""
    entries: tuple[Entry, ...]
    """Its files."""

    @property
    def name(self) -> str:
        """The key as text."""
        return self.key.decode(errors="replace")


def samples(tape: Tape) -> Iterator[Sample]:
    """The samples of a tar as WebDataset groups them, and then a look at its end.

    Raises:
        DamageError: a header is damaged, the tar is cut, has a hole, or has no proper end.
    """
    run, end, start = bytearray(), 0, tape.at
    key, files = b"", list[Entry]()
    while (entry := read_entry(tape, run)) is not None:
        parts = split_name(entry.name) if entry.kind in REGULAR else None
        if parts is None:
            continue  # it belongs to the sample that follows
        if files and parts[0] != key:
            yield Sample(key, start, bytes(run[:end]), tuple(files))
            del run[:end]
            start, files = start + end, []
        key, end = parts[0], len(run)
        files.append(entry)
    if files:
        yield Sample(key, start, bytes(run[:end]), tuple(files))
    check_end(tape)


def parse(run: bytes, at: int) -> Sample:
    """The sample whose run lies at a byte of its tar: the last key's files.

    Raises:
        DamageError: a header is damaged, or there is no sample.
    """
    tape, seen = Tape([run], at), bytearray()
    files: list[tuple[bytes, Entry]] = []
    while tape.more():
        if (entry := read_entry(tape, seen)) is None:
            raise DamageError(tape.at - HEADER_BYTES, "zeros where a header should be")
        if entry.kind in REGULAR and (parts := split_name(entry.name)):
            files.append((parts[0], entry))
    if not files:
        raise DamageError(at, "no file that could be a member")
    key = files[-1][0]
    return Sample(key, at, run, tuple(entry for other, entry in files if other == key))


def read_entry(tape: Tape, run: bytearray) -> Entry | None:
    """The next entry with its data, all of it added to `run`; None at the first block of the end marker.

    Raises:
        DamageError: a header is damaged, or the tar ends here.
    """
    told: dict[str, bytes] = {}
    while True:
        at = tape.at
        if not (block := tape.take(HEADER_BYTES)):
            raise DamageError(at, "the tar ends without its end marker of zeros; it is cut, or was never closed")
        if block == ZEROS and not told:
            return None
        header = _header(block, at, told)
        if len(run) + HEADER_BYTES + header.size > LONGEST:
            raise DamageError(at, f"a sample of {len(run) + header.size} bytes and more; there can be {LONGEST}")
        data = tape.take(padded(header.size))
        if len(data) < padded(header.size):
            raise DamageError(tape.at, f"the tar ends here, inside the entry {header.name!r} that begins at byte {at}")
        run += block + data
        if header.kind not in EXTENDED:
            return Entry(header.name, header.kind, at + HEADER_BYTES, header.size)
        told |= _extended(header.kind, data[: header.size], at)


def _header(block: bytes, at: int, told: dict[str, bytes]) -> Header:
    if len(block) < HEADER_BYTES:
        raise DamageError(at + len(block), f"the tar ends here, inside the header that begins at byte {at}")
    stated = block[148:156].strip(b" \0")
    total = sum(block) - sum(block[148:156]) + 8 * ord(" ")  # the field itself counts as eight spaces
    if not OCTAL.fullmatch(stated) or int(stated, 8) != total:
        raise DamageError(at, "no tar header here, or a damaged one: its checksum is wrong")
    try:
        header = read_header(block, told)
    except ValueError as error:
        raise DamageError(at, str(error)) from error
    if header.size < 0:
        raise DamageError(at, f"a header says {header.size} bytes")
    return header


def _extended(kind: int, data: bytes, at: int) -> dict[str, bytes]:
    try:
        return read_extended(kind, data)
    except ValueError as error:
        raise DamageError(at, str(error)) from error


def check_end(tape: Tape) -> None:
    """Read what follows the first block of zeros: one more, and nothing but zeros.

    Raises:
        DamageError: there is something else.
    """
    marker = tape.at - HEADER_BYTES
    for piece in tape.rest():
        if (found := np.flatnonzero(np.frombuffer(piece, np.uint8))).size:
            byte = tape.at - len(piece) + int(found[0])
            raise DamageError(byte, f"data after the end marker at byte {marker}: a hole in the tar, or several joined")
    if tape.at - marker < 2 * HEADER_BYTES or tape.at % HEADER_BYTES:
        raise DamageError(tape.at, f"the tar ends here, inside the end marker that begins at byte {marker}")
