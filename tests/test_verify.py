"""Whatever is done to a set, verification names it, and goes on with all else."""

import json
import shutil
import tarfile
import threading
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from p2p.data.format import read_index
from p2p.data.rows import read_rows, rows_name
from shards import index, verify
from shards.alike import NEAR, common, earliest_near, near_in, repeats
from shards.examine import Where, examine
from shards.findings import ERRORS, LISTED, WARNINGS, Finding, Findings
from shards.known import Known
from tests.conftest import SHARED, pair
from tests.test_index import Quiet, add, encoded


def examined(folder: Path, *, images: bool = False) -> tuple[list[Finding], int]:
    """All findings, and how many samples were healthy enough to become known."""
    where = Where(str(folder), read_index(folder).root or str(folder), read_index(folder), images)
    found = [examine(where, number, shard) for number, shard in enumerate(where.index.shards)]
    with Known() as known:
        for one in found:
            known.add(one.marks, one.keys)
        findings = [finding for one in found for finding in one.findings] + list(known.inside(where.index))
        return findings, len(known.marks)


@pytest.fixture
def folder(shard_folder, tmp_path):
    """A copy of a set of ours: 24 pairs in shards of 7, 7, 7, 3."""
    return shutil.copytree(shard_folder / "train", tmp_path / "copy")


def write(path: Path, samples: dict[str, dict[str, bytes]]) -> Path:
    """A tar of samples by key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, members in samples.items():
            for extension, data in members.items():
                add(tar, f"{key}.{extension}", data)
    return path


def indexed(folder: Path, *options: str) -> Path:
    assert index.main([str(folder), *options, "--processes", "1"]) == 0
    return folder


def test_a_healthy_set_has_no_findings(shard_folder, label_folder, tmp_path, capsys):
    for number, at in enumerate((shard_folder, label_folder)):
        report = tmp_path / f"{number}.json"
        command = [str(at / "train"), "--against", str(at / "val"), "--json", str(report), "--processes", "2"]
        assert verify.main(command) == 0
        assert json.loads(report.read_text()) == {
            "set": str(at / "train"), "samples": 24, "shards": 4, "images": False,
            "errors": 0, "warnings": 0, "counts": {}, "findings": [],
        }  # fmt: skip
        assert "24 pairs in 4 tars, 0 errors, 0 warnings" in capsys.readouterr().out
        findings, known = examined(at / "train", images=True)
        assert [one.line() for one in findings if one.severity == "error"] == []
        assert known == 24


def flip(path: Path, byte: int) -> None:
    data = bytearray(path.read_bytes())
    data[byte] ^= 1
    path.write_bytes(data)


def rows_of(folder: Path, number: int) -> np.ndarray:
    return read_rows(folder, read_index(folder).shards[number])


def patch(folder: Path, change) -> None:
    """Change the index as a stranger might."""
    tree = json.loads((folder / "index.json").read_text())
    change(tree)
    (folder / "index.json").write_text(json.dumps(tree))


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def sample_in(folder: Path, at: int, field: str = "offset") -> int:
    return int(rows_of(folder, 1)[at][field])


def hole(folder: Path) -> None:
    """4 KiB of zeros where a header should be, as a lost block of a file system leaves them."""
    data, at = bytearray((folder / TAR).read_bytes()), sample_in(folder, 3)
    data[at : at + 4096] = bytes(4096)
    (folder / TAR).write_bytes(data)


def drop_row(folder: Path) -> None:
    rows = rows_of(folder, 1)[:-1]
    np.save(folder / rows_name(TAR), rows)
    patch(folder, lambda t: (t["shards"][1].update(samples=6), t.update(samples=23)))


TAR = "shard-000001.tar"
DAMAGE = {
    "bit of a header": (lambda d: flip(d / TAR, sample_in(d, 3) + 3), "tar", 23),
    "bit of a picture": (lambda d: flip(d / TAR, sample_in(d, 3) + 700), "crc", 23),
    "bit of the padding": (lambda d: flip(d / TAR, sample_in(d, 4) - 1), "crc", 23),
    "bit after the end": (lambda d: flip(d / TAR, (d / TAR).stat().st_size - 9), "tar", 24),
    "cut in a sample": (lambda d: cut(d / TAR, sample_in(d, 3) + 900), "tar", 20),
    "cut at a sample": (lambda d: cut(d / TAR, sample_in(d, 3)), "tar", 20),
    "cut at the end marker": (lambda d: cut(d / TAR, sum(rows_of(d, 1)[-1].tolist()[:2])), "tar", 24),
    "cut after it": (lambda d: cut(d / TAR, (d / TAR).stat().st_size - 512), "bytes", 24),
    "hole": (hole, "tar", 22),
    "no tar": (lambda d: (d / TAR).unlink(), "missing", 17),
    "a folder": (lambda d: ((d / TAR).unlink(), (d / TAR).mkdir()), "missing", 17),
    "empty": (lambda d: cut(d / TAR, 0), "tar", 17),
    "no rows": (lambda d: (d / rows_name(TAR)).unlink(), "rows", 24),
    "damaged rows": (lambda d: cut(d / rows_name(TAR), 99), "rows", 24),
    "too few rows": (drop_row, "rows", 23),
    "another checksum": (lambda d: patch(d, lambda t: t["shards"][1].update(sha256="0" * 64)), "sha256", 24),
    "another tar": (lambda d: shutil.copy(d / "shard-000000.tar", d / TAR), "crc", None),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_all_else_is_verified(folder, damage):
    change, kind, healthy = DAMAGE[damage]
    change(folder)
    findings, known = examined(folder)
    assert kind in {one.kind for one in findings}
    assert {one.shard for one in findings} == {TAR}
    assert all(one.severity == "error" for one in findings)
    assert "\n" not in "".join(one.line() for one in findings)
    assert known == healthy or healthy is None
    if healthy in (20, 22, 23) and damage != "too few rows":
        first = findings[0]
        assert first.sample == 3 or first.byte > sample_in(folder, 3) - 1


def test_no_changed_bit_of_a_tar_passes(folder):
    """Of 300 at random places, each by itself."""
    where = Where(str(folder), str(folder), read_index(folder), images=False)
    healthy = (folder / TAR).read_bytes()
    generator = np.random.default_rng(7)
    for byte in generator.integers(0, len(healthy), 300).tolist():
        data = bytearray(healthy)
        data[byte] ^= 1 << int(generator.integers(8))
        (folder / TAR).write_bytes(data)
        found = examine(where, 1, where.index.shards[1])
        assert [one.severity for one in found.findings] == ["error"], byte
        assert len(found.marks) >= 6


def test_the_command_names_what_it_finds(folder, tmp_path, capsys):
    flip(folder / TAR, sample_in(folder, 3) + 700)
    (folder / "shard-000002.tar").unlink()
    shutil.copy(folder / "shard-000000.tar", folder / "shard-000009.tar")
    report = tmp_path / "report.json"
    assert verify.main([str(folder), "--json", str(report), "--processes", "1"]) == 2
    out, error = capsys.readouterr()
    assert "2 errors, 1 warnings" in out
    offset = sample_in(folder, 3)
    assert f"error: crc: {TAR} sample 3 (" in error
    assert f") at byte {offset}: its " in error
    assert "error: missing: shard-000002.tar: No such file" in error
    assert "warning: unlisted: shard-000009.tar: " in error
    tree = json.loads(report.read_text())
    assert tree["counts"] == {"missing": 1, "crc": 1, "unlisted": 1}
    by_kind = {one["kind"]: one for one in tree["findings"]}
    assert by_kind["crc"].items() >= {"severity": "error", "shard": TAR, "sample": 3, "byte": offset}.items()
    assert len(by_kind["crc"]["key"]) == 4
    (folder / "index.json").unlink()
    assert verify.main([str(folder)]) == 2
    assert "no index.json here" in capsys.readouterr().err


def test_generations_must_go_on_from_each_other(folder, tmp_path):
    tree = json.loads((folder / "index.json").read_text())
    last = tree["shards"].pop()
    (folder / "index.json").write_text(json.dumps(tree | {"samples": 21}))
    (folder / "index-1.json").write_text(json.dumps(tree | {"samples": 24, "shards": [*tree["shards"], last]}))
    assert list(verify._generations(str(folder))) == []
    swapped = [last, *tree["shards"]]
    (folder / "index-2.json").write_text(json.dumps(tree | {"samples": 24, "shards": swapped}))
    assert [one.shard for one in verify._generations(str(folder))] == ["index-2.json"]


def test_a_set_whose_tars_come_through_a_pipe(folder, capsys):
    assert verify.main([str(folder), "--root", f"pipe:cat {folder}/{{}}", "--processes", "1"]) == 0
    assert "24 pairs in 4 tars, 0 errors" in capsys.readouterr().out


def test_a_set_on_a_server(folder, capsys):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    assert verify.main([url, "--against", str(folder), "--processes", "1"]) == 2
    server.shutdown()
    server.server_close()
    assert "24 errors, 24 warnings" in capsys.readouterr().out  # each sample is in the other, too, and its key


# Pictures


def two(x: Image.Image, y: Image.Image, kind: str = "PNG", **options: object) -> dict[str, bytes]:
    return {"x.png": encoded(x), "y": encoded(y, kind, **options)}


def photo(seed: int, side: int = 64) -> Image.Image:
    return pair(seed, side).crop((0, 0, side, side))


PAIRS = ("--input", "x.png", "--target", "y")


def test_equal_and_similar_pictures(tmp_path):
    """Of ten photos the second half repeats the first: as it is, coded anew, scaled, and under other keys."""
    pytest.importorskip("imagehash", reason="ImageHash is not installed")
    first = {f"{n}": two(photo(n + 20), photo(n), "JPEG", quality=95) for n in range(5)}
    again = {
        "again": first["0"],
        "coarse": two(photo(30), photo(1), "JPEG", quality=70),
        "gray": two(photo(31), photo(2).convert("L").convert("RGB")),
        "large": two(photo(32, 128), photo(3).resize((128, 128), Image.Resampling.BILINEAR)),
        "other": two(photo(33), photo(9)),
    }
    write(tmp_path / "a.tar", first)
    write(tmp_path / "b.tar", again)
    indexed(tmp_path, *PAIRS)
    findings, known = examined(tmp_path, images=True)
    assert known == 10
    assert {(one.kind, one.key) for one in findings} == {
        ("duplicate", "again"), ("near-duplicate", "coarse"), ("near-duplicate", "gray"), ("near-duplicate", "large"),
    }  # fmt: skip
    assert all(f"a.tar sample {n} ('{n}')" in one.what for n, one in enumerate(sorted(findings, key=lambda f: f.key)))
    assert all(one.severity == "warning" and one.shard == "b.tar" and one.byte is not None for one in findings)


def test_train_and_validation_must_not_overlap(tmp_path, capsys):
    pytest.importorskip("imagehash", reason="ImageHash is not installed")
    photos = {f"{n}": two(photo(n + 20), photo(n)) for n in range(4)}
    write(tmp_path / "train/a.tar", photos)
    held = {"0": two(photo(50), photo(60)), "same": photos["1"], "like": two(photo(51), photo(2), "JPEG", quality=80)}
    write(tmp_path / "val/a.tar", held)
    train, val = (str(indexed(tmp_path / name, *PAIRS)) for name in ("train", "val"))
    report = tmp_path / "report.json"
    assert verify.main([train, "--against", val, "--images", "--json", str(report), "--processes", "1"]) == 2
    tree = json.loads(report.read_text())
    found = {one["kind"]: (one["key"], one["what"]) for one in tree["findings"]}
    assert tree["counts"] == {"overlap": 1, "overlap-key": 1, "near-overlap": 1}
    assert found == {
        "overlap": ("1", f"has the bytes of {val} a.tar sample 1 ('same')"),
        "overlap-key": ("0", f"has the key of {val} a.tar sample 0 ('0')"),
        "near-overlap": ("2", f"its target looks like {val} a.tar sample 2 ('like')"),
    }
    assert verify.main([val, "--images", "--processes", "1"]) == 0
    capsys.readouterr()


def test_pictures_that_are_wrong(tmp_path):
    pytest.importorskip("imagehash", reason="ImageHash is not installed")
    whole = encoded(photo(3), "JPEG", quality=90)
    fuzz = np.random.default_rng(0).integers(127, 130, (64, 64, 3), dtype=np.uint8)
    samples = {
        "cut": {"x.png": encoded(photo(1)), "y": whole[: len(whole) // 2]},
        "flat": two(Image.new("L", (64, 64), 255), photo(4)),
        "fuzz": two(photo(5), Image.fromarray(fuzz)),
        "large": two(photo(6, 80), photo(7, 80)),
        "colour": two(photo(8), photo(9)),
        "fine": two(photo(10).convert("L"), photo(11)),
    }
    write(tmp_path / "a.tar", samples)
    indexed(tmp_path, *PAIRS)
    patch(tmp_path, lambda t: t.update(largest=[64, 64], channels=[1, 3]))
    findings, known = examined(tmp_path, images=True)
    assert known == 6
    assert {(one.kind, one.key) for one in findings} == {
        ("decode", "cut"), ("constant", "flat"), ("constant", "fuzz"), ("range", "fuzz"), ("range", "large"),
        ("range", "colour"),
    }  # fmt: skip
    assert "target cannot be decoded (" in next(one.what for one in findings if one.kind == "decode")


def test_labels_and_sizes(tmp_path):
    pytest.importorskip("imagehash", reason="ImageHash is not installed")
    maps = [np.eye(8, dtype=np.uint8) * n for n in (2, 7, 1, 0)]
    samples = {f"{n}": two(Image.fromarray(m), photo(n, 8)) for n, m in enumerate(maps)}
    write(tmp_path / "a.tar", samples)
    indexed(tmp_path, *PAIRS, "--classes", "8")
    patch(tmp_path, lambda t: t.update(classes=3))
    findings, _ = examined(tmp_path, images=True)
    assert [(one.kind, one.sample, one.what) for one in findings] == [
        ("label", 1, "label 7 is not below the 3 classes of the index"), ("constant", 3, "all labels are 0"),
    ]  # fmt: skip
    samples["0"]["y"] = encoded(photo(0, 16))
    replaced = write(tmp_path / "b.tar", samples).read_bytes()
    (tmp_path / "a.tar").write_bytes(replaced)
    (tmp_path / "a.npy").unlink()  # so that the samples are read without rows
    findings, _ = examined(tmp_path, images=True)
    assert ("sides", 0, "input is 8x8, target is 16x16; they must be equal") in [
        (one.kind, one.sample, one.what) for one in findings
    ]


def test_keys_that_come_twice(tmp_path, folder):
    """In tars of strangers each may count anew; in ours a key is one sample."""
    photos = {f"{n}": two(photo(n), photo(n + 5)) for n in range(2)}
    write(tmp_path / "s/a.tar", photos)
    write(tmp_path / "s/b.tar", {"0": two(photo(11), photo(12))})
    findings, _ = examined(indexed(tmp_path / "s", *PAIRS))
    assert [(one.kind, one.shard, one.key) for one in findings] == [("repeated-key", "b.tar", "0")]
    for name in ("shard-000001.tar", "shard-000001.npy"):
        shutil.copy(folder / name.replace("1", "0"), folder / name)
    patch(folder, lambda t: t["shards"].__setitem__(1, t["shards"][0] | {"name": "shard-000001.tar"}))
    findings, _ = examined(folder)
    assert [one.kind for one in findings] == ["key"] * 7 + ["duplicate"] * 7


def test_real_pairs_have_no_errors(tmp_path):
    source = SHARED / "facades" / "val"
    if not source.is_dir():
        pytest.skip("the shared facades are not there")
    pytest.importorskip("imagehash", reason="ImageHash is not installed")
    files = sorted(source.glob("*.jpg"))[:40]
    write(tmp_path / "a.tar", {file.stem: {"jpg": file.read_bytes()} for file in files})
    indexed(tmp_path, "--pairs", "jpg", "--side", "right")
    assert examined(tmp_path, images=True) == ([], 40)


# What many have in common


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.array([[(int(x) ^ int(y)).bit_count() for y in b] for x in a]).reshape(len(a), len(b))


def clusters(seed: int, count: int) -> np.ndarray:
    """Hashes of which many differ in few bits."""
    generator = np.random.default_rng(seed)
    centres = generator.integers(0, 2**63, max(count // 4, 1), dtype=np.uint64)
    hashes = generator.choice(centres, count)
    for _ in range(5):
        bits = np.uint64(1) << generator.integers(0, 64, count, dtype=np.uint64)
        hashes = hashes ^ bits * (generator.random(count) < 0.6)
    return hashes


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 120), st.integers(0, 60))
def test_similar_hashes_are_those_of_every_comparison(seed, count, others):
    hashes, more = clusters(seed, count), clusters(seed, others + count)[count:]
    close = distances(hashes, hashes) <= NEAR
    assert earliest_near(hashes).tolist() == [int(np.flatnonzero(row[: n + 1])[0]) for n, row in enumerate(close)]
    across = distances(hashes, more) <= NEAR
    assert near_in(hashes, more).tolist() == [int(row.argmax()) if row.any() else -1 for row in across]
    values, known = hashes.tolist(), more.tolist()
    assert list(zip(*(part.tolist() for part in repeats(hashes)), strict=True)) == [
        (n, values.index(value)) for n, value in enumerate(values) if value in values[:n]
    ]
    assert list(zip(*(part.tolist() for part in common(hashes, more)), strict=True)) == [
        (n, known.index(value)) for n, value in enumerate(values) if value in known
    ]


def test_findings_are_counted_beyond_those_listed():
    findings = Findings()
    findings.add(Finding("crc", "a.tar", "x") for _ in range(LISTED + 5))
    findings.add([Finding("constant", "a.tar", "y")])
    tree = json.loads(findings.dumps({}))
    assert tree["counts"] == {"crc": LISTED + 5, "constant": 1}
    assert (tree["errors"], tree["warnings"], len(tree["findings"])) == (LISTED + 5, 1, LISTED + 1)
    assert not ERRORS.keys() & WARNINGS.keys()
