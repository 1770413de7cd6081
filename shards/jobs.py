"""What a command has to do: which folders go to which set, and whether that is done already."""

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from p2p.data.encoded import EXTENSIONS
from p2p.data.format import INDEX, index_name, read_index
from p2p.data.rows import check_shards
from p2p.data.stores import is_remote, open_store
from shards.append import Base, find_base
from shards.arguments import Arguments
from shards.listing import Part, Source, find_splits
from shards.plan import PLAN, Plan, list_all, load_plan
from shards.sources import Settings
from shards.spool import open_tree
from shards.tasks import Work
from shards.trees import Tree
from shards.triples import find_phases

PARTNERS = ("input", "target")
REPORT = "report.json"


@dataclass(frozen=True)
class Job:
    """The folders that go to one OUT."""

    parts: tuple[Part, ...]
    out: Path
    """Folder of this machine where all is made."""
    url: str
    """Where it goes from there; empty: it stays."""
    settings: Settings
    bases: dict[str, Base] = field(default_factory=dict)
    """Of new data: the set that they join, for each of `sets`."""

    @cached_property
    def listing(self) -> Plan:
        """What lies in the folders."""
        held = chain.from_iterable(base.read_keys() for base in self.bases.values())
        return list_all(self.settings, tuple(self.parts), held)

    @property
    def sets(self) -> list[str]:
        """Its sets below OUT; one without a name is OUT itself."""
        return ["train", "val"] if self.settings.val else [""]

    @property
    def shown(self) -> str | Path:
        """What a person calls OUT."""
        return self.url or self.out

    @property
    def report(self) -> str:
        """Name of the report."""
        return REPORT.replace(".", f"-{self.generation}.") if self.generation else REPORT

    @property
    def generation(self) -> int:
        """Of the indexes that it writes; of sets that were added to differently, the larger."""
        return max((base.generation + 1 for base in self.bases.values()), default=0)

    @property
    def work(self) -> Work:
        """What its workers need."""
        return Work(self.out, self.settings, tuple(part.root.reader for part in self.parts), self.url)

    def place(self, name: str) -> str | Path:
        """Where a set is."""
        return below(self.shown, name)

    def index_name(self, name: str) -> str:
        """File name of the index that it writes for a set."""
        return index_name(self.bases[name].generation + 1) if self.bases else INDEX


def below(place: str | Path, name: str) -> str | Path:
    """A folder below another, or that itself if it has no name."""
    return place / name if isinstance(place, Path) else f"{place}/{name}".rstrip("/")


def find_jobs(arguments: Arguments, out: Path) -> list[Job]:
    """One job, or one for each of train, val and test; `out` is where all is made.

    Raises:
        ValueError: the sources are missing or empty, or do not go with the options or with what OUT holds.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; give a folder")
    roots = tuple(open_tree(source, out) for source in arguments.sources)
    source = find_source(roots, arguments.settings)
    strangers = [name for name in _ours_or_visible(out) if "" not in source.sets and name not in source.sets]
    if strangers:
        raise ValueError(f"{out}: holds other files ({strangers[0]}); give a new or an empty folder")
    for folder in map(Path, arguments.sources):
        if folder.is_dir() and out.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{out}: lies in the source folder {folder}; give a folder outside")
    settings = replace(arguments.settings, instances=source.instances)
    url = arguments.out if is_remote(arguments.out) else ""
    sets = source.sets.items()
    jobs = [_join(Job(parts, out / name, url and str(below(url, name)), settings)) for name, parts in sets]
    for job in jobs:
        if not (job.listing.count or job.listing.bad_count):
            raise ValueError(f"{job.parts[0].root}: no pictures here ({' '.join(EXTENSIONS)}); give another folder")
    for note in source.notes:
        print(note)
    return jobs


def local_folder(out: str) -> Path:
    """OUT, or where the shards for a store are made; the same for the same command's next run.

    Raises:
        ValueError: somebody else has taken that place.
    """
    if not is_remote(out):
        return Path(out)
    name = f"p2p-pack-{os.getuid()}-{hashlib.sha256(out.rstrip('/').encode()).hexdigest()[:16]}"
    folder = Path(tempfile.gettempdir()) / name
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise ValueError(f"{folder}: is not yours; set TMPDIR to a folder that is")
    return folder


def _join(job: Job) -> Job:
    """The job with what OUT holds, if it is to join that."""
    if not job.settings.append:
        return job
    begun = load_plan(job.out)["generations"] if (job.out / PLAN).exists() else None
    begun = begun or dict.fromkeys(job.sets)  # in a run that goes on, an index may be newer than its beginning
    bases = {name: find_base(job.place(name), job.settings, begun.get(name)) for name in job.sets}
    channels = bases[job.sets[0]].index.channels
    return replace(job, bases=bases, settings=replace(job.settings, channels=channels))


def find_source(roots: tuple[Tree, ...], settings: Settings) -> Source:
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
    parts = [tuple(map(Part, (root / split if split else root for root in roots), missing)) for split in splits or [""]]
    return Source(dict(zip(splits or [""], parts, strict=True)))


def _ours_or_visible(out: Path) -> list[str]:
    return sorted(path.name for path in out.glob("*") if path.name == PLAN or not path.name.startswith("."))


def is_complete(job: Job) -> bool:
    """Whether OUT holds all that this command would write.

    Raises:
        ValueError: it holds something else.
    """
    if (job.out / PLAN).exists():
        return False
    if job.bases:
        return not job.listing.count
    if job.url:
        return _is_published(job)
    if not (held := _ours_or_visible(job.out)):
        return False
    if not (job.out / REPORT).is_file():
        raise ValueError(f"{job.out}: holds other files ({held[0]}); give a new or an empty folder")
    _check_same(job)
    for name in job.sets:
        check_shards(job.out / name, read_index(job.out / name))
    return True


def _is_published(job: Job) -> bool:
    try:
        _check_same(job)
    except FileNotFoundError:
        return False
    return all(_has_index(job.place(name)) for name in job.sets)


def _has_index(place: str | Path) -> bool:
    try:
        return bool(open_store(place).read(INDEX))
    except FileNotFoundError:
        return False


def _check_same(job: Job) -> None:
    if read_report(job).get("inputs") != job.listing["inputs"]:
        raise ValueError(f"{job.shown}: is packed from other files or settings; give a new folder or delete this one")


def read_report(job: Job) -> dict[str, Any]:
    """What an earlier run wrote of itself.

    Raises:
        ValueError: it is damaged; FileNotFoundError: there is none.
    """
    try:
        return dict(json.loads(open_store(job.shown).read(job.report)))
    except (ValueError, TypeError) as error:
        where = f"{job.shown}/{job.report}"
        raise ValueError(f"{where}: not usable ({error}); delete {job.shown} and pack again") from error
