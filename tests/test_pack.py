"""The packer: the same bytes every time, every sample once, nothing dropped in silence or begun twice."""

import hashlib
import io
import json
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import termios
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image, ImageOps

from p2p.data.format import read_index
from p2p.data.rows import check_shards, read_rows
from p2p.data.tars import crc, split_members
from shards.pack import main

ROOT = Path(__file__).parents[1]
LONG = "d" * 80 + "/" + "e" * 80  # fits a ustar header only in two parts
COUNT = 23


def noise(seed: int, *, height: int = 16, width: int = 32, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    return Image.fromarray(values, "RGBA").convert("RGB").convert(mode)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def make_pairs(folder: Path, count: int = COUNT) -> Path:
    names = [LONG, "sub/dir.x/a.b", *(f"{number}" for number in range(count - 2))]
    for seed, name in enumerate(names[:count]):
        save(folder / f"{name}.jpg", noise(seed))
    return folder


def make_photos(folder: Path) -> Path:
    for seed in range(40):
        save(folder / f"{seed:02d}.jpg", noise(seed, height=8, width=8).resize((256, 256)))
    return folder


def pack(*argv: object, processes: int = 1) -> int:
    return main([*map(str, argv), "--processes", str(processes)])


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def samples(out: Path) -> list[dict[str, bytes]]:
    """All samples of a set in order, read through its index and rows."""
    index = read_index(out)
    check_shards(out, index)
    found = []
    for shard in index.shards:
        data = (out / shard.name).read_bytes()
        for row in read_rows(out, shard):
            found.append(split_members(data[int(row["offset"]) :][: int(row["size"])]))
    return found


def keys(out: Path) -> list[str]:
    return [sample["__key__"].decode() for sample in samples(out)]


def report(out: Path) -> dict[str, str]:
    return {one["name"]: one["reason"] for one in json.loads((out / "report.json").read_text())["bad"]}


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pairs(tmp_path_factory.mktemp("source") / "pairs")


@pytest.fixture(scope="module")
def packed(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "out"
    assert pack("pairs", pairs, out, "--input", "right", "--samples", 5) == 0
    return out


def expected_key(name: str) -> str:
    return os.path.splitext(name)[0].replace(".", "_")


# What is written


def test_webdataset_reads_every_source_byte_for_byte(pairs: Path, packed: Path) -> None:
    urls = sorted(map(str, packed.glob("*.tar")))
    read = list(webdataset.WebDataset(urls, shardshuffle=False))
    found = {json.loads(sample["json"])["source"]: sample["ab.jpg"] for sample in read}
    assert found == files(pairs)
    assert len(read) == COUNT
    assert {sample["__key__"] for sample in read} == {expected_key(name) for name in files(pairs)}


def test_rows_and_checksums_agree_with_the_tar(packed: Path) -> None:
    for shard in read_index(packed).shards:
        data = (packed / shard.name).read_bytes()
        rows = read_rows(packed, shard)
        with tarfile.open(packed / shard.name) as tar:
            members = tar.getmembers()
            first = [member for member in members if member.name.endswith(".ab.jpg")]
            last = [member for member in members if member.name.endswith(".json")]
            contents = [tar.extractfile(member).read() for member in first]  # type: ignore[union-attr]
        ends = [member.offset_data + 512 * -(-member.size // 512) for member in last]
        runs = [data[start.offset : end] for start, end in zip(first, ends, strict=True)]
        assert [int(row["offset"]) for row in rows] == [member.offset for member in first]
        assert [int(row["size"]) for row in rows] == [len(run) for run in runs]
        assert [int(row["crc"]) for row in rows] == [crc(run) for run in runs]
        assert [split_members(run)["ab.jpg"] for run in runs] == contents
        assert (shard.bytes, shard.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert len(data) % tarfile.RECORDSIZE == 0
        assert not any(data[ends[-1] :])
        assert len(data) - ends[-1] >= 1024
        assert {(one.mtime, one.uid, one.gid, one.mode, one.uname) for one in members} == {(0, 0, 0, 0o644, "")}


def test_index_says_what_the_set_holds(packed: Path) -> None:
    index = read_index(packed)
    assert (index.layout, index.seed, index.channels) == ("right", 0, (3, 3))
    assert (index.smallest, index.largest) == ((16, 16), (16, 16))
    assert [shard.samples for shard in index.shards] == [5, 5, 5, 5, 3]
    assert len(set(keys(packed))) == index.samples == COUNT


def test_same_bytes_elsewhere_later_and_with_more_processes(pairs: Path, packed: Path, tmp_path: Path) -> None:
    shutil.copytree(pairs, tmp_path / "copy", copy_function=shutil.copyfile)  # other times, other listing order
    argv = ("pairs", tmp_path / "copy", tmp_path / "out", "--input", "right", "--samples", 5)
    assert pack(*argv, processes=2) == 0
    assert files(tmp_path / "out") == files(packed)


def test_seed_decides_the_order_only(pairs: Path, packed: Path, tmp_path: Path) -> None:
    assert pack("pairs", pairs, tmp_path / "out", "--input", "left", "--seed", 1) == 0
    index = read_index(tmp_path / "out")
    assert (index.layout, index.seed) == ("left", 1)
    assert keys(tmp_path / "out") != keys(packed)
    assert sorted(keys(tmp_path / "out")) == sorted(keys(packed))
    assert keys(packed) != sorted(keys(packed))


def test_bytes_fill_each_shard_and_no_more(pairs: Path, packed: Path, tmp_path: Path) -> None:
    limit = 20 * 1024
    assert pack("pairs", pairs, tmp_path / "out", "--input", "right", "--bytes", "20K") == 0
    index = read_index(tmp_path / "out")
    assert keys(tmp_path / "out") == keys(packed)
    assert len(index.shards) > 2
    for shard, after in zip(index.shards[:-1], index.shards[1:], strict=True):
        assert shard.bytes <= limit
        content = int(read_rows(tmp_path / "out", shard)["size"].sum())
        assert content + int(read_rows(tmp_path / "out", after)["size"][0]) + 1024 > limit


def test_a_sample_larger_than_bytes_has_a_shard_of_its_own(tmp_path: Path) -> None:
    make_pairs(tmp_path / "in", 3)
    assert pack("pairs", tmp_path / "in", tmp_path / "out", "--input", "left", "--bytes", 1) == 0
    assert [shard.samples for shard in read_index(tmp_path / "out").shards] == [1, 1, 1]


def test_val_holds_out_the_end_of_the_order(pairs: Path, packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    argv = ("pairs", pairs, out, "--input", "right", "--val", 4)
    assert pack(*argv) == 0
    assert keys(out / "train") + keys(out / "val") == keys(packed)
    assert len(keys(out / "val")) == 4
    before = files(out)
    assert pack(*argv) == 0
    assert files(out) == before


def test_val_must_leave_something(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_pairs(tmp_path / "in", 3)
    assert pack("pairs", tmp_path / "in", tmp_path / "out", "--input", "left", "--val", 3) == 2
    assert "only 3 good samples" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_splits_become_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_pairs(tmp_path / "in/train", 5)
    make_pairs(tmp_path / "in/test", 3)
    argv = ("pairs", tmp_path / "in", tmp_path / "out", "--input", "left")
    assert pack(*argv, "--val", 1) == 2
    assert pack(*argv) == 0
    assert (len(keys(tmp_path / "out/train")), len(keys(tmp_path / "out/test"))) == (5, 3)
    (tmp_path / "in/extra").mkdir()
    capsys.readouterr()
    assert pack(*argv) == 2
    assert "extra stands beside" in capsys.readouterr().err


def test_gray_only_where_every_picture_is_gray(tmp_path: Path) -> None:
    for name in ("0", "1"):
        save(tmp_path / f"x/{name}.png", noise(0, mode="L"))
    save(tmp_path / "y/0.png", noise(1, mode="L"))
    save(tmp_path / "y/1.png", noise(2, height=16))
    assert pack("folders", tmp_path / "x", tmp_path / "y", tmp_path / "two") == 0
    assert pack("pairs", tmp_path / "x", tmp_path / "gray", "--input", "left") == 0
    assert read_index(tmp_path / "two").channels == (1, 3)
    assert read_index(tmp_path / "gray").channels == (1, 1)


# Source forms


def test_folders_match_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, y, out = tmp_path / "x", tmp_path / "y", tmp_path / "out"
    for name in ("1.png", "sub/2.png", "only_x.png", "size.png"):
        save(x / name, noise(1, height=24, width=20))
    for name in ("1.jpg", "sub/2.png", "sub/only_y.png"):
        save(y / name, noise(2, height=24, width=20))
    save(y / "size.png", noise(3, height=24, width=21))
    assert pack("folders", x, y, out) == 2
    found = {sample["__key__"].decode(): sample for sample in samples(out)}
    assert found.keys() == {"1", "sub/2"}
    assert found["1"]["a.png"] == (x / "1.png").read_bytes()
    assert found["1"]["b.jpg"] == (y / "1.jpg").read_bytes()
    assert json.loads(found["1"]["json"]) == {"source": ["1.png", "1.jpg"]}
    assert report(out) == {
        "only_x.png": "no partner in the target folder",
        "size.png": "input is 24x20, target is 24x21; they must be equal",
        "sub/only_y.png": "no partner in the input folder",
    }
    assert "only_x.png: no partner" in capsys.readouterr().err
    index = read_index(out)
    assert (index.layout, index.smallest, index.largest) == ("two", (24, 20), (24, 20))


def test_photos_get_black_edges_on_white(tmp_path: Path) -> None:
    square = Image.new("RGB", (40, 32), "navy")
    square.paste("white", (10, 8, 30, 24))
    save(tmp_path / "in/square.jpg", square)
    save(tmp_path / "in/flat.png", Image.new("RGB", (50, 20), "navy"))
    assert pack("photos", tmp_path / "in", tmp_path / "out", "--sigma", "1") == 0
    found = {sample["__key__"]: sample for sample in samples(tmp_path / "out")}
    assert found[b"square"]["b.jpg"] == (tmp_path / "in/square.jpg").read_bytes()
    edges = opened(found[b"square"]["a.png"])
    lines = np.asarray(edges)
    assert (edges.mode, edges.size) == ("L", (40, 32))
    assert set(np.unique(lines)) == {0, 255}
    rows, columns = np.nonzero(lines == 0)
    assert abs(rows.min() - 8) <= 1
    assert abs(columns.max() - 30) <= 1
    assert (lines[14:18, 14:26] == 255).all()
    assert (np.asarray(opened(found[b"flat"]["a.png"])) == 255).all()
    index = read_index(tmp_path / "out")
    assert (index.channels, index.smallest, index.largest) == ((1, 3), (20, 40), (32, 50))


# What cannot be kept, and what cannot be packed


def test_other_kinds_become_png_and_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    clear = noise(0)
    clear.putalpha(Image.new("L", clear.size, 0))
    save(folder / "clear.png", clear)
    save(folder / "print.jpg", noise(1, mode="CMYK"))
    save(folder / "palette.png", noise(2, mode="P"))
    save(folder / "map.bmp", noise(3))
    turned = Image.Exif()
    turned[0x0112] = 6
    save(folder / "turned.jpg", noise(4, height=32, width=17), exif=turned)
    save(folder / "upright.jpg", noise(5), exif=Image.Exif())
    assert pack("pairs", folder, tmp_path / "out", "--input", "left") == 0  # 17 wide, but 32 once upright
    found = {sample["__key__"].decode(): sample for sample in samples(tmp_path / "out")}
    assert found.pop("upright")["ab.jpg"] == (folder / "upright.jpg").read_bytes()
    pixels = {key: np.asarray(opened(sample["ab.png"])) for key, sample in found.items()}
    assert (pixels["clear"] == 255).all()
    assert (pixels["map"] == np.asarray(noise(3))).all()
    assert (pixels["palette"] == np.asarray(Image.open(folder / "palette.png").convert("RGB"))).all()
    assert (pixels["turned"] == np.asarray(ImageOps.exif_transpose(Image.open(folder / "turned.jpg")))).all()
    assert pixels["turned"].shape == (17, 32, 3)
    assert json.loads((tmp_path / "out/report.json").read_text())["converted"] == {
        "BMP": 1, "EXIF orientation": 1, "JPEG of mode CMYK": 1, "PNG of mode P": 1, "PNG of mode RGBA": 1,
    }  # fmt: skip


def deep_colour() -> bytes:
    """A PNG of 16-bit colour, which PIL reads as if it were 8-bit RGB and cannot write."""
    header = struct.pack(">IIBBBBB", 32, 16, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(16 * (1 + 32 * 6)))), (b"IEND", b"")]
    packed = [struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc(name + data)) for name, data in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def make_bad(folder: Path) -> dict[str, str]:
    """One file of each bad kind, and the beginning of the reason for it."""
    good = save(folder / "a.b.png", noise(0)).read_bytes()
    jpeg = save(folder / "good.jpg", noise(1)).read_bytes()
    size = struct.pack(">II", 60000, 60000)
    bomb = good[:16] + size + good[24:29] + struct.pack(">I", crc(good[12:16] + size + good[24:29]))
    contents = {
        "a_b.jpg": (jpeg, "same key a_b as a.b.png"),
        "bomb.png": (bomb + good[33:], "cannot be decoded (Image size (3600000000 pixels)"),
        "cut.jpg": (jpeg[:-60], "cannot be decoded (image file is truncated"),
        "half.png": (good[: len(good) // 2], "cannot be decoded ("),
        "deep_colour.png": (deep_colour(), "more than 8 bits a channel are not supported; convert it to 8 bits"),
        "empty.jpg": (b"", "empty file (0 bytes)"),
        f"{'n' * 101}.jpg": (jpeg, "name too long for a tar"),
        "notes.txt": (b"by hand", "not a picture (.txt)"),
        "Makefile": (b"all:", "not a picture (no extension)"),
        "words.png": (b"no picture at all", "not an image"),
    }
    for name, (data, _) in contents.items():
        (folder / name).write_bytes(data)
    save(folder / "odd.png", noise(2, width=31))
    save(folder / "deep.png", Image.fromarray(np.full((16, 32), 40000, np.uint16)))
    save(folder / "float.tif", Image.fromarray(np.zeros((16, 32), np.float32)))
    (folder / "away.png").symlink_to(folder / "nowhere.png")
    for name in (".DS_Store", "Thumbs.db"):
        (folder / name).write_bytes(b"")
    return {
        **{name: reason for name, (_, reason) in contents.items()},
        "odd.png": "width 31 is odd",
        "deep.png": "more than 8 bits a channel are not supported; convert it to 8 bits",
        "float.tif": "more than 8 bits a channel are not supported; convert it to 8 bits",
        "away.png": "cannot be read (No such file",
    }


def test_each_bad_kind_is_named_and_the_good_are_packed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = make_bad(tmp_path / "in")
    argv = ("pairs", tmp_path / "in", tmp_path / "out", "--input", "left")
    assert pack(*argv) == 2
    found = report(tmp_path / "out")
    assert found.keys() == expected.keys()
    wrong = {name: found[name] for name in expected if not found[name].startswith(expected[name])}
    assert wrong == {}
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if ": " in line] == [f"{name}: {found[name]}" for name in sorted(found)]
    assert sorted(keys(tmp_path / "out")) == ["a_b", "good"]
    assert pack(*argv, processes=2) == 2
    assert "already complete" in capsys.readouterr().out
    assert pack(*argv[:2], tmp_path / "again", *argv[3:], processes=2) == 2
    assert files(tmp_path / "again") == files(tmp_path / "out")


def test_many_bad_ones_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_pairs(tmp_path / "in", 1)
    for number in range(23):
        (tmp_path / f"in/{number}.txt").touch()
    assert pack("pairs", tmp_path / "in", tmp_path / "out", "--input", "left") == 2
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if "not a picture" in line]) == 20
    assert f"... and 3 more, see {tmp_path / 'out/report.json'}" in said
    assert len(report(tmp_path / "out")) == 23


def test_size_may_be_demanded(tmp_path: Path) -> None:
    save(tmp_path / "in/right.png", noise(0))
    save(tmp_path / "in/wrong.png", noise(1, height=18))
    assert pack("pairs", tmp_path / "in", tmp_path / "out", "--input", "left", "--size", "16x16") == 2
    assert report(tmp_path / "out") == {"wrong.png": "one side is 18x16, --size says 16x16"}


# Mistakes: one line, exit code 2, nothing written


def refusal(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """The one line that a refused command says."""
    capsys.readouterr()
    assert pack(*argv) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_nothing_to_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert "no such folder" in refusal(capsys, "pairs", tmp_path / "in", out, "--input", "left")
    (tmp_path / "in").mkdir()
    assert "no pictures here" in refusal(capsys, "pairs", tmp_path / "in", out, "--input", "left")
    (tmp_path / "in/notes.txt").touch()
    line = refusal(capsys, "pairs", tmp_path / "in", out, "--input", "left")
    assert "nothing to pack; 1 bad, as notes.txt: not a picture (.txt)" in line
    assert not out.exists()


def test_out_is_never_overwritten(
    pairs: Path, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(packed)
    argv = ("pairs", pairs, packed, "--input", "right", "--samples")
    assert "other files or settings" in refusal(capsys, *argv, 6)
    assert pack(*argv, 5) == 0
    assert "already complete" in capsys.readouterr().out
    assert files(packed) == before
    (tmp_path / "letter.txt").write_text("dear")
    assert "letter.txt" in refusal(capsys, "pairs", pairs, tmp_path, "--input", "right")
    assert files(tmp_path) == {"letter.txt": b"dear"}
    inside = pairs / "out"
    assert "lies in the source folder" in refusal(capsys, "pairs", pairs, inside, "--input", "right")
    assert not inside.exists()


def test_a_finished_set_that_lost_a_shard_is_not_complete(
    pairs: Path, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(packed, tmp_path / "out")
    (tmp_path / "out/shard-000001.tar").unlink()
    line = refusal(capsys, "pairs", pairs, tmp_path / "out", "--input", "right", "--samples", 5)
    assert "shard-000001.tar: missing" in line


@pytest.mark.parametrize(
    "argv",
    [
        ("pairs", "in", "out"),
        ("pairs", "in", "out", "--input", "up"),
        ("pairs", "in", "out", "--input", "left", "--samples", "0"),
        ("pairs", "in", "out", "--input", "left", "--samples", "9", "--bytes", "1M"),
        ("photos", "in", "out", "--sigma", "-1"),
        ("photos", "in", "out", "--size", "256"),
        ("photos", "in", "out", "--bytes", "much"),
    ],
)
def test_a_mistaken_command_gets_one_line(argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(list(argv))
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


# Interruption, with real processes


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("source") / "photos")


@pytest.fixture(scope="module")
def undisturbed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("packed") / "out"
    assert pack("photos", photos, out, "--samples", 1, processes=2) == 0
    return files(out)


def disturb(photos: Path, out: Path, act: Callable[[int], None]) -> tuple[int, str]:
    """Start packing, act as soon as the first shard is complete; exit code and stderr.

    It returns when every process that holds the pipe has ended, workers too. Where this machine was so busy that the
    packer had ended before it could be disturbed, it is started anew.
    """
    command = [sys.executable, "-m", "shards.pack", "photos", photos, out, "--samples", "1", "--processes", "2"]
    while True:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        while not (out / ".shard-000000.json").exists() and process.poll() is None:
            time.sleep(0.001)
        act(process.pid)
        _, said = process.communicate(timeout=300)
        if not (out / "index.json").exists():
            return process.returncode, said
        shutil.rmtree(out)


@pytest.mark.parametrize(
    ("act", "code"),
    [
        pytest.param(lambda pid: os.kill(pid, signal.SIGKILL), -signal.SIGKILL, id="killed"),
        pytest.param(lambda pid: os.killpg(pid, signal.SIGINT), 130, id="ctrl-c"),
    ],
)
def test_the_same_command_goes_on(
    act: Callable[[int], None], code: int, photos: Path, undisturbed: dict[str, bytes], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "out"
    returned, said = disturb(photos, out, act)
    assert returned == code
    if code == 130:
        assert said.splitlines() == ["interrupted; the same command goes on"]
    assert (out / ".plan.sqlite").exists()
    assert not (out / "index.json").exists()
    first = (out / "shard-000000.tar").stat()
    assert pack("photos", photos, out, "--samples", 1) == 0
    assert (out / "shard-000000.tar").stat().st_ino == first.st_ino
    assert files(out) == undisturbed


def test_a_source_that_changes_is_refused(
    photos: Path, undisturbed: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, out = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(photos, copy)
    returned, said = disturb(copy, out, lambda _: [os.utime(path) for path in copy.iterdir()])
    assert returned == 2
    assert said.endswith("changed while it was packed; delete the output and pack again\n")
    assert len(said.splitlines()) == 1
    assert (out / "shard-000000.tar").read_bytes() == undisturbed["shard-000000.tar"]
    assert "00.jpg has changed" in refusal(capsys, "photos", copy, out, "--samples", 1)
    assert "seed is 1, was 0" in refusal(capsys, "photos", copy, out, "--samples", 1, "--seed", 1)
    (copy / "00.jpg").unlink()
    assert "00.jpg is gone" in refusal(capsys, "photos", copy, out, "--samples", 1)
    assert not (out / "index.json").exists()


# Progress


def test_a_log_gets_plain_lines(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pack("pairs", pairs, tmp_path / "out", "--input", "left", "--samples", 9) == 0
    said = capsys.readouterr()
    assert said.err.splitlines() == ["wrote 3 of 3 shards"]
    size = sum(shard.bytes for shard in read_index(tmp_path / "out").shards)
    assert said.out == f"packed {COUNT} pairs in 3 shards, {size} bytes, seed 0: {tmp_path / 'out'}\n"


def test_a_terminal_gets_a_bar(pairs: Path, tmp_path: Path) -> None:
    mine, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    command = [sys.executable, "-m", "shards.pack", "pairs", pairs, tmp_path / "out", "--input", "left"]
    assert subprocess.run(command, cwd=ROOT, stderr=theirs, stdout=subprocess.DEVNULL).returncode == 0
    os.close(theirs)
    assert b"wrote: 100%|" in os.read(mine, 65536)
    os.close(mine)
