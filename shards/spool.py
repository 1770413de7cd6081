"""Sources that cannot be read here and there, .tar.gz and .parquet: their members in one hidden plain tar."""

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from p2p.data.encoded import first_line
from shards.archives import Archive, Inside, look_through
from shards.listing import SPLITS
from shards.trees import Folder, Tree
from shards.writer import aside, tar_end, tar_header, tar_padding

SPOOL = ".source-{}.tar"
GZIPPED = (".tar.gz", ".tgz")
PIECE = 2**20
ABSURD = 100
"""Pictures are compressed already; what inflates to so many times its size, and to `HARMLESS` bytes, is an attack."""
HARMLESS = 2**30
ROWS = 16
"""Of a parquet file that are read at a time."""
MAGIC = {
    b"\x89PNG": ".png", b"GIF8": ".gif", b"RIFF": ".webp", b"BM": ".bmp", b"II*\0": ".tif", b"MM\0*": ".tif",
}  # fmt: skip


def open_tree(source: str, hidden: Path) -> Tree:
    """The files of a source: FOLDER, FILE.tar, .tar.gz, .tgz, .zip, or FILE.parquet#COLUMN.

    Those that must be run through from their beginning are written into the folder `hidden`, as one plain tar.

    Raises:
        ValueError: it is damaged, or a parquet file without such a column.
    """
    path, name = Path(source), source.lower()
    if path.is_dir():
        return Folder(path)
    if "#" in source and not path.exists():
        file, _, column = source.rpartition("#")
        return Inside(Archive(_spool(Path(file), hidden, column), source))
    if path.is_file() and name.endswith(".parquet"):
        raise ValueError(f"{path}: which column? Give {path}#COLUMN; it has {', '.join(_columns(path))}")
    if path.is_file() and name.endswith(GZIPPED):
        path = _spool(path, hidden, "")
    elif not path.is_file() or not name.endswith((".tar", ".zip")):
        return Folder(path)
    return look_through(Inside(Archive(path, source)), SPLITS)


def _spool(path: Path, hidden: Path, column: str) -> Path:
    """The hidden tar of a source, written unless an interrupted run has; it has the time of its source."""
    files = _parquets(path) if column else [path]
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    tar = hidden / SPOOL.format(hashlib.sha256(repr((stats, column)).encode()).hexdigest()[:16])
    if not tar.exists():
        hidden.mkdir(parents=True, exist_ok=True)
        print(f"{path}: its files go into one hidden tar in {hidden} until all is packed")
        with aside(tar) as out:
            _write_rows(files, column, out) if column else _inflate(path, out)
    latest = max(mtime_ns for _, _, mtime_ns in stats)
    os.utime(tar, ns=(latest, latest))
    return tar


def _inflate(path: Path, out: BinaryIO) -> None:
    most = max(HARMLESS, ABSURD * path.stat().st_size)
    try:
        with gzip.open(path) as source:
            while piece := source.read(PIECE):
                out.write(piece)
                if out.tell() > most:
                    raise ValueError(
                        f"{path}: inflates to more than {ABSURD} times its size; this is no set of pictures"
                    )
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: not a usable archive ({error}); fetch it again") from error


def _parquets(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted(path.glob("*.parquet") if path.is_dir() else path.parent.glob(path.name))
    if not files:
        raise ValueError(
            f"{path}: no parquet file here; give FILE.parquet#COLUMN, 'train-*.parquet#COLUMN', FOLDER#COLUMN"
        )
    return files


def _write_rows(files: list[Path], column: str, out: BinaryIO) -> None:
    """A tar with a file for each row: `00000012.jpg`, and of several parquet files `00003/00000012.jpg`."""
    most = max(HARMLESS, ABSURD * sum(file.stat().st_size for file in files))
    for number, file in enumerate(files):
        before = f"{number:05d}/" if len(files) > 1 else ""
        for row, data in enumerate(_values(file, column)):
            out.write(tar_header(f"{before}{row:08d}{_extension(data)}", len(data)) + data + tar_padding(len(data)))
            if out.tell() > most:
                raise ValueError(f"{file}: holds more than {ABSURD} times its size; this is no set of pictures")
    out.write(tar_end(out.tell()))


def _extension(data: bytes) -> str:
    return next((extension for magic, extension in MAGIC.items() if data.startswith(magic)), ".jpg")


def _values(path: Path, column: str) -> Iterator[bytes]:
    """The encoded pictures of a column; nothing where a row has none."""
    if column not in (held := _columns(path)):
        raise ValueError(f"{path}: no column {column!r} of pictures; give one of {', '.join(held) or '(it has none)'}")
    try:
        for batch in _parquet(path).iter_batches(ROWS, columns=[column]):
            for value in batch.column(0).to_pylist():
                yield (value.get("bytes") if isinstance(value, dict) else value) or b""
    except (OSError, ValueError) as error:  # pyarrow's own are of these
        raise ValueError(f"{path}: not a usable parquet file ({first_line(error)}); fetch it again") from error


def _columns(path: Path) -> list[str]:
    """Columns that hold files: bytes, or Hugging Face's images, which are {bytes, path}."""
    return [field.name for field in _parquet(path).schema_arrow if _holds_files(field.type)]


def _holds_files(kind: Any) -> bool:
    if str(kind).startswith("struct<"):
        return any(field.name == "bytes" and _holds_files(field.type) for field in kind)
    return str(kind) in ("binary", "large_binary")


def _parquet(path: Path) -> Any:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ValueError(f"{path}: reading it needs pyarrow; run `pip install p2p[parquet]`") from error
    try:
        return ParquetFile(path)
    except (OSError, ValueError) as error:  # pyarrow's own are of these
        raise ValueError(f"{path}: not a usable parquet file ({first_line(error)}); fetch it again") from error
