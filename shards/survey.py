"""A tar of strangers, read once: where its samples lie, what they are, and what is wrong with it."""

import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from p2p.data.format import ShardInfo
from p2p.data.rows import ROW
from p2p.data.stores import open_store
from shards import dali
from shards.roles import CALLED, Look, Roles, side_sizes
from shards.scan import LONGEST, DamageError, Sample, Tape, samples

Row = tuple[int, int, int]


@dataclass
class Survey:
    """What one tar holds."""

    name: str
    rows: list[Row] = field(default_factory=list)
    bytes: int = 0
    sha256: str = ""
    channels: list[int] = field(default_factory=lambda: [1, 1])
    smallest: list[int] = field(default_factory=lambda: [2**31, 2**31])
    largest: list[int] = field(default_factory=lambda: [0, 0])
    problems: list[str] = field(default_factory=list)
    """What stands against an index, a line each; of samples that are passed over, too."""
    notes: Counter[str] = field(default_factory=Counter)
    """What training will not do with the pictures, and with how many."""
    damaged: bool = False
    """A problem is the tar's, not a sample's."""

    _gap: int = 0
    """CRC-32 of the bytes since the last row."""

    def add(self, sample: Sample) -> None:
        """A row for a good sample.

        Raises:
            DamageError: with what was passed over before it, it is too long.
        """
        start = sum(self.rows[-1][:2]) if self.rows else 0
        size = sample.at + len(sample.run) - start
        if size > LONGEST:
            raise DamageError(sample.at, f"{size} bytes to the end of the good sample before; there can be {LONGEST}")
        self.rows.append((start, size, zlib.crc32(sample.run, self._gap)))
        self._gap = 0

    def pass_over(self, sample: Sample) -> None:
        """The bytes of a bad sample belong to the next good one."""
        self._gap = zlib.crc32(sample.run, self._gap)

    def describe(self, roles: Roles, sample: Sample) -> None:
        """Take in what the pictures of a sample are.

        Raises:
            ValueError: training could not use it; the reason.
        """
        looks = {role: _look(roles, role, data) for role, data in roles.pick(sample).items()}
        size = side_sizes(looks)
        sides = [looks.get(role) or looks["ab"] for role in "ab"]
        self.channels = [max(old, new.channels) for old, new in zip(self.channels, sides, strict=True)]
        self.smallest = [min(pair) for pair in zip(self.smallest, size, strict=True)]
        self.largest = [max(pair) for pair in zip(self.largest, size, strict=True)]
        self.notes.update(look.note for look in looks.values() if look.note)

    def fits(self, skip: bool) -> bool:
        """Whether it can be indexed; `skip` allows for bad samples."""
        return bool(self.rows) and not self.damaged and (skip or not self.problems)

    @property
    def info(self) -> ShardInfo:
        """As the index lists it."""
        return ShardInfo(self.name, len(self.rows), self.bytes, self.sha256)

    @property
    def array(self) -> np.ndarray:
        """The rows as they are stored."""
        return np.array(self.rows, dtype=ROW)


def survey(where: str, roles: Roles, skip: bool, idx: Path | None, name: str) -> Survey:
    """Read one tar of a store; of unusable samples the bytes belong to the run of the next good one.

    Args:
        skip: pass over samples that cannot be used.
        idx: folder for DALI's index of the tar; None: write none.

    Raises:
        StoreError: the store does not answer.
    """
    found, tape, lines = Survey(name), Tape(open_store(where).chunks(name)), list[str]()
    try:
        _read(found, roles, tape, lines if idx else None)
        if not found.rows and not found.problems:
            raise DamageError(0, "the tar holds no sample")
    except (DamageError, FileNotFoundError) as error:
        found.damaged = True
        what = f"{name} at {error}" if isinstance(error, DamageError) else f"{name}: there is none in {where}"
        found.problems.append(what)
    found.bytes, found.sha256 = tape.at, tape.sha256.hexdigest()
    if idx and found.fits(skip):
        dali.write(idx, name, lines)
    return found


def _read(found: Survey, roles: Roles, tape: Tape, lines: list[str] | None) -> None:
    seen: dict[bytes, int] = {}
    for sample in samples(tape):
        try:
            first = seen.setdefault(sample.key, sample.at)
            if first != sample.at:
                raise ValueError(f"comes again, first at byte {first}; the files of one must stand side by side, once")
            if "\ufffd" in sample.name:
                raise ValueError("is not called in UTF-8")
            found.describe(roles, sample)
        except ValueError as error:
            found.problems.append(f"{found.name} at byte {sample.at}: sample {sample.name!r} {error}")
            found.pass_over(sample)
        else:
            found.add(sample)
            if lines is not None:
                lines.append(dali.line(sample))


def _look(roles: Roles, role: str, data: bytes) -> Look:
    try:
        return roles.look(role, data)
    except ValueError as error:
        raise ValueError(f"{CALLED[role]} {error}") from error
