"""The packer at scale: one pass, flat memory, checks without decoding, sets that grow, stores, other edges."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from p2p.data.encoded import decode
from p2p.data.format import read_index
from p2p.data.rows import check_shards
from shards.arguments import parse
from shards.jpeg import glance
from shards.listing import Part
from shards.pictures import Picture, look
from shards.plan import list_all
from shards.trees import Folder
from shards.writer import tar_header
from tests.conftest import SHARED
from tests.test_pack import ROOT, files, keys, make_pairs, noise, pack, refusal, report, samples, save
from tests.test_pack_labels import make

# Memory

LISTING = """
import resource, sys
from pathlib import Path
from shards.arguments import parse
from shards.listing import Part
from shards.plan import list_all
from shards.trees import Folder
settings = parse(["pairs", sys.argv[1], "out", "--input", "left", "--samples", "10"]).settings
plan = list_all(settings, (Part(Folder(Path(sys.argv[1]))),))
shards = sum(1 for _ in plan.cut(settings, 0, plan.count))
print(plan.count, shards, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_the_memory_of_a_listing_does_not_grow_with_the_files(tmp_path: Path) -> None:
    found = []
    for count in (500, 25_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        (folder / "0.jpg").touch()
        for number in range(1, count):
            os.link(folder / "0.jpg", folder / f"{number}.jpg")
        command = [sys.executable, "-c", LISTING, folder]
        found.append(list(map(int, subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.split())))
    assert [one[:2] for one in found] == [[500, 50], [25_000, 2_500]]
    assert found[1][2] < found[0][2] + 8 * 1024  # KiB; a list of so many names and sizes alone takes more


def test_the_order_is_that_of_the_digests(tmp_path: Path) -> None:
    make_pairs(tmp_path / "in", 9)
    settings = parse(["pairs", "in", "out", "--input", "left", "--seed", "3"]).settings
    plan = list_all(settings, (Part(Folder(tmp_path / "in")),))
    found = [sample.key for sample in plan.samples(0, plan.count)]
    assert found == sorted(found, key=lambda key: hashlib.sha256(f"3:{key}".encode()).digest())
    assert [sample.key for sample in plan.samples(2, 5)] == found[2:5]


# Checks without decoding


def jpegs() -> list[bytes]:
    """JPEGs of many kinds."""
    options: list[dict[str, object]] = [
        {}, {"quality": 20}, {"optimize": True}, {"subsampling": 0}, {"progressive": True}, {"restart_marker_rows": 1},
        {"exif": turned_exif()}, {"comment": b"\xff\xd9"},
    ]  # fmt: skip
    found = []
    for mode in ("RGB", "L", "CMYK"):
        for some in options:
            file = BytesIO()
            noise(len(found), height=6, width=9).resize((70, 52)).convert(mode).save(file, "JPEG", **some)
            found.append(file.getvalue())
    return found


def turned_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def by_decoding(data: bytes) -> Picture | str:
    try:
        return look(decode(data), data)[0]
    except ValueError as error:
        return str(error)


def damage(data: bytes, chance: random.Random) -> bytes:
    """One to three changes of a kind: bits, bytes, holes, cuts, moved and inserted pieces, markers."""
    found, kind = bytearray(data), chance.randrange(7)
    for _ in range(chance.choice((1, 1, 3))):
        at = chance.randrange(2, chance.choice((len(found), min(len(found), 700))))
        length = chance.randrange(1, 60)
        match kind:
            case 0:
                found[at] ^= 1 << chance.randrange(8)
            case 1:
                found[at] = chance.randrange(256)
            case 2:
                found[at : at + length] = bytes(length)
            case 3:
                return bytes(found[:at])
            case 4:
                found[at:at] = bytes((255, chance.randrange(256)))
            case 5:
                found[at : at + length] = b""
            case 6:
                found[at:at] = found[len(found) // 2 :][:length]
        if len(found) < 700:
            break
    return bytes(found)  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")  # PIL's, of damaged metadata
def test_a_glance_finds_what_a_full_decode_finds() -> None:
    sources, chance = jpegs(), random.Random(0)
    taken = 0
    for data in [*sources, *(damage(chance.choice(sources), chance) for _ in range(6000))]:
        if (found := glance(data)) is not None:
            taken += 1
            assert found == by_decoding(data)
    assert taken > 1000
    assert [glance(data) is not None for data in sources[:8]] == [True] * 4 + [False, True, False, True]


def test_every_cut_is_found() -> None:
    data = jpegs()[0]
    for end in range(len(data) - 1):
        assert glance(data[:end]) is None
    assert glance(data + b"more") == by_decoding(data)


@pytest.mark.skipif(not (SHARED / "facades/train").is_dir(), reason="no facades beside this checkout")
def test_real_photographs_need_no_decode() -> None:
    for path in sorted((SHARED / "facades/train").iterdir())[:20]:
        assert glance(path.read_bytes()) == by_decoding(path.read_bytes())


@pytest.mark.parametrize("name", ["a", "n" * 99, "n" * 100, "ü" * 30, f"{'d' * 90}/{'e' * 90}", "\udcff"])
def test_headers_are_those_of_tarfile(name: str) -> None:
    for size in (0, 7, 2**20 + 1, 8**11 - 1):
        info = tarfile.TarInfo(name)
        info.size = size
        assert tar_header(name, size) == info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")


# Bad samples, in one pass


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 pairs of which every third is bad."""
    folder = tmp_path_factory.mktemp("source") / "mixed"
    for number in range(30):
        save(folder / f"{number}.png", noise(number, width=31 if number % 3 == 0 else 32))
    return folder


def test_shards_are_cut_before_the_bad_are_known(mixed: Path, tmp_path: Path) -> None:
    assert pack("pairs", mixed, tmp_path / "out", "--input", "left", "--samples", 5, processes=2) == 2
    index, found = read_index(tmp_path / "out"), keys(tmp_path / "out")
    assert sorted(found) == sorted(str(number) for number in range(30) if number % 3)
    assert len(report(tmp_path / "out")) == 10
    assert max(shard.samples for shard in index.shards) <= 5
    every = sorted(map(str, range(30)), key=lambda key: hashlib.sha256(f"0:{key}".encode()).digest())
    cuts = [[key for key in every[at : at + 5] if int(key) % 3] for at in range(0, 30, 5)]
    assert [shard.samples for shard in index.shards] == [len(cut) for cut in cuts if cut]
    assert found == [key for key in every if int(key) % 3]


@pytest.mark.parametrize("count", [1, 19])
def test_so_many_are_held_out_as_asked_for(count: int, mixed: Path, tmp_path: Path) -> None:
    argv = ("pairs", mixed, tmp_path / "out", "--input", "left", "--val", count, "--samples", 4)
    assert pack(*argv, processes=2) == 2
    train, val = keys(tmp_path / "out/train"), keys(tmp_path / "out/val")
    assert len(val) == count
    assert pack("pairs", mixed, tmp_path / "whole", "--input", "left") == 2
    assert train + val == keys(tmp_path / "whole")
    assert report(tmp_path / "out") == report(tmp_path / "whole")


def test_all_good_ones_cannot_be_held_out(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for count in (20, 29):
        assert pack("pairs", mixed, tmp_path / "out", "--input", "left", "--val", count) == 2
        said = capsys.readouterr().err.splitlines()
        assert said[-1] == f"--val {count}: there are only 20 good samples; hold out fewer"
        assert not (tmp_path / "out").exists()


def test_nothing_is_left_of_a_set_without_a_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "in/odd.png", noise(0, width=31))
    capsys.readouterr()
    assert pack("pairs", tmp_path / "in", tmp_path / "out", "--input", "left") == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith(f"{tmp_path / 'in'}: nothing to pack; 1 bad, as odd.png: width 31 is odd")
    assert not (tmp_path / "out").exists()


def test_bytes_bound_what_conversion_makes_larger(tmp_path: Path) -> None:
    for number in range(12):
        save(tmp_path / f"in/{number}.jpg", noise(number, height=40, width=80, mode="CMYK"), quality=5)
    assert pack("pairs", tmp_path / "in", tmp_path / "out", "--input", "left", "--bytes", "70K") == 0
    index = read_index(tmp_path / "out")
    check_shards(tmp_path / "out", index)
    assert max(shard.bytes for shard in index.shards) <= 70 * 1024
    assert any("_" in shard.name for shard in index.shards)
    assert len(set(keys(tmp_path / "out"))) == 12
    before = files(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    assert pack("pairs", tmp_path / "in", tmp_path / "out", "--input", "left", "--bytes", "70K", processes=2) == 0
    assert files(tmp_path / "out") == before


# Sets that grow


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of 9 pairs, and 2 held out."""
    root = tmp_path_factory.mktemp("old")
    make_pairs(root / "in", 11)
    assert pack("pairs", root / "in", root / "out", "--input", "left", "--samples", 4, "--val", 2) == 0
    return root / "out"


def more(folder: Path, count: int = 5, mode: str = "RGB") -> Path:
    for number in range(count):
        save(folder / f"new{number}.png", noise(100 + number, height=20, mode=mode))
    return folder


def test_new_data_are_added_without_touching_the_old(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(old, out)
    before, first = files(out), {name: read_index(out / name) for name in ("train", "val")}
    argv = ("pairs", more(tmp_path / "in"), out, "--input", "left", "--samples", 3, "--val", 1, "--append")
    assert pack(*argv) == 0
    after = files(out)
    assert {name: after[name] for name in before} == before
    for name, new in (("train", 4), ("val", 1)):
        index = read_index(out / name)
        check_shards(out / name, index)
        assert index.shards[: len(first[name].shards)] == first[name].shards
        assert index.samples == first[name].samples + new
        assert (index.smallest, index.largest) == ((16, 16), (20, 16))
        assert read_index(out / name, 0) == first[name]
    assert [s.name for s in read_index(out / "train").shards][-2:] == ["shard-000003.tar", "shard-000004.tar"]
    assert {f"new{number}" for number in range(5)} <= {*keys(out / "train"), *keys(out / "val")}
    capsys.readouterr()
    assert pack(*argv) == 0
    assert capsys.readouterr().out.startswith("nothing new to add: 13 pairs")
    assert files(out) == after


def test_keys_that_are_there_are_refused(old: Path, tmp_path: Path) -> None:
    shutil.copytree(old / "train", tmp_path / "out")
    key = keys(tmp_path / "out")[0]
    save(tmp_path / f"in/{key}.png", noise(0))
    save(tmp_path / "in/new.png", noise(1))
    argv = ("pairs", tmp_path / "in", tmp_path / "out", "--input", "left", "--append")
    assert pack(*argv) == 2
    one = json.loads((tmp_path / "out/report-1.json").read_text())
    assert (one["packed"], one["bad"]) == (1, [{"name": f"{key}.png", "reason": "key is in the set already"}])
    save(tmp_path / "in/newer.png", noise(2))
    assert pack(*argv) == 2
    assert [read_index(tmp_path / "out", number).samples for number in range(3)] == [9, 10, 11]


def test_what_joins_a_set_must_be_of_its_kind(old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, new = tmp_path / "out", more(tmp_path / "in")
    shutil.copytree(old / "train", out)
    before = files(out)
    line = refusal(capsys, "pairs", new, out, "--input", "right", "--append")
    assert line == f"{out}: has layout left, the new data right; they must agree"
    assert "no index.json here" in refusal(capsys, "pairs", new, tmp_path / "none", "--input", "left", "--append")
    line = refusal(capsys, "labels", make(tmp_path / "maps", ["0"]), tmp_path / "none", "--classes", 35, "--append")
    assert f"{tmp_path}/none/train: no index.json here" in line
    assert files(out) == before


def test_colours_do_not_join_a_gray_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    save(tmp_path / "gray/0.png", noise(0, mode="L"))
    assert pack("pairs", tmp_path / "gray", out, "--input", "left") == 0
    before = files(out)
    capsys.readouterr()
    assert pack("pairs", more(tmp_path / "in", 2), out, "--input", "left", "--append") == 2
    reason = "its sides have 3 and 3 channels, those of the set 1 and 1"
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"nothing to pack; 2 bad, as new0.png: {reason}")
    assert files(out) == before
    assert pack("pairs", more(tmp_path / "good", 2, "L"), out, "--input", "left", "--append") == 0
    assert read_index(out).channels == (1, 1)


def interrupted(monkeypatch: pytest.MonkeyPatch, where: str, *argv: object) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(where, interrupt)
        assert pack(*argv) == 130


@pytest.mark.parametrize("where", ["shards.pack.write", "shards.pack.finish", "shards.finish.forget"])
def test_adding_goes_on(where: str, old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ("--input", "left", "--samples", 2, "--val", 1, "--append")
    new = more(tmp_path / "in")
    for name in ("out", "undisturbed"):
        shutil.copytree(old, tmp_path / name)
    assert pack("pairs", new, tmp_path / "undisturbed", *argv) == 0
    interrupted(monkeypatch, where, "pairs", new, tmp_path / "out", *argv)
    assert pack("pairs", new, tmp_path / "out", *argv) == 0
    assert files(tmp_path / "out") == files(tmp_path / "undisturbed")


# Stores


def test_shards_go_to_a_store(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, away, out = make_pairs(tmp_path / "in", 11), tmp_path / "away", tmp_path / "local"
    for folder in ("away/train", "away/val", "tmp"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    argv = ("--input", "left", "--samples", 4, "--val", 2)
    interrupted(monkeypatch, "shards.pack.finish", "pairs", source, f"file://{away}", *argv)
    assert not list((tmp_path / "tmp").rglob("*.tar"))
    there = {path: path.stat().st_mtime_ns for path in away.rglob("*.tar")}
    assert len(there) == 4
    assert pack("pairs", source, f"file://{away}", *argv) == 0
    assert {path: path.stat().st_mtime_ns for path in there} == there
    assert files(away) == files(old)
    assert not list((tmp_path / "tmp").iterdir())
    assert pack("pairs", source, f"file://{away}", *argv) == 0
    new = more(tmp_path / "new")
    shutil.copytree(old, out)
    for target in (f"file://{away}", out):
        assert pack("pairs", new, target, *argv, "--append") == 0
    assert files(away) == files(out)


def test_what_is_in_the_store_is_not_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, away = make_pairs(tmp_path / "in", 9), tmp_path / "away"
    for folder in ("away", "tmp", "other"):
        (tmp_path / folder).mkdir()
    argv = ("pairs", source, f"file://{away}", "--samples", 4, "--input", "left")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    interrupted(monkeypatch, "shards.pack.finish", *argv)
    first, second = away / "shard-000000.tar", away / "shard-000001.npy"
    before = first.stat().st_mtime_ns
    second.write_bytes(bytes(second.stat().st_size))  # of the right size, but of another run
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "other"))  # begun on another machine
    assert pack(*argv) == 0
    assert first.stat().st_mtime_ns == before
    check_shards(away, read_index(away))


# Edges

PIDINET = SHARED / "weights/pidinet"


@pytest.mark.skipif(not PIDINET.is_dir(), reason="no weights beside this checkout")
def test_edges_may_be_those_of_a_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, out = sorted(PIDINET.glob("*.pth"))[0], tmp_path / "out"
    save(tmp_path / "in/0.png", noise(0, height=6, width=8).resize((64, 48)))
    assert pack("photos", tmp_path / "in", tmp_path / "canny") == 0
    assert pack("photos", tmp_path / "in", out, "--edges", weights) == 0
    drawn = [np.asarray(Image.open(BytesIO(samples(one)[0]["a.png"]))) for one in (out, tmp_path / "canny")]
    assert drawn[0].shape == (48, 64)
    assert set(np.unique(drawn[0])) <= {0, 255}
    assert not np.array_equal(*drawn)
    assert "other files or settings" in refusal(capsys, "photos", tmp_path / "in", out)
    shutil.copy(weights, tmp_path / "same.pth")
    assert pack("photos", tmp_path / "in", out, "--edges", tmp_path / "same.pth") == 0
    assert "already complete" in capsys.readouterr().out
