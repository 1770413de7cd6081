"""What one run has listed and decided: a database on the disk, kept in `OUT/.plan.sqlite` until all is written."""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from shards.listing import Part, Sample, list_part
from shards.sources import Settings, reckon
from shards.trees import Bad, File
from shards.writer import tar_bytes

PLAN = ".plan.sqlite"
HELD = -1
"""The side of keys that the set holds already."""

SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE samples (key BLOB, names TEXT, places TEXT, bytes INT);
CREATE TABLE bad (name BLOB, reason BLOB, packing INT, PRIMARY KEY (name, reason)) WITHOUT ROWID;
"""
"""`samples` stand in the order of the set; `bad` are those of the listing and, later, those that packing finds."""
WHILE_LISTING = """
CREATE TABLE found (key BLOB, side INT, name BLOB, size INT, mtime INT, place TEXT);
CREATE TABLE matched (digest BLOB, key BLOB, names TEXT, places TEXT, bytes INT);
"""
AND_THEN = "DROP TABLE found; DROP TABLE matched;"

ENTRIES = """SELECT 1 AS good, names AS name, key || places AS what FROM {0}.samples
UNION ALL SELECT 0, name, reason FROM {0}.bad WHERE NOT packing"""
CHANGES = f"""SELECT 'now', good, name FROM (SELECT * FROM ({ENTRIES}) EXCEPT SELECT * FROM ({ENTRIES.format("old")}))
UNION ALL SELECT 'old', good, name FROM (SELECT * FROM ({ENTRIES.format("old")}) EXCEPT SELECT * FROM ({ENTRIES}))"""


class Plan:
    """The samples in the order of their set, and what cannot be one."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db

    @property
    def count(self) -> int:
        """Samples, if none of them is bad."""
        return int(self.db.execute("SELECT count(*) FROM samples").fetchone()[0])

    def __getitem__(self, name: str) -> Any:
        """A fact that was noted; None where it was not."""
        row = self.db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def note(self, **facts: Any) -> None:
        """Keep facts under their names."""
        rows = [(name, json.dumps(value)) for name, value in facts.items()]
        self.db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)

    def samples(self, first: int, last: int) -> Iterator[Sample]:
        """Those at the positions from `first` to before `last`."""
        query = "SELECT key, names, places FROM samples WHERE rowid > ? AND rowid <= ?"
        for key, names, places in self.db.execute(query, (first, last)):
            files = zip(json.loads(names), json.loads(places), strict=True)
            yield Sample(_text(key), tuple(File(*name, *place) for name, place in files))

    def cut(self, settings: Settings, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Positions of each shard: so many, or as many as fit in so many bytes of tar, but always one."""
        if settings.samples:
            yield from ((at, min(at + settings.samples, last)) for at in range(first, last, settings.samples))
            return
        content = 0
        rows = self.db.execute("SELECT bytes FROM samples WHERE rowid > ? AND rowid <= ?", (first, last))
        for at, (size,) in enumerate(rows, first):
            content += size
            if tar_bytes(content) > settings.bytes and content > size:
                yield first, at
                first, content = at, size
        if first < last:
            yield first, last

    @property
    def bad(self) -> Iterator[Bad]:
        """All that is not packed, by name."""
        rows = self.db.execute("SELECT name, reason FROM bad ORDER BY name, reason")
        return (Bad(_text(name), _text(reason)) for name, reason in rows)

    @property
    def bad_count(self) -> int:
        """How many are not packed."""
        return int(self.db.execute("SELECT count(*) FROM bad").fetchone()[0])

    def add_bad(self, bad: Iterable[Bad]) -> None:
        """Note what packing found that it cannot pack."""
        self.db.execute("BEGIN")
        for name, reason in bad:
            self._add_bad(name, reason, packing=True)
        self.db.execute("COMMIT")

    def _add_bad(self, name: str, reason: str, *, packing: bool = False) -> None:
        self.db.execute("INSERT OR IGNORE INTO bad VALUES (?, ?, ?)", (_blob(name), _blob(reason), packing))

    def save(self, out: Path) -> "Plan":
        """Keep it in OUT, all of it or nothing; the plan there."""
        hidden = out / f"{PLAN}.tmp"
        hidden.unlink(missing_ok=True)
        self.db.execute("VACUUM INTO ?", (str(hidden),))
        with open(hidden, "rb") as file:
            os.fsync(file.fileno())
        os.replace(hidden, out / PLAN)
        return load_plan(out)

    def difference(self, out: Path) -> str:
        """In which file the plan that OUT holds differs from this one, in words; empty if in none."""
        self.db.execute("ATTACH ? AS old", (str(out / PLAN),))
        least, sides = "", set[str]()
        for side, good, name in self.db.execute(CHANGES.format("main")):
            file = json.loads(name)[0][0] if good else _text(name)
            if not sides or file < least:
                least, sides = file, set()
            if file == least:
                sides.add(side)
        self.db.execute("DETACH old")
        words = {"now": "is new", "old": "is gone"}
        return f"{least} {'has changed' if len(sides) > 1 else words[sides.pop()]}" if sides else ""


def load_plan(out: Path) -> Plan:
    """The plan that OUT holds.

    Raises:
        ValueError: it is damaged.
    """
    try:
        plan = Plan(sqlite3.connect(out / PLAN, isolation_level=None))
        plan["settings"]
    except (sqlite3.DatabaseError, ValueError) as error:
        raise ValueError(f"{out / PLAN}: not usable ({error}); delete {out} and pack again") from error
    return plan


def list_all(settings: Settings, parts: tuple[Part, ...], held: Iterable[str] = ()) -> Plan:
    """List the folders, match their files by key, and put the samples in the order that seed and keys give.

    Whatever the number of files, they are in memory only one by one: the database sorts outside of it. `held` are
    keys that may not come again.
    """
    plan = Plan(sqlite3.connect("", isolation_level=None))  # a hidden file of the system's, gone with the process
    plan.db.executescript(SCHEMA + WHILE_LISTING)
    plan.db.execute("BEGIN")
    plan.db.executemany("INSERT INTO found (key, side) VALUES (?, ?)", ((_blob(key), HELD) for key in held))
    for side, part in enumerate(parts):
        plan.db.executemany("INSERT INTO found VALUES (?, ?, ?, ?, ?, ?)", _found(plan, side, part))
    plan.db.executemany("INSERT INTO matched VALUES (?, ?, ?, ?, ?)", _matched(plan, settings, parts))
    names = plan.db.execute("SELECT key, names FROM matched ORDER BY rowid")
    inputs = fingerprint(settings, ((_text(key), files) for key, files in names), plan.bad)
    plan.db.execute("INSERT INTO samples SELECT key, names, places, bytes FROM matched ORDER BY digest")
    plan.note(settings=asdict(settings), inputs=inputs)
    plan.db.execute("COMMIT")
    plan.db.executescript(AND_THEN)
    return plan


def _found(plan: Plan, side: int, part: Part) -> Iterator[tuple[bytes, int, bytes, int, int, str]]:
    for one in list_part(part):
        if isinstance(one, Bad):
            plan._add_bad(*one)
        else:
            key, (name, size, mtime_ns, place) = one
            yield _blob(key), side, _blob(name), size, mtime_ns, json.dumps(place) if place else "[]"


def _matched(plan: Plan, settings: Settings, parts: tuple[Part, ...]) -> Iterator[tuple[bytes, bytes, str, str, int]]:
    """The samples in the order of their keys; files that are none are noted as bad."""
    rows = plan.db.execute("SELECT * FROM found ORDER BY key, side, name")
    for blob, group in groupby(rows, itemgetter(0)):
        key, files = _text(blob), dict[int, tuple[tuple[str, int], str]]()
        for _, side, name, size, mtime_ns, place in group:
            if side in files and side != HELD:
                plan._add_bad(_text(name), f"same key {key} as {files[side][0][0]}")
            else:
                files[side] = ((_text(name or b""), size), f"[{mtime_ns}, {place}]")
        held = files.pop(HELD, None)
        lacks = [part.missing for side, part in enumerate(parts) if side not in files]
        if held and files:
            lacks = ["key is in the set already"]
        names = [name for name, _ in files.values()]
        if lacks and files:
            plan._add_bad(names[0][0], ", ".join(lacks))
        elif files:
            places = f"[{', '.join(place for _, place in files.values())}]"
            size = reckon(settings, names) if settings.bytes else 0
            yield _digest(f"{settings.seed}:{key}"), blob, json.dumps(names), places, size


def fingerprint(settings: Settings, samples: Iterable[tuple[str, str]], bad: Iterable[Bad]) -> str:
    """Of the settings and of all names and sizes; not of times, so that a copy of the folder has the same.

    `samples` are keys in their order, and `[[name, size], ...]` of the files of each as JSON.
    """
    # a setting with a default is younger than some sets, which must be known again
    unset = {one.name for one in fields(settings) if getattr(settings, one.name) == one.default}
    stated = {name: value for name, value in asdict(settings).items() if name not in unset and name != "edges"}
    digest = hashlib.sha256(f"[{json.dumps(stated)}, [".encode())
    for number, (key, files) in enumerate(samples):
        digest.update(f"{', ' if number else ''}[{json.dumps(key)}, {files}]".encode())
    digest.update(b"], [")
    for number, one in enumerate(bad):
        digest.update(f"{', ' if number else ''}{json.dumps(one)}".encode())
    digest.update(b"]]")
    return digest.hexdigest()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _blob(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")  # bytes that sort as the names do


def _text(blob: bytes) -> str:
    return blob.decode("utf-8", "surrogatepass")
