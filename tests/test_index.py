"""Tars of strangers are read as WebDataset reads them, and what is wrong with one is named with its place."""

import io
import json
import shutil
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import webdataset as wds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from p2p.data.format import read_index
from p2p.data.rows import read_rows
from p2p.data.shardset import ShardSet
from p2p.data.tars import crc, split_members
from shards import index
from shards.roles import Roles
from shards.survey import survey
from tests.conftest import pair

TWO = Roles("two", {"a": "edges.png", "b": "png"})


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def sides(number: int, side: int = 32) -> dict[str, bytes]:
    """Input and target of one pair."""
    both = pair(number, side)
    return {
        "edges.png": encoded(both.crop((side, 0, 2 * side, side))),
        "png": encoded(both.crop((0, 0, side, side))),
    }


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **more: object) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.type = len(data), kind
    for field, value in more.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(data))


def write_tar(path: Path, count: int = 6, first: int = 0, form: int = tarfile.PAX_FORMAT, key: str = "{:04d}") -> Path:
    """A tar as anybody writes it, with much in it that is no member of a pair."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        add(tar, "README", b"hello")
        for number in range(first, first + count):
            name = key.format(number)
            if "/" in name:
                add(tar, name.rpartition("/")[0], kind=tarfile.DIRTYPE)
            for extension, data in sides(number).items():
                add(tar, f"{name}.{extension if number % 2 else extension.upper()}", data)
            add(tar, f"{name}.json", json.dumps({"number": number}).encode())
    return path


def by_webdataset(paths: list[Path]) -> list[dict[str, bytes]]:
    return [
        {name: value for name, value in sample.items() if name in ("__key__",) or not name.startswith("__")}
        for sample in wds.WebDataset([str(path) for path in paths], shardshuffle=False, empty_check=False)
    ]


def by_rows(folder: Path, root: Path) -> list[dict[str, bytes]]:
    found = []
    for shard in read_index(folder).shards:
        data = (root / shard.name).read_bytes()
        for offset, size, checksum in read_rows(folder, shard).tolist():
            run = data[offset : offset + size]
            assert crc(run) == checksum
            members = split_members(run)
            found.append(members | {"__key__": members["__key__"].decode()})
    return found


NAMES = {
    "plain": ("{:04d}", tarfile.USTAR_FORMAT),
    "folders": ("train.d/deep/{:04d}", tarfile.USTAR_FORMAT),
    "dotted": ("./{:04d}", tarfile.GNU_FORMAT),
    "prefix": ("p" * 90 + "/" + "q" * 60 + "{:04d}", tarfile.USTAR_FORMAT),
    "gnu": ("g" * 200 + "/{:04d}", tarfile.GNU_FORMAT),
    "pax": ("x" * 300 + "/{:04d}", tarfile.PAX_FORMAT),
    "letters": ("täsche/絵{:04d}", tarfile.PAX_FORMAT),
}


@pytest.mark.parametrize("names", NAMES)
def test_rows_hold_what_webdataset_reads(tmp_path, names):
    key, form = NAMES[names]
    path = write_tar(tmp_path / "a.tar", form=form, key=key)
    found = survey(str(tmp_path), TWO, False, None, "a.tar")
    assert found.problems == []
    index.write(tmp_path, index.make_index(str(tmp_path), tmp_path, TWO, [found]), [found])
    expected = by_webdataset([path])
    assert len(expected) == 6
    assert by_rows(tmp_path, tmp_path) == expected


def test_the_command_indexes_a_folder_and_training_reads_it(tmp_path, capsys, monkeypatch):
    """Two tars of a folder below, its index elsewhere; read from another working directory."""
    paths = [write_tar(tmp_path / f"tars/train/{n}.tar", count=4 + n, first=10 * n) for n in range(2)]
    monkeypatch.chdir(tmp_path)
    command = ["tars", "--input", "edges.png", "--target", ".PNG", "--out", "index", "--dali", "--processes", "2"]
    assert index.main(command) == 0
    assert "9 pairs in 2 tars" in capsys.readouterr().out
    made = read_index("index")
    assert (made.layout, made.channels, made.smallest, made.largest) == ("two", (3, 3), (32, 32), (32, 32))
    assert made.members == {"a": "edges.png", "b": "png"}
    assert by_rows(tmp_path / "index", tmp_path / "tars") == by_webdataset(paths)
    assert index.main(command) == 2
    assert "holds an index.json already" in capsys.readouterr().err
    monkeypatch.chdir("/")
    shards = ShardSet(str(tmp_path / "index"))
    for shard, count in enumerate(shards.counts):
        for sample in range(count):
            key, members = shards.read(shard, sample)
            both = np.asarray(pair(int(key)))
            assert np.array_equal(members["x"].permute(1, 2, 0), both[:, 32:])
            assert np.array_equal(members["y"].permute(1, 2, 0), both[:, :32])
    check_dali(tmp_path / "index/train/0.idx", paths[0])


def check_dali(idx: Path, path: Path) -> None:
    """A line for each sample, in which each file stands with its place as `tarfile` sees it."""
    first, *lines = idx.read_text().splitlines()
    assert first == f"v1.2 {len(lines)}"
    with tarfile.open(path) as tar:
        infos = [info for info in tar if info.isreg() and "." in info.name.rpartition("/")[2]]
    expected = [f"{i.name.rpartition('/')[2].partition('.')[2]} {i.offset_data} {i.size} {i.name}" for i in infos]
    assert " ".join(lines) == " ".join(expected)
    assert len(lines) == len({info.name.partition(".")[0] for info in infos})


def test_dalis_index_of_our_own_set(shard_folder, tmp_path, capsys):
    folder = shutil.copytree(shard_folder / "train", tmp_path / "set")
    before = sorted(folder.iterdir())
    assert index.main([str(folder), "--dali", "--processes", "1"]) == 0
    assert len(sorted(folder.iterdir())) == len(before) + 4
    for path in folder.glob("*.tar"):
        check_dali(path.with_suffix(".idx"), path)
    assert "wrote 4 .idx" in capsys.readouterr().out


def test_labels_and_instances(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number in range(3):
            label = np.full((8, 8), number, np.uint8)
            add(tar, f"{number}.label.png", encoded(Image.fromarray(label)))
            add(tar, f"{number}.ids.png", encoded(Image.fromarray(label.astype(np.uint16) * 20_000)))
            add(tar, f"{number}.jpg", encoded(pair(number, 8).crop((0, 0, 8, 8)), "JPEG"))
    options = ["--input", "label.png", "--target", "jpg", "--instances", "ids.png", "--classes", "3"]
    assert index.main([str(tmp_path), *options, "--processes", "1"]) == 0
    made = read_index(tmp_path)
    assert (made.classes, made.instances, made.channels, made.root) == (3, True, (1, 3), "")
    _, members = ShardSet(str(tmp_path)).read(0, 2)
    assert members["x"].unique().tolist() == [2]
    assert members["instances"].unique().tolist() == [40_000]


# Elsewhere


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path):
    """A web server without ranges over `tmp_path/tars`; its URL."""
    write_tar(tmp_path / "tars/a-000.tar", 4)
    write_tar(tmp_path / "tars/a-001.tar", 5, first=10)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "tars"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_server_and_a_pipe_give_the_index_of_the_folder(server, tmp_path, capsys):
    tars = tmp_path / "tars"
    where = {"local": str(tars), "web": server, "pipe": f"pipe:cat {tars}/{{}}"}
    for name, url in where.items():
        command = [url, "a-{000..001}.tar", "--pairs", "png", "--side", "left", "--out", str(tmp_path / name)]
        assert index.main([*command, "--processes", "1"]) == 0
    made = {name: json.loads((tmp_path / name / "index.json").read_text()) for name in where}
    assert {name: one.pop("root") for name, one in made.items()} == {"local": str(tars), "web": server, "pipe": ""}
    assert made["local"] == made["web"] == made["pipe"]
    assert made["local"]["samples"] == 9
    for rows in ("a-000.npy", "a-001.npy"):
        assert (tmp_path / "local" / rows).read_bytes() == (tmp_path / "web" / rows).read_bytes()
    capsys.readouterr()
    command = [server, "a-{000..002}.tar", "--pairs", "png", "--side", "left", "--out", str(tmp_path / "none")]
    assert index.main([*command, "--processes", "1"]) == 2
    assert f"a-002.tar: there is none in {server}" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


# What is wrong


def entry(data: bytes, number: int) -> int:
    """The byte of the header of a tar's nth entry."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()[number].offset


def end(data: bytes) -> int:
    """The byte at which a tar's end marker begins."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        last = tar.getmembers()[-1]
    return last.offset_data + -(-last.size // 512) * 512


def changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def moved(data: bytes, number: int) -> bytes:
    """The nth entry stands at the end."""
    first, then = entry(data, number), entry(data, number + 1)
    return data[:first] + data[then : end(data)] + data[first:then] + data[end(data) :]


def doubled(data: bytes, number: int) -> bytes:
    first, then = entry(data, number), entry(data, number + 1)
    return data[:then] + data[first:then] + data[then:]


def left_out(data: bytes, number: int) -> bytes:
    return data[: entry(data, number)] + data[entry(data, number + 1) :]


DAMAGE = {
    "header bit": (lambda d: changed(d, entry(d, 4) + 5, b"\xff"), lambda d: entry(d, 4), "its checksum is wrong"),
    "cut at an entry": (lambda d: d[: entry(d, 4)], lambda d: entry(d, 4), "ends without its end marker"),
    "cut in a header": (lambda d: d[: entry(d, 4) + 99], lambda d: entry(d, 4) + 99, "inside the header that begins"),
    "cut in a file": (lambda d: d[: entry(d, 4) + 600], lambda d: entry(d, 4) + 600, "inside the entry"),
    "half an end": (lambda d: d[: end(d) + 512], lambda d: end(d) + 512, "inside the end marker that begins"),
    "hole": (lambda d: changed(d, entry(d, 4), bytes(4096)), lambda d: entry(d, 4) + 4096, "data after the end marker"),
    "joined": (lambda d: d + d, len, "data after the end marker"),
    "half pair": (lambda d: left_out(d, 4), lambda d: entry(d, 4), "'0001' lacks its input (edges.png); it has json"),
    "twice in one": (lambda d: doubled(d, 4), lambda d: entry(d, 4), "two files with the extension edges.png"),
    "apart": (lambda d: moved(d, 4), lambda d: end(d) - entry(d, 5) + entry(d, 4), "'0001' comes again, first at byte"),
    "no image": (lambda d: changed(d, entry(d, 4) + 512, bytes(8)), lambda d: entry(d, 4), "input is not an image"),
    "empty": (lambda d: bytes(10240), lambda d: 0, "the tar holds no sample"),
    "no tar": (lambda d: b"PK" + bytes(998), lambda d: 0, "no tar header here"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_with_shard_and_byte(tmp_path, damage):
    change, place, says = DAMAGE[damage]
    data = write_tar(tmp_path / "a.tar", form=tarfile.USTAR_FORMAT).read_bytes()
    (tmp_path / "b.tar").write_bytes(change(data))
    lines = survey(str(tmp_path), TWO, False, None, "b.tar").problems
    assert any(f"at byte {place(data)}: " in line and says in line for line in lines), lines
    assert all(line.startswith("b.tar at byte ") and "\n" not in line for line in lines)
    assert len(lines) <= 2  # a damaged tar may leave half a pair before the place


def test_no_byte_of_a_header_can_change_unseen(tmp_path):
    data = write_tar(tmp_path / "a.tar", 2, form=tarfile.USTAR_FORMAT).read_bytes()
    at = entry(data, 2)
    for byte in range(at, at + 512):
        (tmp_path / "b.tar").write_bytes(changed(data, byte, bytes([data[byte] ^ 1])))
        assert survey(str(tmp_path), TWO, False, None, "b.tar").problems, byte - at


def test_no_garbage_stops_the_command(tmp_path):
    """400 tars with random bytes, or zeros, or a piece of themselves, somewhere: a line or none, never a traceback."""
    data = write_tar(tmp_path / "a.tar", 3).read_bytes()
    generator = np.random.default_rng(11)
    for _ in range(400):
        at, size = (int(number) for number in generator.integers(0, (len(data), 900)))
        source = int(generator.integers(len(data) - 900))
        new = [generator.bytes(size), bytes(size), data[source : source + size]][int(generator.integers(3))]
        (tmp_path / "b.tar").write_bytes(changed(data, at, new)[: len(data)])
        found = survey(str(tmp_path), TWO, bool(generator.integers(2)), None, "b.tar")
        assert len(found.rows) <= 3
        assert all("\n" not in line for line in found.problems)


def bad_tar(path: Path) -> None:
    """Of nine samples the first, the fourth and the last are no pairs, and two others stand in each other's size."""
    with tarfile.open(path, "w") as tar:
        for number in range(9):
            for extension, data in sides(number).items():
                if number % 4 or extension == "png":
                    add(tar, f"{number}.{extension}", data)
        add(tar, "large.edges.png", sides(1, 64)["edges.png"])
        add(tar, "large.png", sides(1)["png"])


def test_bad_samples_stop_the_index_or_are_passed_over(tmp_path, capsys):
    (tmp_path / "tars").mkdir()
    bad_tar(tmp_path / "tars/a.tar")
    command = [str(tmp_path / "tars"), "--input", "edges.png", "--target", "png", "--processes", "1"]
    assert index.main(command) == 2
    error = capsys.readouterr().err
    for key in "048":
        assert f"sample '{key}' lacks its input (edges.png); it has png\n" in error
    assert "sample 'large' input is 64x64, target is 32x32; they must be equal\n" in error
    assert "4 found bad: nothing is indexed" in error
    assert [path.name for path in (tmp_path / "tars").iterdir()] == ["a.tar"]
    assert index.main([*command, "--skip-bad", "--dali"]) == 0
    found = by_rows(tmp_path / "tars", tmp_path / "tars")
    assert [sample["__key__"] for sample in found] == list("123567")
    for sample in found:
        assert {name: sample[name] for name in ("edges.png", "png")} == sides(int(sample["__key__"]))
    idx = (tmp_path / "tars/a.idx").read_text().splitlines()
    assert [line.split()[3] for line in idx[1:]] == [f"{key}.edges.png" for key in "123567"]


def test_what_training_will_not_do_is_told(tmp_path, capsys):
    turned = Image.Exif()
    turned[0x0112] = 6
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "1.png", encoded(pair(1).convert("RGBA")))
        add(tar, "1.jpg", encoded(pair(1), "JPEG", exif=turned))
    assert index.main([str(tmp_path), "--input", "png", "--target", "jpg", "--processes", "1"]) == 0
    error = capsys.readouterr().err
    assert "note: 1 pictures with an EXIF orientation, which is not applied" in error
    assert "note: 1 pictures with transparency" in error


@pytest.mark.parametrize(
    ("image", "kind", "says"),
    [
        (Image.new("L", (8, 8)), "BMP", "target is BMP; training reads JPEG and PNG"),
        (Image.fromarray(np.zeros((8, 8), np.uint16)), "PNG", "target has more than 8 bits a channel"),
        (Image.new("P", (8, 8)), "PNG", "input is PNG of mode P"),
        (Image.new("L", (8, 8)), "JPEG", "input is JPEG of mode L; a label map is a gray PNG"),
    ],
)
def test_pictures_that_training_cannot_read(tmp_path, image, kind, says):
    fine = encoded(Image.new("L", (8, 8)))
    odd = encoded(image, kind)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "1.a", odd if says.startswith("input") else fine)
        add(tar, "1.b", odd if says.startswith("target") else fine)
    lines = survey(str(tmp_path), Roles("two", {"a": "a", "b": "b"}, classes=3), False, None, "a.tar").problems
    assert len(lines) == 1
    assert says in lines[0]


def test_a_key_that_is_no_text_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.USTAR_FORMAT, encoding="latin-1") as tar:
        for extension, data in sides(1).items():
            add(tar, f"täsche.{extension}", data)
    assert "is not called in UTF-8" in survey(str(tmp_path), TWO, False, None, "a.tar").problems[0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "say what the members are"),
        (["--input", "png"], "give --input and --target"),
        (["--pairs", "jpg"], "--pairs goes with --side"),
        (["--pairs", "jpg", "--side", "left", "--classes", "3"], "--pairs goes with --side"),
        (["--input", "png", "--target", "PNG"], "the same extension"),
        (["x.tar", "--dali"], "say what the members are"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, options, says):
    with pytest.raises(SystemExit) as stop:
        index.main([str(tmp_path), *options])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["../a.tar", "/etc/a.tar", "b//a.tar", "a.tar.gz", "{a,a}.tar"])
def test_names_that_lead_elsewhere_or_twice_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"not the name of a \.tar below|is named twice"):
        index.find_names(str(tmp_path), [name])


def test_a_name_with_blanks_cannot_be_dalis(tmp_path, capsys):
    write_tar(tmp_path / "a.tar", 1, key="a bag {}")
    command = [str(tmp_path), "--input", "edges.png", "--target", "png", "--processes", "1"]
    assert index.main([*command, "--dali"]) == 2
    assert "has blanks in it" in capsys.readouterr().err
    assert index.main(command) == 0
    assert by_rows(tmp_path, tmp_path)[0]["__key__"] == "a bag 0"


# Members


NAME = st.text(st.characters(codec="utf-8", exclude_characters="/.\0\r\n"), min_size=1, max_size=90)
FILES = st.dictionaries(
    st.from_regex(r"[a-z]{1,9}(\.[a-z]{1,4})?", fullmatch=True), st.binary(max_size=1300), min_size=1
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(NAME, min_size=1, max_size=4), FILES, st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
def test_members_are_those_that_tarfile_reads(parts, files, form):
    key = "/".join(parts)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for extension, data in files.items():
            add(tar, f"{key}.{extension}", data)
    run = file.getvalue()[: end(file.getvalue())]
    members = split_members(run)
    assert members.pop("__key__").decode() == key
    assert members == files


def test_members_of_a_bytearray_are_parts_of_it(tmp_path):
    data = write_tar(tmp_path / "a.tar", 1, form=tarfile.USTAR_FORMAT).read_bytes()
    run = bytearray(data[: end(data)])
    members = split_members(run)
    assert all(isinstance(part, memoryview) and part.obj is run for name, part in members.items() if name != "__key__")
    assert {name: bytes(part) for name, part in members.items()} == split_members(bytes(run))
    assert isinstance(split_members(memoryview(run))["json"], memoryview)
    assert isinstance(split_members(bytes(run))["json"], bytes)


@pytest.mark.parametrize("kind", [b"x", b"g"])
def test_extended_headers_that_lie_are_refused(kind):
    for data in (b"9 path", b"99 path=x\n", b"0 path=x\n", b"x path=x\n", b"-9 path=x\n"):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            add(tar, "header", data, kind)
            add(tar, "a.png", b"1")
        with pytest.raises(ValueError, match="pax"):
            split_members(file.getvalue()[: 4 * 512])
