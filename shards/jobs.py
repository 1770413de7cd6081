"""What a command has to do: which folders go to which set, and whether that is done already."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from p2p.data.encoded import EXTENSIONS
from p2p.data.format import check_shards, read_index
from shards.arguments import Arguments
from shards.listing import Listing, Part, Source, find_splits, list_samples
from shards.plan import PLAN, REPORT, fingerprint
from shards.sources import Settings
from shards.triples import find_phases

PARTNERS = ("input", "target")


@dataclass(frozen=True)
class Job:
    """The folders that go to one OUT."""

    parts: tuple[Part, ...]
    out: Path
    settings: Settings

    @cached_property
    def listing(self) -> Listing:
        return list_samples(self.parts)

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders, one for each file of a sample."""
        return tuple(part.root for part in self.parts)

    @property
    def folders(self) -> list[Path]:
        """Where its sets are."""
        return [self.out / "train", self.out / "val"] if self.settings.val else [self.out]


def find_jobs(arguments: Arguments) -> list[Job]:
    """One job, or one for each of train, val and test.

    Raises:
        ValueError: the folders are missing or empty, or do not go with the options.
    """
    out = arguments.out
    source = find_source(arguments.roots, arguments.settings)
    strangers = [name for name in _ours_or_visible(out) if "" not in source.sets and name not in source.sets]
    if strangers:
        raise ValueError(f"{out}: holds other files ({strangers[0]}); give a new or an empty folder")
    for root in arguments.roots:
        if out.resolve().is_relative_to(root.resolve()):
            raise ValueError(f"{out}: lies in the source folder {root}; give a folder outside")
    settings = replace(arguments.settings, instances=source.instances)
    jobs = [Job(parts, out / name, settings) for name, parts in source.sets.items()]
    for job in jobs:
        if not any(job.listing):
            raise ValueError(f"{job.roots[0]}: no pictures here ({' '.join(EXTENSIONS)}); give another folder")
    for note in source.notes:
        print(note)
    return jobs


def find_source(roots: tuple[Path, ...], settings: Settings) -> Source:
    """The folders of each set.

    Raises:
        ValueError: they are missing, or divided in a way that does not go with the options.
    """
    if settings.form == "labels":
        return find_phases(roots[0], settings)
    splits = find_splits(roots)
    if splits and settings.val:
        raise ValueError(f"{roots[0]}: is divided in {', '.join(splits)} already; leave --val out")
    missing = [f"no partner in the {partner} folder" for partner in PARTNERS]
    parts = [tuple(map(Part, (root / split for root in roots), missing)) for split in splits or [""]]
    return Source(dict(zip(splits or [""], parts, strict=True)))


def _ours_or_visible(out: Path) -> list[str]:
    return sorted(path.name for path in out.glob("*") if path.name == PLAN or not path.name.startswith("."))


def is_complete(job: Job) -> bool:
    """Whether OUT holds all that this command would write.

    Raises:
        ValueError: it holds something else.
    """
    if job.out.exists() and not job.out.is_dir():
        raise ValueError(f"{job.out}: is a file; give a folder")
    held = _ours_or_visible(job.out)
    if PLAN in held or not held:
        return False
    if not (job.out / REPORT).is_file():
        raise ValueError(f"{job.out}: holds other files ({held[0]}); give a new or an empty folder")
    if read_report(job.out).get("inputs") != fingerprint(job.settings, job.listing):
        raise ValueError(f"{job.out}: is packed from other files or settings; give a new folder or delete this one")
    for folder in job.folders:
        check_shards(folder, read_index(folder))
    return True


def read_report(out: Path) -> dict[str, Any]:
    """What an earlier run wrote of itself.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return dict(json.loads((out / REPORT).read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{out / REPORT}: not usable ({error}); delete {out} and pack again") from error
