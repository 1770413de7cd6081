"""Public sets from a real server that breaks: what was transferred stays, what is not whole is never packed."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from p2p.data import remote
from p2p.data.format import read_index
from shards import download, fetch
from tests.servers import Web, web_server

ROOT = Path(__file__).parents[1]
FACADES = {"train": 400, "val": 100, "test": 106}


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same tries with short waits."""
    monkeypatch.setattr(remote, "TRIES", 3)
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(remote, "LONGEST_WAIT_S", 0.01)


def make_archive(folder: Path, name: str, counts: dict[str, int], width: int = 8) -> Path:
    """NAME.tar.gz as the authors' are: a folder NAME, in it train, val, ..., in these pairs, here of noise."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    with tarfile.open(folder / f"{name}.tar.gz", "w:gz", compresslevel=1) as tar:
        for split, count in counts.items():
            for number in range(1, count + 1):
                file = io.BytesIO()
                pixels = random.integers(0, 256, (width // 2, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(file, "PNG", compress_level=0)
                info = tarfile.TarInfo(f"{name}/{split}/{number}.png")
                info.size = file.tell()
                file.seek(0)
                tar.addfile(info, file)
    return folder / f"{name}.tar.gz"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Web]:
    """A server of maps.tar.gz with three pairs and one, of some 8,000 bytes."""
    make_archive(tmp_path / "served", "maps", {"train": 3, "val": 1}, width=32)
    with web_server(tmp_path / "served") as web:
        yield web


def run(web: Web, out: Path, *options: str, name: str = "maps") -> int:
    return download.main([name, str(out), "--from", web.url, "--processes", "1", *options])


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_one_command_gets_and_packs_a_set_and_a_second_does_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = make_archive(tmp_path / "served", "facades", FACADES)
    out, kept = tmp_path / "data" / "facades", tmp_path / "data" / "facades.tar.gz"
    with web_server(tmp_path / "served") as web:
        assert run(web, out, "--samples", "150", name="facades") == 0
        said = capsys.readouterr().out
        indexes = {split: read_index(out / split) for split in FACADES}
        assert {split: index.samples for split, index in indexes.items()} == FACADES
        assert {index.layout for index in indexes.values()} == {"right"}
        assert len(indexes["train"].shards) == 3
        assert said.count("as published") == 3
        assert f"sha256 {sha256(archive)}: " in said
        assert "configs/facades.yaml" in said
        assert sorted(path.name for path in kept.parent.iterdir()) == ["facades", "facades.tar.gz"]
        assert kept.read_bytes() == archive.read_bytes()

        asked, kept_ns = web.requests.total(), [path.stat().st_mtime_ns for path in sorted(out.rglob("*"))]
        kept.unlink()
        assert run(web, out, name="facades") == 0
        assert web.requests.total() == asked
        assert [path.stat().st_mtime_ns for path in sorted(out.rglob("*"))] == kept_ns
    assert capsys.readouterr().out.count("as published") == 3
    assert run(web, out, "--input", "left", name="facades") == 2
    assert "has the right half for its input, not the left" in capsys.readouterr().err


def test_a_broken_transfer_goes_on_where_it_broke(
    served: Web, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "PIECE", 1000)
    out, part = tmp_path / "maps", tmp_path / "maps.tar.gz.part"
    served.fail("/maps.tar.gz", "ok", "ok", 500, "ok", "break", "drop", 503)  # the size, then parts
    assert run(served, out) == 2
    said = capsys.readouterr().err
    assert "HTTP 500" in said
    assert said.splitlines()[-1].endswith("(after 3 tries); the same command goes on where it stopped")
    assert part.stat().st_size == 2000
    assert not out.exists()

    asked = len(served.ranges["/maps.tar.gz"])
    assert run(served, out) == 2  # for the published counts are others
    ranges = served.ranges["/maps.tar.gz"][asked:]
    assert ranges[:3] == ["bytes=0-0", "bytes=2000-2999", "bytes=3000-3999"]
    assert not part.exists()
    assert (tmp_path / "maps.tar.gz").read_bytes() == (tmp_path / "served" / "maps.tar.gz").read_bytes()
    assert read_index(out / "train").samples == 3
    assert f"{out / 'train'}: 3 pairs, but 1096 are published" in capsys.readouterr().err


def test_an_interrupted_transfer_goes_on(tmp_path: Path) -> None:
    make_archive(tmp_path / "served", "maps", {"train": 1, "val": 1}, width=2000)
    out, part = tmp_path / "maps", tmp_path / "maps.tar.gz.part"
    with web_server(tmp_path / "served") as web:
        web.fail("/maps.tar.gz", "ok", "ok", "stall")
        command = [sys.executable, "-m", "shards.download", "maps", str(out), "--from", web.url]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        while web.requests["/maps.tar.gz"] < 3:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert "interrupted; the same command goes on" in process.communicate()[1]
        assert process.returncode == 130
        assert part.stat().st_size == fetch.PIECE
        run(web, out)
        assert web.ranges["/maps.tar.gz"][4].startswith(f"bytes={fetch.PIECE}-")
    assert read_index(out / "train").samples == 1


def test_a_server_without_ranges_sends_all_anew(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "served", "maps", {"train": 2, "val": 1})
    (tmp_path / "maps.tar.gz.part").write_bytes(b"of another transfer")
    with web_server(tmp_path / "served", ranges=False) as web:
        run(web, tmp_path / "maps")
    assert (tmp_path / "maps.tar.gz").read_bytes() == archive.read_bytes()
    assert read_index(tmp_path / "maps" / "train").samples == 2


def test_another_checksum_is_refused_and_nothing_is_lost(
    served: Web, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, wrong, right = tmp_path / "maps", "0" * 64, sha256(tmp_path / "served" / "maps.tar.gz")
    assert run(served, out, "--sha256", wrong) == 2
    part = tmp_path / "maps.tar.gz.part"
    assert f"{part}: has the SHA-256 {right}, not {wrong}; " in capsys.readouterr().err
    assert not out.exists()
    asked = len(served.ranges["/maps.tar.gz"])
    run(served, out, "--sha256", right.upper())
    assert served.ranges["/maps.tar.gz"][asked:] == ["bytes=0-0"]  # its size
    assert read_index(out / "train").samples == 3


def test_a_kept_archive_is_held_against_the_checksum(
    served: Web, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_archive(tmp_path, "maps", {"train": 1, "val": 1})
    assert run(served, tmp_path / "maps", "--sha256", "0" * 64) == 2
    assert "maps.tar.gz: has the SHA-256" in capsys.readouterr().err
    assert not served.requests


def test_a_set_that_is_not_there_is_said_in_a_line(
    served: Web, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(served, tmp_path / "shoes", name="edges2shoes") == 2
    said = capsys.readouterr().err
    assert said == f"{served.url}/edges2shoes.tar.gz: HTTP 404 File not found; give a mirror by --from URL\n"
    assert not (tmp_path / "edges2shoes.tar.gz.part").exists()


@pytest.mark.parametrize(
    ("damage", "reason"), [("cut", "end-of-stream"), ("bit", "is no whole .tar.gz"), ("page", "Not a gzipped file")]
)
def test_a_damaged_archive_is_never_packed(
    damage: str, reason: str, served: Web, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "served" / "maps.tar.gz"
    data = bytearray(archive.read_bytes())
    if damage == "bit":
        data[len(data) // 2] ^= 4
    archive.write_bytes({"cut": data[:-5], "bit": data, "page": b"<html>a login</html>"}[damage])
    assert run(served, tmp_path / "maps") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{tmp_path / 'maps.tar.gz.part'}: is no whole .tar.gz (")
    assert reason in said
    assert said.count("\n") == 1
    assert not (tmp_path / "maps.tar.gz").exists()
    assert not (tmp_path / "maps").exists()


def test_more_than_the_server_has_is_told(served: Web, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "maps.tar.gz.part").write_bytes(bytes(10**6))
    assert run(served, tmp_path / "maps") == 2
    assert "delete it and run again" in capsys.readouterr().err


def test_a_disk_that_is_too_small_is_told_before_the_transfer(
    served: Web, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.truncate(tmp_path / "served" / "maps.tar.gz", 2**43)
    assert run(served, tmp_path / "maps") == 2
    assert "MB are needed for the archive and what is made of it" in capsys.readouterr().err
    assert served.ranges["/maps.tar.gz"] == ["bytes=0-0"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["shoes", "out"], "facades, maps, edges2shoes, edges2handbags, night2day"),
        (["maps", "s3://bucket/out"], "s3://bucket/out is no folder of this machine"),
        (["maps", "out", "--sha256", "12"], "give 64 hexadecimal digits"),
        (["maps", "out", "--samples", "0"], "must be at least 1"),
        (["maps", "out", "--sampels", "10"], "--sampels"),
        (["maps", "out", "--input", "top"], "--input"),
    ],
)
def test_mistakes_are_told_in_a_line_before_anything_is_done(
    arguments: list[str], reason: str, served: Web, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        download.main([*arguments, "--from", served.url])
    said = capsys.readouterr().err
    assert caught.value.code == 2
    assert reason in said.replace("'", "")
    assert said.count("\n") == 1
    assert not served.requests


def test_every_recipe_is_there() -> None:
    assert all((ROOT / "configs" / f"{known.recipe}.yaml").is_file() for known in download.SETS.values())
