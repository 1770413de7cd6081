"""Packing straight from archives: the same bytes as from a folder, and nothing that a hostile one wants."""

import builtins
import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shards.trees import LARGEST
from tests.test_pack import COUNT, files, keys, make_pairs, noise, pack, refusal, report, samples, save
from tests.test_pack_labels import make

INPUT = ("--input", "right", "--samples", 5)


def tarred(path: Path, folder: Path, mode: str = "w", inside: str = ".") -> Path:
    form = tarfile.PAX_FORMAT if "gz" in mode else tarfile.GNU_FORMAT
    with tarfile.open(path, mode, format=form) as archive:
        archive.add(folder, inside)
    return path


def zipped(path: Path, contents: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


def gzipped(path: Path, folder: Path) -> Path:
    return tarred(path, folder, "w:gz", "facades")


ARCHIVES: dict[str, Callable[[Path, Path], Path]] = {
    "flat.tar": tarred,
    "wrapped.tar": lambda path, folder: tarred(path, folder, inside="facades"),
    "wrapped.tar.gz": gzipped,
    "wrapped.tgz": gzipped,
    "deflated.zip": lambda path, folder: zipped(path, files(folder)),
    "STORED.ZIP": lambda path, folder: zipped(
        path, {f"facades/{name}": data for name, data in files(folder).items()}, zipfile.ZIP_STORED
    ),
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_pairs(tmp_path_factory.mktemp("source") / "pairs")
    (folder / ".hidden.jpg").write_bytes(b"?")
    return folder


@pytest.fixture(scope="module")
def packed(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "out"
    assert pack("pairs", pairs, out, *INPUT) == 0
    return out


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_gives_the_bytes_of_its_folder(name: str, pairs: Path, packed: Path, tmp_path: Path) -> None:
    archive, out = ARCHIVES[name](tmp_path / name, pairs), tmp_path / "out"
    for processes in (2, 1):  # written, and then known again
        assert pack("pairs", archive, out, *INPUT, processes=processes) == 0
        assert files(out) == files(packed)


def test_sides_may_come_from_different_archives(pairs: Path, tmp_path: Path) -> None:
    argv = (tmp_path / "out", "--samples", 9)
    assert pack("folders", tarred(tmp_path / "x.tar", pairs), zipped(tmp_path / "y.zip", files(pairs)), *argv) == 0
    assert pack("folders", pairs, pairs, tmp_path / "plain", "--samples", 9) == 0
    assert files(tmp_path / "out") == files(tmp_path / "plain")


@pytest.mark.parametrize("inside", [".", "facades"])
def test_splits_in_an_archive_become_sets(inside: str, tmp_path: Path) -> None:
    make_pairs(tmp_path / "in/train", 5)
    make_pairs(tmp_path / "in/test", 3)
    archive = tarred(tmp_path / "a.tgz", tmp_path / "in", "w:gz", inside)
    assert pack("pairs", archive, tmp_path / "out", "--input", "left") == 0
    assert (len(keys(tmp_path / "out/train")), len(keys(tmp_path / "out/test"))) == (5, 3)
    assert all(not path.name.startswith(".") for path in (tmp_path / "out").rglob("*"))


def test_label_maps_come_from_an_archive(tmp_path: Path) -> None:
    root = make(tmp_path / "in", ["0", "sub/1"])
    assert pack("labels", root, tmp_path / "plain", "--classes", 35) == 0
    assert pack("labels", tarred(tmp_path / "a.tar", root, inside="set"), tmp_path / "out", "--classes", 35) == 0
    assert files(tmp_path / "out") == files(tmp_path / "plain")


# Parquet


def write_parquet(path: Path, columns: dict[str, list[Any]]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(pyarrow.table(columns), path, row_group_size=4)
    return path


def test_images_of_hugging_face(pairs: Path, tmp_path: Path) -> None:
    contents = [data for name, data in files(pairs).items() if name != ".hidden.jpg"]
    images = [{"bytes": data, "path": "any.png"} for data in contents]
    for number in range(2):
        write_parquet(tmp_path / f"set/{number}.parquet", {"image": images, "plain": contents, "n": [0] * COUNT})
    one, out = tmp_path / "set/0.parquet", tmp_path / "out"
    assert pack("pairs", f"{one}#image", out, *INPUT) == 0
    found = {sample["__key__"].decode(): sample["ab.jpg"] for sample in samples(out)}
    assert found == {f"{row:08d}": data for row, data in enumerate(contents)}
    assert pack("folders", f"{one}#image", f"{one}#plain", tmp_path / "two") == 0
    assert all(sample["a.jpg"] == sample["b.jpg"] for sample in samples(tmp_path / "two"))
    assert pack("pairs", f"{tmp_path}/set/*.parquet#plain", tmp_path / "glob", *INPUT) == 0
    assert pack("pairs", f"{tmp_path}/set#plain", tmp_path / "both", *INPUT) == 0
    assert files(tmp_path / "both") == files(tmp_path / "glob")
    assert set(keys(tmp_path / "both")) == {f"{file:05d}/{row:08d}" for file in range(2) for row in range(COUNT)}


def test_a_row_may_lack_its_picture(tmp_path: Path) -> None:
    data = save(tmp_path / "0.png", noise(0)).read_bytes()
    path = write_parquet(tmp_path / "a.parquet", {"image": [{"bytes": data, "path": None}, None, {"bytes": b"?"}]})
    assert pack("pairs", f"{path}#image", tmp_path / "out", "--input", "left") == 2
    assert keys(tmp_path / "out") == ["00000000"]
    assert report(tmp_path / "out") == {"00000001.jpg": "empty file (0 bytes)", "00000002.jpg": "not an image"}


def test_a_parquet_file_needs_a_column_of_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"image": [b"?"], "n": [0]})
    (tmp_path / "broken.parquet").write_bytes(path.read_bytes()[:-9])
    more = (tmp_path / "out", "--input", "left")
    assert refusal(capsys, "pairs", path, *more).endswith(f"which column? Give {path}#COLUMN; it has image")
    assert "no column 'n' of pictures; give one of image" in refusal(capsys, "pairs", f"{path}#n", *more)
    assert "not a usable parquet file" in refusal(capsys, "pairs", f"{tmp_path}/broken.parquet#image", *more)
    assert "no parquet file here" in refusal(capsys, "pairs", f"{tmp_path}/none.parquet#image", *more)
    assert not (tmp_path / "out").exists()


def test_without_pyarrow_the_remedy_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    importer = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return importer(name, *args)

    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr(builtins, "__import__", without)
    line = refusal(capsys, "pairs", f"{tmp_path}/a.parquet#image", tmp_path / "out", "--input", "left")
    assert line.endswith("run `pip install p2p[parquet]`")


# Hostile and damaged ones


def member(name: str, data: bytes = b"", **attributes: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info, data


def test_what_a_tar_should_not_hold_is_named(tmp_path: Path) -> None:
    jpeg = save(tmp_path / "source.jpg", noise(0)).read_bytes()
    target = tmp_path / "victim.jpg"
    hostile = [
        member("good.jpg", jpeg), member("./also.jpg", jpeg), member("..x/odd.jpg", jpeg), member("../up.jpg", jpeg),
        member(str(target), jpeg), member("sub/../../up2.jpg", jpeg), member("twice.jpg", jpeg),
        member("./twice.jpg", jpeg), member("soft.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("hard.jpg", type=tarfile.LNKTYPE, linkname="good.jpg"), member("tty.jpg", type=tarfile.CHRTYPE),
        member("pipe.jpg", type=tarfile.FIFOTYPE), member("folder.jpg", type=tarfile.DIRTYPE),
    ]  # fmt: skip
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for info, data in hostile:
            archive.addfile(info, io.BytesIO(data))
    before = {path.name for path in tmp_path.iterdir()}
    assert pack("pairs", tmp_path / "a.tar", tmp_path / "out/set", "--input", "left") == 2
    assert sorted(keys(tmp_path / "out/set")) == ["also", "good"]  # `..x` is hidden
    out = "its name leads out of the archive"
    assert report(tmp_path / "out/set") == {
        "../up.jpg": out, str(target): out, "sub/../../up2.jpg": out, "soft.jpg": "a link, not a file",
        "hard.jpg": "a link, not a file", "tty.jpg": "not a regular file", "pipe.jpg": "not a regular file",
        "twice.jpg": "stands in the archive more than once",
    }  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == before | {"out"}


def patched(path: Path, name: str, offset: int, field: bytes) -> None:
    """Change a field of a member's entry in the directory of a zip."""
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\1\2", 0, data.rindex(name.encode())) + offset
    data[at : at + len(field)] = field
    path.write_bytes(data)


def test_what_a_zip_should_not_hold_is_named(tmp_path: Path) -> None:
    jpeg = save(tmp_path / "source.jpg", noise(0)).read_bytes()
    names = ["good", "secret", "more", "less", "huge", "wrong", "far", "kind"]
    path = zipped(tmp_path / "a.zip", {f"{name}.jpg": jpeg for name in names} | {"../up.jpg": jpeg, "/abs.jpg": jpeg})
    patched(path, "secret.jpg", 8, struct.pack("<H", 1))
    patched(path, "kind.jpg", 10, struct.pack("<H", 14))
    patched(path, "wrong.jpg", 16, b"\0\0\0\0")
    patched(path, "more.jpg", 24, struct.pack("<I", 10))
    patched(path, "less.jpg", 24, struct.pack("<I", len(jpeg) + 1))
    patched(path, "huge.jpg", 24, struct.pack("<I", LARGEST + 1))
    patched(path, "far.jpg", 42, struct.pack("<I", path.stat().st_size - 8))
    assert pack("pairs", path, tmp_path / "out", "--input", "left") == 2
    assert keys(tmp_path / "out") == ["good"]
    other = "cannot be read (it is not the bytes that the archive says)"
    assert report(tmp_path / "out") == {
        "secret.jpg": "encrypted; unpack it with its password first",
        "kind.jpg": "compressed by method 14; deflate is read",
        "wrong.jpg": other,
        "more.jpg": other,
        "less.jpg": other,
        "huge.jpg": f"has {LARGEST + 1} bytes; a picture has {LARGEST} at most",
        "far.jpg": "cannot be read (the archive ends before it)",
        "../up.jpg": "its name leads out of the archive",
        "/abs.jpg": "its name leads out of the archive",
    }


def test_a_member_that_inflates_without_end_is_stopped(tmp_path: Path) -> None:
    bomb = zipped(
        tmp_path / "a.zip", {"bomb.jpg": bytes(2**26), "good.jpg": save(tmp_path / "g.jpg", noise(0)).read_bytes()}
    )
    patched(bomb, "bomb.jpg", 24, struct.pack("<I", 100))
    assert pack("pairs", bomb, tmp_path / "out", "--input", "left") == 2
    assert list(report(tmp_path / "out")) == ["bomb.jpg"]


def test_a_gzip_bomb_is_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.spool.HARMLESS", 2**22)
    (tmp_path / "bomb.tgz").write_bytes(gzip.compress(bytes(2**24), 9))
    line = refusal(capsys, "pairs", tmp_path / "bomb.tgz", tmp_path / "out", "--input", "left")
    assert "inflates to more than 100 times its size" in line
    assert not (tmp_path / "out").exists()


def last_member(data: bytes) -> int:
    """Where the header of a tar's last member begins."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()[-1].offset


def damaged_header(data: bytes) -> bytes:
    at = last_member(data)
    return data[:at] + b"\xff" + data[at + 1 :]


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("a.tar", lambda data: data[: last_member(data) + 600], "it ends inside"),
        ("a.tar", lambda data: data[: last_member(data) + 300], "no header and no end mark at byte"),
        ("a.tar", lambda data: data[: last_member(data)], "no header and no end mark at byte"),
        ("a.tar", lambda data: data[:100], "truncated header"),
        ("a.tar", lambda data: b"", "empty file"),
        ("a.tar", damaged_header, "no header and no end mark at byte"),
        ("a.zip", lambda data: data[: len(data) // 2], "not a zip file"),
        ("a.tgz", lambda data: data[: len(data) // 2], "ended before"),
        ("a.tgz", lambda data: data[:500] + b"\0" * 40 + data[540:], ""),
        ("a.tgz", lambda data: b"no gzip at all", "Not a gzipped file"),
        ("a.tgz", lambda data: gzip.compress(b"no tar at all" * 100), "invalid header"),
    ],
)  # fmt: skip
def test_a_damaged_archive_is_refused_in_a_line(
    name: str, damage: Callable[[bytes], bytes], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_pairs(tmp_path / "in", 12)
    makers = {"a.tar": tarred, "a.tgz": gzipped, "a.zip": lambda path, folder: zipped(path, files(folder))}
    path = makers[name](tmp_path / name, source)
    path.write_bytes(damage(path.read_bytes()))
    line = refusal(capsys, "pairs", path, tmp_path / "out", "--input", "left")
    assert line.startswith(f"{path}: not a usable archive (")
    assert reason in line
    assert not (tmp_path / "out").exists()


def test_a_header_that_asks_for_much_memory_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, LARGEST + 512
    with open(tmp_path / "a.tar", "wb") as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT))
        file.truncate(LARGEST + 4096)  # a hole, no bytes
    line = refusal(capsys, "pairs", tmp_path / "a.tar", tmp_path / "out", "--input", "left")
    assert "it has a header of" in line


def test_an_archive_that_changes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = make_pairs(tmp_path / "in", 3)
    archive, out = zipped(tmp_path / "a.zip", files(pairs)), tmp_path / "out"
    assert pack("pairs", archive, out, "--input", "left") == 0
    zipped(archive, files(pairs) | {"more.jpg": (pairs / "0.jpg").read_bytes()})
    assert "other files or settings" in refusal(capsys, "pairs", archive, out, "--input", "left")
