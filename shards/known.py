"""The samples of a set by the hashes of their keys and pictures, and what they have in common: 40 bytes a sample."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from types import TracebackType

import numpy as np

from p2p.data.format import Index
from shards.alike import common, earliest_near, near_in, repeats
from shards.examine import MARK, Where
from shards.findings import Finding


class Known:
    """Marks of all samples in memory, their keys in a file that is gone when the block ends."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._keys = tempfile.TemporaryFile()  # noqa: SIM115
        self._starts: dict[int, tuple[int, int]] = {}
        self._count = 0

    def __enter__(self) -> "Known":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._keys.close()

    def add(self, marks: Sequence[tuple[int, ...]], keys: Sequence[str]) -> None:
        """The samples of one tar."""
        if not marks:
            return
        self._starts[marks[0][0]] = self._keys.tell(), self._count
        self._keys.write(json.dumps(keys).encode() + b"\n")
        self._count += len(marks)
        self._parts.append(np.array(marks, dtype=MARK))

    @cached_property
    def marks(self) -> np.ndarray:
        """`MARK` of every sample, in order."""
        return np.concatenate(self._parts) if self._parts else np.empty(0, MARK)

    def key(self, place: int) -> str:
        """The key of the sample at a place of `marks`."""
        at, first = self._starts[int(self.marks[place]["shard"])]
        self._keys.seek(at)
        return str(json.loads(self._keys.readline())[place - first])

    def name(self, place: int, index: Index) -> str:
        """Which sample it is, for a person."""
        mark = self.marks[place]
        return f"{index.shards[int(mark['shard'])].name} sample {mark['sample']} ({self.key(place)!r})"

    def _finding(self, kind: str, index: Index, place: int, what: str) -> Finding:
        mark = self.marks[place]
        shard = index.shards[int(mark["shard"])].name
        return Finding(kind, shard, what, int(mark["sample"]), self.key(place), int(mark["byte"]))

    def inside(self, index: Index) -> Iterator[Finding]:
        """Keys and pictures that come again in the same set."""
        marks = self.marks
        for place, first in _pairs(*repeats(marks["key"])):
            if marks["shard"][place] != marks["shard"][first]:  # those in one tar are known
                kind = "repeated-key" if index.members else "key"
                yield self._finding(kind, index, place, f"has the key of {self.name(first, index)}")
        for place, first in _pairs(*repeats(marks["content"])):
            yield self._finding("duplicate", index, place, f"has the bytes of {self.name(first, index)}")
        seen = np.flatnonzero(marks["look"])
        first_near = seen[earliest_near(marks["look"][seen])]
        alike = (first_near != seen) & (marks["content"][first_near] != marks["content"][seen])
        for place, first in _pairs(seen[alike], first_near[alike]):
            yield self._finding("near-duplicate", index, place, f"its target looks like {self.name(first, index)}")

    def across(self, index: Index, others: "Known", other: Where) -> Iterator[Finding]:
        """Keys and pictures that another set has, too."""
        equal = {"overlap": "content", "overlap-key": "key"}
        for kind, of in equal.items():
            what = {"content": "has the bytes of", "key": "has the key of"}[of]
            for place, there in _pairs(*common(self.marks[of], others.marks[of])):
                yield self._finding(kind, index, place, f"{what} {other.url} {others.name(there, other.index)}")
        seen, theirs = np.flatnonzero(self.marks["look"]), np.flatnonzero(others.marks["look"])
        found = near_in(self.marks["look"][seen], others.marks["look"][theirs])
        for place, there in _pairs(seen[found >= 0], theirs[found[found >= 0]]):
            if self.marks["content"][place] != others.marks["content"][there]:
                named = others.name(there, other.index)
                yield self._finding("near-overlap", index, place, f"its target looks like {other.url} {named}")


def _pairs(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[int, int]]:
    return zip(a.tolist(), b.tolist(), strict=True)
