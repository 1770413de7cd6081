"""What a verification finds: each with its place, counted by kind, listed up to a bound."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

LISTED = 10_000
"""Findings of one kind that are kept; all are counted."""

ERRORS = {
    "index": "a generation of the index does not go on from the one before",
    "missing": "a tar that cannot be read at all",
    "rows": "the rows of a tar are missing, damaged, or do not list all its samples",
    "bytes": "a tar is longer or shorter than the index says",
    "sha256": "a tar is not the one that the index lists, though each sample in it is",
    "tar": "a header is damaged, the tar is cut, has a hole or no end",
    "crc": "the bytes of a sample are not those that were indexed",
    "member": "a sample lacks a picture",
    "key": "a key comes twice",
    "decode": "a picture cannot be decoded",
    "sides": "the pictures of a sample differ in size",
    "range": "a picture is not of the sizes or channels that the index says",
    "label": "a label is not below the classes of the index",
    "overlap": "a sample of SET has the same bytes in OTHER",
}
WARNINGS = {
    "constant": "a picture is all of one gray, or a label map of one class",
    "repeated-key": "a key comes in several tars of strangers",
    "duplicate": "a sample has the same pictures as one before, byte for byte",
    "near-duplicate": "a target looks like one before",
    "overlap-key": "a key of SET is in OTHER, too",
    "near-overlap": "a target of SET looks like one of OTHER",
    "unlisted": "a tar lies beside those of the index",
    "against": "a sample of OTHER cannot be compared",
}


class Finding(NamedTuple):
    """One thing that is wrong, and where."""

    kind: str
    """Of `ERRORS` or `WARNINGS`."""
    shard: str
    what: str
    sample: int | None = None
    """Its number in the shard."""
    key: str = ""
    byte: int | None = None
    """In the shard."""

    @property
    def severity(self) -> str:
        """`error` or `warning`."""
        return "error" if self.kind in ERRORS else "warning"

    def line(self) -> str:
        """For a person."""
        sample = "" if self.sample is None else f" sample {self.sample}"
        key = f" ({self.key!r})" if self.key else ""
        byte = "" if self.byte is None else f" at byte {self.byte}"
        return f"{self.severity}: {self.kind}: {self.shard}{sample}{key}{byte}: {self.what}"

    def as_dict(self) -> dict[str, Any]:
        """For a program."""
        return {"severity": self.severity, **self._asdict()}


@dataclass
class Findings:
    """All of one verification."""

    counts: Counter[str] = field(default_factory=Counter)
    listed: list[Finding] = field(default_factory=list)

    def add(self, found: Iterable[Finding]) -> None:
        """Count, and list while there is room."""
        for one in found:
            self.counts[one.kind] += 1
            if self.counts[one.kind] <= LISTED:
                self.listed.append(one)

    def total(self, severity: str) -> int:
        """Errors or warnings."""
        kinds = ERRORS if severity == "error" else WARNINGS
        return sum(self.counts[kind] for kind in kinds)

    def dumps(self, facts: dict[str, Any]) -> str:
        """As JSON, with some facts before; it depends on nothing but the set."""
        counts = {kind: self.counts[kind] for kind in [*ERRORS, *WARNINGS] if self.counts[kind]}
        totals = {"errors": self.total("error"), "warnings": self.total("warning"), "counts": counts}
        return json.dumps({**facts, **totals, "findings": [one.as_dict() for one in self.listed]}, indent=1)
