"""What one run has found out and decided, kept in `OUT/.plan.json` until the last file is written."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from shards.listing import Bad, File, Listing, Sample
from shards.pictures import Picture
from shards.sources import Good, Settings
from shards.writer import aside, tar_bytes

PLAN = ".plan.json"
REPORT = "report.json"


@dataclass(frozen=True)
class Plan:
    """What was asked for, listed and found; all that is written follows from it."""

    settings: Settings
    listing: Listing
    outcomes: list[Good | str]
    """Of the check of each listed sample: what it is, or why it is bad."""

    @cached_property
    def bad(self) -> list[Bad]:
        """All that is not packed, by name."""
        checked = zip(self.listing.samples, self.outcomes, strict=True)
        found = [Bad(one.files[0].name, outcome) for one, outcome in checked if isinstance(outcome, str)]
        return sorted(self.listing.bad + found)

    @cached_property
    def shuffled(self) -> list[tuple[Sample, Good]]:
        """The good samples in the order of the set, which depends on the seed and each key only."""
        checked = zip(self.listing.samples, self.outcomes, strict=True)
        good = [(one, outcome) for one, outcome in checked if isinstance(outcome, Good)]
        return sorted(good, key=lambda pair: _digest(f"{self.settings.seed}:{pair[0].key}"))

    def sets(self) -> dict[str, list[tuple[Sample, Good]]]:
        """The samples of each set by its folder below OUT.

        Raises:
            ValueError: no sample would be left to train on.
        """
        good, val = self.shuffled, self.settings.val
        if not val:
            return {"": good}
        if val >= len(good):
            raise ValueError(f"--val {val}: there are only {len(good)} good samples; hold out fewer")
        return {"train": good[:-val], "val": good[-val:]}

    def report(self) -> dict[str, Any]:
        """What a person may want to know, and the fingerprint by which the same command is known again."""
        good = self.shuffled
        converted = Counter(picture.converted for _, one in good for picture in one.pictures)
        return {
            "packed": len(good),
            "bad": [one._asdict() for one in self.bad],
            "converted": {reason: converted[reason] for reason in sorted(converted) if reason},
            "inputs": fingerprint(self.settings, self.listing),
        }

    def save(self, out: Path) -> None:
        samples, bad = self.listing
        text = json.dumps([asdict(self.settings), samples, bad, self.outcomes])
        with aside(out / PLAN) as file:
            file.write(text.encode())


def load_plan(out: Path) -> Plan:
    """Read what `Plan.save` wrote.

    Raises:
        ValueError: it is damaged, or of another version.
    """
    try:
        settings, samples, bad, outcomes = json.loads((out / PLAN).read_text())
        settings["size"] = tuple(settings["size"])
        listed = [Sample(key, tuple(File(*file) for file in files)) for key, files in samples]
        return Plan(
            Settings(**settings),
            Listing(listed, [Bad(*one) for one in bad]),
            [one if isinstance(one, str) else _good(*one) for one in outcomes],
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{out / PLAN}: not usable ({error}); delete {out} and pack again") from error


def _good(pictures: list[list[Any]], size: int) -> Good:
    return Good(tuple(Picture(*one) for one in pictures), size)


def difference(settings: Settings, listing: Listing, plan: Plan) -> str:
    """In what this command differs from the planned one, in words; empty if in nothing."""
    before, now = asdict(plan.settings), asdict(settings)
    for name in (name for name in now if now[name] != before[name]):
        return f"{name} is {now[name]}, was {before[name]}"
    old, new = _by_name(plan.listing), _by_name(listing)
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            return f"{name} {'is new' if name not in old else 'has changed' if name in new else 'is gone'}"
    return ""


def _by_name(listing: Listing) -> dict[str, Any]:
    return {**{one.files[0].name: one for one in listing.samples}, **dict(listing.bad)}


def fingerprint(settings: Settings, listing: Listing) -> str:
    """Of the settings and of all names and sizes; not of times, so that a copy of the folder has the same."""
    names = [[key, [file[:2] for file in files]] for key, files in listing.samples]
    # a setting with a default is younger than some sets, which must be known again
    unset = {one.name for one in fields(settings) if getattr(settings, one.name) == one.default}
    stated = {name: value for name, value in asdict(settings).items() if name not in unset}
    return _digest(json.dumps([stated, names, listing.bad])).hex()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def cut(settings: Settings, samples: Sequence[tuple[Sample, Good]]) -> Iterator[Sequence[tuple[Sample, Good]]]:
    """The samples of each shard: so many, or as many as fit in so many bytes of tar, but always one."""
    first, content = 0, 0
    for at, (_, good) in enumerate(samples):
        content += good.bytes
        full = tar_bytes(content) > settings.bytes if settings.bytes else at - first == settings.samples
        if full and at > first:
            yield samples[first:at]
            first, content = at, good.bytes
    yield samples[first:]
