"""One tar of a set, held against the index: bytes, headers, keys, and if wanted every pixel."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from p2p.data.format import Index, ShardInfo
from p2p.data.rows import parse_rows, rows_name
from p2p.data.stores import open_store
from p2p.data.tars import crc
from shards.findings import Finding
from shards.pixels import Pixels
from shards.roles import Roles, roles_of
from shards.scan import DamageError, Sample, Tape, parse, samples

MARK = np.dtype([("shard", "u4"), ("sample", "u4"), ("byte", "u8"), ("key", "u8"), ("content", "u8"), ("look", "u8")])
"""What a sample is known by: its place, and hashes of its key, its members' bytes, and how its target looks (0: not
known)."""


@dataclass(frozen=True)
class Where:
    """A set, and how thoroughly it is examined."""

    url: str
    root: str
    index: Index
    images: bool


@dataclass
class Examined:
    """What one tar turned out to be."""

    shard: str
    findings: list[Finding] = field(default_factory=list)
    marks: list[tuple[int, ...]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    """Of the marks."""


def examine(where: Where, number: int, shard: ShardInfo) -> Examined:
    """Read one tar from its first byte to its last; nothing that is wrong with it stops the caller."""
    examiner = _Examiner(where, number, shard, Examined(shard.name))
    try:
        examiner.read()
    except OSError as error:
        examiner.add("missing", f"{error.strerror or error}")
    return examiner.found


@dataclass
class _Examiner:
    where: Where
    number: int
    shard: ShardInfo
    found: Examined
    seen: dict[bytes, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.roles: Roles = roles_of(self.where.index)
        self.pixels = Pixels(self.where.index, self.roles) if self.where.images else None

    def add(self, kind: str, what: str, sample: int | None = None, key: str = "", byte: int | None = None) -> None:
        self.found.findings.append(Finding(kind, self.shard.name, what, sample, key, byte))

    def read(self) -> None:
        tape = Tape(open_store(self.where.root).chunks(self.shard.name))
        try:
            rows = self._rows()
            for number, sample in enumerate(samples(tape)) if rows is None else self._by_rows(tape, rows):
                self._sample(number, sample)
            if rows is not None:
                self._after(tape)
        except DamageError as error:
            self.add("tar", error.what, byte=error.byte)
        for _ in tape.rest():
            pass
        self._whole(tape)

    def _rows(self) -> np.ndarray | None:
        name = rows_name(self.shard.name)
        try:
            return parse_rows(open_store(self.where.url).read(name), self.shard, name)
        except (OSError, ValueError) as error:
            self.add("rows", str(error) if isinstance(error, ValueError) else f"{name}: {error.strerror or error}")
            return None

    def _by_rows(self, tape: Tape, rows: np.ndarray) -> Iterator[tuple[int, Sample]]:
        """The samples whose bytes are those that were indexed.

        Raises:
            DamageError: the tar ends before.
        """
        for number, row in enumerate(rows):
            offset, size, expected = row.item()
            run = tape.take(size)
            if len(run) < size:
                raise DamageError(tape.at, f"the tar ends here, inside sample {number} of {len(rows)}")
            try:
                sample = parse(run, offset)
            except DamageError as error:
                self.add("tar", error.what, number, byte=error.byte)
                continue
            if crc(run) != expected:
                self.add("crc", f"its {size} bytes are not those that were indexed", number, sample.name, offset)
                continue
            yield number, sample

    def _after(self, tape: Tape) -> None:
        for sample in samples(tape):
            if not self.where.index.members:  # those of strangers may have been passed over
                self.add("rows", "is in the tar, not in the rows", key=sample.name, byte=sample.at)

    def _whole(self, tape: Tape) -> None:
        """Size and checksum of all bytes, unless it is known already that they are wrong."""
        if any(one.kind in ("tar", "crc", "rows") for one in self.found.findings):
            return
        if tape.at != self.shard.bytes:
            self.add("bytes", f"the tar has {tape.at} bytes, the index says {self.shard.bytes}")
        elif tape.sha256.hexdigest() != self.shard.sha256:
            self.add("sha256", "the tar is not the one that the index lists, though each sample in it is")

    def _sample(self, number: int, sample: Sample) -> None:
        place = (number, sample.name, sample.at)
        if (first := self.seen.setdefault(sample.key, number)) != number:
            self.add("key", f"has the key of sample {first}", *place)
        try:
            members = self.roles.pick(sample)
        except ValueError as error:
            self.add("member", str(error), *place)
            return
        look = 0
        if self.pixels:
            findings, look = self.pixels.examine(members)
            for kind, what in findings:
                self.add(kind, what, *place)
        content = _hash(b"".join(_hash(members[role]).to_bytes(8) for role in members if role != "inst"))
        self.found.marks.append((self.number, number, sample.at, _hash(sample.key), content, look))
        self.found.keys.append(sample.name)


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())
