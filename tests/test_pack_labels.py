"""Packing label maps, instance maps and photos: every number kept, files matched by name, what is wrong named."""

import json
import os
import re
import struct
import tarfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from p2p.data.encoded import decode_ids
from p2p.data.format import read_index
from shards import pack as packer
from shards.plan import fingerprint
from shards.sources import Settings
from shards.trees import Bad
from tests.conftest import SHARED
from tests.test_pack import files, keys, noise, pack, refusal, report, samples

CITYSCAPES = SHARED / "cityscapes_samples"
H, W = 12, 20
FINE = ("_gtFine_labelIds.png", "_gtFine_instanceIds.png", "_leftImg8bit.png")
PLAIN = (".png", ".png", ".jpg")


def numbers(seed: int, high: int, dtype: type = np.uint8) -> np.ndarray:
    """A map whose largest number is high - 1."""
    found = np.random.default_rng(seed).integers(0, high, (H, W))
    found[0, 0] = high - 1
    return found.astype(dtype)


def photo(seed: int, height: int = H, width: int = W) -> Image.Image:
    return noise(seed, height=height, width=width)


def save(path: Path, image: Image.Image | np.ndarray | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path)


def make(root: Path, names: list[str], *, phase: str = "train", ends: tuple[str, str, str] = PLAIN) -> Path:
    """pix2pixHD's folders with labels below 35 and instances up to 33001."""
    for seed, name in enumerate(names):
        save(root / f"{phase}_label/{name}{ends[0]}", numbers(seed, 35))
        save(root / f"{phase}_inst/{name}{ends[1]}", numbers(seed, 33002, np.uint16))
        save(root / f"{phase}_img/{name}{ends[2]}", photo(seed))
    return root


def make_cityscapes(root: Path, phases: tuple[str, ...], cities: tuple[str, ...] = ("aachen", "ulm")) -> Path:
    for phase in phases:
        for city in cities:
            fine, stem = root / "gtFine" / phase / city, f"{city}_000000_000019"
            save(fine / f"{stem}_gtFine_labelIds.png", numbers(1, 35))
            save(fine / f"{stem}_gtFine_instanceIds.png", numbers(2, 26002, np.uint16))
            save(fine / f"{stem}_gtFine_labelTrainIds.png", numbers(3, 256))
            save(fine / f"{stem}_gtFine_color.png", photo(4))
            save(fine / f"{stem}_gtFine_polygons.json", b"{}")
            save(root / "leftImg8bit" / phase / city / f"{stem}_leftImg8bit.png", photo(len(city)))
    return root


def png(depth: int, rows: np.ndarray, kind: int = 0, chunks: bytes = b"") -> bytes:
    """A PNG of 1 to 16 bits, by hand: gray, or with `kind` 3 of a palette."""
    bits = ((rows[..., None].astype(int) >> np.arange(depth)[::-1]) & 1).reshape(len(rows), -1)
    data = b"".join(b"\0" + np.packbits(line).tobytes() for line in bits)
    header = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], depth, kind, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunks + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def tiff(rows: np.ndarray, *, kind: int = 1, photometric: int = 1, order: str = "<", deflate: bool = False) -> bytes:
    """A TIFF of one strip, by hand: `kind` 1 unsigned, 2 signed; photometric 0 says that 0 is white."""
    data = rows.astype(rows.dtype.newbyteorder(order)).tobytes()
    data = zlib.compress(data) if deflate else data
    bits, height, width = 8 * rows.itemsize, *rows.shape
    tags = [
        (256, width), (257, height), (258, bits), (259, 8 if deflate else 1), (262, photometric), (273, 200), (277, 1),
        (278, height), (279, len(data)), (339, kind),
    ]  # fmt: skip
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HIH", 42, 8, len(tags))
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    return (head + entries + bytes(4)).ljust(200, b"\0") + data


def members(folder: Path) -> dict[str, dict[str, bytes]]:
    """All samples of a set by key, read by tarfile alone."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                found.setdefault(key, {})[extension] = tar.extractfile(member).read()  # type: ignore[union-attr]
    return found


def opened(data: bytes) -> Image.Image:
    return Image.open(BytesIO(data))


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(opened(data)).astype(np.int64)


# What is written


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("source") / "root", [f"sub/{i}.x" if i % 2 else f"{i}" for i in range(7)])


@pytest.fixture(scope="module")
def packed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "out"
    assert pack("labels", source, out, "--classes", 35, "--samples", 3) == 0
    return out


def test_every_file_is_packed_byte_for_byte(source: Path, packed: Path) -> None:
    found = members(packed / "train")
    assert sorted(found) == ["0", "2", "4", "6", "sub/1_x", "sub/3_x", "sub/5_x"]
    for one in found.values():
        label, instance, picture = json.loads(one["json"])["source"]
        assert list(one) == ["a.png", "inst.png", "b.jpg", "json"]
        assert one["a.png"] == (source / "train_label" / label).read_bytes()
        assert one["inst.png"] == (source / "train_inst" / instance).read_bytes()
        assert one["b.jpg"] == (source / "train_img" / picture).read_bytes()
    assert json.loads((packed / "train/report.json").read_text())["converted"] == {}


def test_the_index_knows_classes_and_instances(packed: Path) -> None:
    index = read_index(packed / "train")
    assert (index.layout, index.channels, index.classes, index.instances) == ("two", (1, 3), 35, True)
    assert (index.smallest, index.largest) == ((H, W), (H, W))
    assert [shard.samples for shard in index.shards] == [3, 3, 1]
    assert len(samples(packed / "train")) == 7  # rows and checksums agree


def test_the_same_bytes_with_more_processes(source: Path, packed: Path, tmp_path: Path) -> None:
    argv = ("labels", source, tmp_path / "out", "--classes", 35, "--samples", 3)
    assert pack(*argv, processes=2) == 0
    assert files(tmp_path / "out") == files(packed)


def test_bytes_fill_shards(source: Path, tmp_path: Path) -> None:
    assert pack("labels", source, tmp_path / "out", "--classes", 35, "--bytes", "20K") == 0
    shards = read_index(tmp_path / "out/train").shards
    assert len(shards) > 1
    assert max(shard.bytes for shard in shards) <= 20 * 1024


def turned(values: np.ndarray) -> bytes:
    """A PNG that says that it lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    file = BytesIO()
    Image.fromarray(values).save(file, "PNG", exif=exif)
    return file.getvalue()


def palette(values: np.ndarray) -> bytes:
    """A PNG of 8-bit indices, whose colours are not in the order of the indices."""
    colours = np.random.default_rng(0).permutation(256).astype(np.uint8)
    return png(8, values, 3, chunk(b"PLTE", np.repeat(colours, 3).tobytes()))


def make_kinds(root: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Each kind of file that can hold a map; the label map and the instance map that are meant by it."""
    label, small, two, few = numbers(0, 35), numbers(1, 16), numbers(2, 2), numbers(4, 256)
    ids, huge = numbers(3, 65536, np.uint16), numbers(5, 2**31, np.int32)
    just_16, just_32 = numbers(6, 2**8 + 1, np.uint16), numbers(7, 2**16 + 1, np.int32)
    clear, colours = chunk(b"tRNS", struct.pack(">H", 3)), chunk(b"PLTE", bytes(48))
    kinds: dict[str, tuple[tuple[Any, np.ndarray], tuple[Any, np.ndarray]]] = {
        "bits.png": ((png(1, two), two), (png(1, two), two)),
        "deep.png": ((png(16, label), label), (png(16, label), label)),
        "four.png": ((png(4, small), small), (png(4, small), small)),
        "gray.png": ((label, label), (few, few)),
        "index.png": ((palette(label), label), (palette(few), few)),
        "index4.png": ((png(4, small, 3, colours), small), (png(2, two), two)),
        "little.tif": ((tiff(label), label), (tiff(ids), ids)),
        "long.tif": ((label.astype(np.int32), label), (tiff(huge.astype(np.uint32)), huge)),
        "motorola.tif": ((tiff(label, order=">"), label), (tiff(just_16, order=">"), just_16)),
        "over.tif": ((tiff(label, deflate=True), label), (just_32, just_32)),
        "short.tif": ((tiff(label.astype(np.int16), kind=2), label), (few.astype(np.int32), few)),
        "through.png": ((png(8, label, 0, clear), label), (png(16, ids, 0, clear), ids)),
        "turned.png": ((turned(label.T[::-1]), label), (turned(ids.T[::-1]), ids)),
    }
    for name, ((data, _), (other, _)) in kinds.items():
        save(root / "train_label" / name, data)
        save(root / "train_inst" / name, other)
        save(root / "train_img" / name, photo(len(name)))
    return {name.partition(".")[0]: (a, b) for name, ((_, a), (_, b)) in kinds.items()}


def test_every_kind_of_map_keeps_its_numbers(tmp_path: Path) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    expected = make_kinds(root)
    assert pack("labels", root, out, "--classes", 35) == 0
    found = members(out / "train")
    assert found.keys() == expected.keys()
    for name, (label, instances) in expected.items():
        one, high = found[name], instances.max()
        extension = "inst.tif" if high >= 2**16 else "inst.png"
        assert (gray_depth(one["a.png"]), opened(one["a.png"]).info) == (8, {}), name
        # 16 bits of a PNG are kept though 8 would do
        depth = 32 if high >= 2**16 else 16 if high >= 2**8 or name == "deep" else 8
        assert gray_depth(one[extension]) == depth, name
        assert np.array_equal(pixels(one["a.png"]), label), name
        assert np.array_equal(pixels(one[extension]), instances), name
        assert np.array_equal(decode_ids(one[extension]), instances), name
    for folder, extension in (("train_label", "a.png"), ("train_inst", "inst.png")):
        assert found["gray"][extension] == (root / folder / "gray.png").read_bytes()
    assert found["deep"]["inst.png"] == (root / "train_inst/deep.png").read_bytes()
    assert json.loads((out / "train/report.json").read_text())["converted"] == {
        "EXIF orientation": 2, "PNG of mode 1": 2, "PNG of mode I;16B": 1, "PNG of mode L;2": 1, "PNG of mode L;4": 2,
        "PNG of mode P": 2, "PNG of mode P;4": 1, "PNG with transparency": 2, "TIFF": 15,
    }  # fmt: skip
    assert pack("labels", root, tmp_path / "again", "--classes", 35, processes=2) == 0
    assert files(tmp_path / "again") == files(out)


def gray_depth(data: bytes) -> int:
    """Bits of a gray PNG by its header, of a TIFF of deflate by its tags; 0 of anything else."""
    if data[:4] == b"\x89PNG":
        return data[24] if data[25] == 0 else 0
    tags = opened(data).tag_v2
    return tags[258][0] if tags[259] == 8 else 0


def test_a_photo_is_packed_as_a_photo(tmp_path: Path) -> None:
    root = make(tmp_path / "in", ["clear", "gray"])
    (root / "train_img/clear.jpg").unlink()
    save(root / "train_img/clear.png", photo(1).convert("RGBA"))
    save(root / "train_img/gray.jpg", photo(1).convert("L"))
    assert pack("labels", root, tmp_path / "out", "--classes", 35) == 0
    found = members(tmp_path / "out/train")
    assert opened(found["clear"]["b.png"]).mode == "RGB"
    assert found["gray"]["b.jpg"] == (root / "train_img/gray.jpg").read_bytes()


# What cannot be packed


NOT_WHOLE = "a label or instance map is PNG or TIFF of whole numbers, without loss; this is"
NOT_IDS = "holds numbers below 0, or of 2147483648 and more"
CHANNELS = "a label or instance map has one channel; this has"
RANGE = "{} not below --classes 35; {} mend the file"


def make_bad(root: Path) -> dict[str, str]:
    """A sample of each bad kind, and the beginning of the reason for it by the name of its first file."""
    many, deep = np.arange(H * W, dtype=np.uint8).reshape(H, W), numbers(0, 35, np.int32)
    far = np.where(deep == 34, 299, 0).astype(np.uint16)
    labels: dict[str, tuple[Any, str]] = {
        "above": (numbers(0, 36), RANGE.format("label 35 is", "use --classes 36 or")),
        "clear": (photo(0).convert("RGBA"), f"{CHANNELS} 4"),
        "colour": (photo(0), f"{CHANNELS} 3"),
        "cut": (png(8, numbers(0, 35))[:-40], "cannot be decoded ("),
        "empty": (b"", "empty file (0 bytes)"),
        "far": (png(16, far), RANGE.format("label 299 is", "there can be 256 at most;")),
        "lossy": (encoded("JPEG"), f"{NOT_WHOLE} JPEG of mode L"),
        "many": (many, RANGE.format("labels 35, 36, 37, 38, 39 ... are", "use --classes 240 or")),
        "words": (b"no picture", "not an image"),
    }
    instances: dict[str, tuple[Any, str]] = {
        "i_below": (np.where(deep == 3, -1, deep), NOT_IDS),
        "i_colour": (photo(0), f"{CHANNELS} 3"),
        "i_float": (deep.astype(np.float32), f"{NOT_WHOLE} TIFF of mode F;32F"),
        "i_huge": (tiff(deep.astype(np.uint32) + 2**31), NOT_IDS),
        "i_short": (tiff(-deep.astype(np.int16), kind=2), NOT_IDS),
        "i_white": (tiff(numbers(0, 35), photometric=0), f"{NOT_WHOLE} TIFF of mode L;I"),
    }
    make(root, ["good", "photo", "size", "size_i", *labels, *instances])
    for name, (data, _) in labels.items():
        save(root / f"train_label/{name}.png", data)
    for name, (data, _) in instances.items():
        (root / f"train_inst/{name}.png").unlink()
        save(root / f"train_inst/{name}.tif", data)
    save(root / "train_img/photo.jpg", b"")
    save(root / "train_img/size.jpg", photo(0, width=W + 1))
    save(root / "train_inst/size_i.png", numbers(0, 35)[1:])
    return {
        **{f"{name}.png": f"label map: {reason}" for name, (_, reason) in labels.items()},
        **{f"{name}.png": f"instance map {name}.tif: {reason}" for name, (_, reason) in instances.items()},
        "photo.png": "photo photo.jpg: empty file (0 bytes)",
        "size.png": "label map is 12x20, instance map is 12x20, photo is 12x21; they must be equal",
        "size_i.png": "label map is 12x20, instance map is 11x20, photo is 12x20; they must be equal",
    }


def encoded(form: str, **options: object) -> bytes:
    """A label map as a file of some format."""
    file = BytesIO()
    Image.fromarray(numbers(0, 35)).save(file, form, **options)
    return file.getvalue()


def test_each_bad_kind_is_named_and_the_good_are_packed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = make_bad(tmp_path / "in")
    assert pack("labels", tmp_path / "in", tmp_path / "out", "--classes", 35) == 2
    found = report(tmp_path / "out/train")
    assert found.keys() == expected.keys()
    assert {name: found[name] for name in expected if not found[name].startswith(expected[name])} == {}
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if ": " in line] == [f"{name}: {found[name]}" for name in sorted(found)]
    assert keys(tmp_path / "out/train") == ["good"]
    assert pack("labels", tmp_path / "in", tmp_path / "all", "--classes", 256) == 2
    assert {"above", "many"} < set(keys(tmp_path / "all/train"))


def test_files_are_matched_by_name(tmp_path: Path) -> None:
    names = [f"ulm_{i:06d}_000019" for i in range(4)]
    root = make(tmp_path / "in", names, ends=FINE)
    lone = [f"{name}{end}" for name, end in zip(names[1:], FINE, strict=True)]
    for folder, name in zip(("train_label", "train_inst", "train_img"), lone, strict=True):
        (root / folder / name).unlink()  # so that positions do not agree any more
    save(root / "train_label/odd.png", numbers(0, 35))
    save(root / f"train_inst/{names[0]}.png", numbers(0, 35))
    save(root / "train_img/notes.txt", b"by hand")
    assert pack("labels", root, tmp_path / "out", "--classes", 35) == 2
    assert keys(tmp_path / "out/train") == [names[0]]
    assert report(tmp_path / "out/train") == {
        f"{names[1]}{FINE[1]}": "no label map in train_label",
        f"{names[2]}{FINE[0]}": "no instance map in train_inst",
        f"{names[3]}{FINE[0]}": "no photo in train_img",
        f"{names[0]}{FINE[1]}": f"same key {names[0]} as {names[0]}.png",
        "odd.png": "no instance map in train_inst, no photo in train_img",
        "notes.txt": "not a picture (.txt)",
    }


@pytest.mark.parametrize("ends", [FINE, (FINE[0].replace("Fine", "Coarse"), FINE[1].replace("Fine", "Coarse"), ".jpg")])
def test_cityscapes_names_are_no_part_of_the_key(ends: tuple[str, str, str], tmp_path: Path) -> None:
    root = make(tmp_path / "in", ["ulm_000000_000019"], ends=ends)
    assert pack("labels", root, tmp_path / "out", "--classes", 35) == 0
    assert keys(tmp_path / "out/train") == ["ulm_000000_000019"]


def test_a_name_must_fit_the_longest_member(tmp_path: Path) -> None:
    fits, long = "n" * 91, "n" * 92  # with .inst.png 100 and 101 bytes, of which a tar holds 100
    root = make(tmp_path / "in", [fits, long])
    assert pack("labels", root, tmp_path / "out", "--classes", 35) == 2
    assert keys(tmp_path / "out/train") == [fits]
    assert set(report(tmp_path / "out/train").values()) == {"name too long for a tar (101 bytes); shorten it"}


def test_size_may_be_demanded(tmp_path: Path) -> None:
    root = make(tmp_path / "in", ["right", "wrong"])
    for folder, end in zip(("label", "inst", "img"), PLAIN, strict=True):
        path = root / f"train_{folder}/wrong{end}"
        save(path, Image.open(path).crop((0, 0, W, 8)))
    assert pack("labels", root, tmp_path / "out", "--classes", 35, "--size", f"{H}x{W}") == 2
    assert report(tmp_path / "out/train") == {"wrong.png": "one side is 8x20, --size says 12x20"}


# Folders


def test_phases_become_sets_and_labels_alone_are_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make(make(tmp_path / "in", ["0", "1"]), ["2"], phase="val")
    save(root / "test_label/3.png", numbers(0, 35))
    argv = ("labels", root, tmp_path / "out", "--classes", 35)
    left = f"{root}: test has no photos and is not packed; labels alone need no packing"
    for first in ("packed", "already complete:"):
        assert pack(*argv) == 0
        said = capsys.readouterr().out.splitlines()
        assert said[0] == left
        assert [line.split(" 2 ")[0].split(" 1 ")[0] for line in said[1:]] == [first, first]
    assert (sorted(keys(tmp_path / "out/train")), keys(tmp_path / "out/val")) == (["0", "1"], ["2"])
    assert not (tmp_path / "out/test").exists()
    make(root, ["3"], phase="test")
    assert pack(*argv) == 0
    assert keys(tmp_path / "out/test") == ["3"]
    assert "divided in train, val, test" in refusal(capsys, *argv[:2], tmp_path / "more", *argv[3:], "--val", 1)


def test_val_is_held_out_of_train(source: Path, packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert pack("labels", source, out, "--classes", 35, "--val", 2) == 0
    assert keys(out / "train") + keys(out / "val") == keys(packed / "train")
    for folder in ("train", "val"):
        assert (read_index(out / folder).classes, read_index(out / folder).instances) == (35, True)


def test_val_is_held_out_beside_a_test_phase_of_labels(tmp_path: Path) -> None:
    root = make(tmp_path / "in", ["0", "1", "2"])
    save(root / "test_label/3.png", numbers(0, 35))
    assert pack("labels", root, tmp_path / "out", "--classes", 35, "--val", 1) == 0
    assert (len(keys(tmp_path / "out/train")), len(keys(tmp_path / "out/val"))) == (2, 1)


def test_instances_may_be_left_out_or_lack(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "without"
    assert pack("labels", source, out, "--classes", 35, "--no-instances") == 0
    assert capsys.readouterr().out.startswith("packed 7 ")
    root = make(tmp_path / "in", ["0"])
    (root / "train_inst/0.png").unlink()
    line = refusal(capsys, "labels", root, tmp_path / "lacks", "--classes", 35)
    assert line == f"{root}/train_label: nothing to pack; 1 bad, as 0.png: no instance map in train_inst"
    (root / "train_inst").rmdir()
    assert pack("labels", root, tmp_path / "lacks", "--classes", 35) == 0
    assert capsys.readouterr().out.startswith(f"{root}: has no instance maps (train_inst); packed without\npacked 1 ")
    for folder in (out / "train", tmp_path / "lacks/train"):
        assert not read_index(folder).instances
        assert {tuple(one) for one in members(folder).values()} == {("a.png", "b.jpg", "json")}
    make(root, ["1"], phase="val")
    line = refusal(capsys, "labels", root, tmp_path / "out", "--classes", 35)
    assert line == f"{root}/train_inst: no instance maps here, but in {root}/val_inst; add them, or give --no-instances"
    assert not (tmp_path / "out").exists()


def test_cityscapes_as_it_comes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = make_cityscapes(tmp_path / "in", ("train", "val")), tmp_path / "out"
    stem = "ulm/ulm_000000_000019"
    assert pack("labels", root, out, "--classes", 35) == 0
    found = members(out / "train")
    assert sorted(found) == ["aachen/aachen_000000_000019", stem]
    assert found[stem]["a.png"] == (root / f"gtFine/train/{stem}_gtFine_labelIds.png").read_bytes()
    assert found[stem]["inst.png"] == (root / f"gtFine/train/{stem}_gtFine_instanceIds.png").read_bytes()
    assert found[stem]["b.png"] == (root / f"leftImg8bit/train/{stem}_leftImg8bit.png").read_bytes()
    assert read_index(out / "val").instances
    save(root / "gtFine/train/ulm/mine.png", numbers(0, 35))
    save(root / "leftImg8bit/train/ulm/yours.png", photo(0))
    assert pack("labels", root, tmp_path / "more", "--classes", 35) == 2
    assert keys(tmp_path / "more/train") == keys(out / "train")
    bad = json.loads((tmp_path / "more/train/report.json").read_text())["bad"]
    reason = "not a name that Cityscapes gives"
    assert bad == [{"name": f"ulm/{name}.png", "reason": reason} for name in ("mine", "yours")]
    for path in root.glob("gtFine/val/*/*_instanceIds.png"):
        path.unlink()
    assert f"{root}/gtFine/val: no instance maps here" in refusal(capsys, "labels", root, out, "--classes", 35)


def test_without_classes_x_is_a_picture(tmp_path: Path) -> None:
    root = tmp_path / "in"
    save(root / "train_A/0.bmp", photo(0))
    save(root / "train_A/1.png", photo(1))
    for name in ("0", "1"):
        save(root / f"train_B/{name}.jpg", photo(2))
        save(root / f"train_inst/{name}.png", numbers(3, 300, np.uint16))
    save(root / "train_B/1.jpg", photo(2, width=W + 1))
    assert pack("labels", root, tmp_path / "out", "--classes", 0) == 2
    assert report(tmp_path / "out/train")["1.png"].startswith("input is 12x20, instance map is 12x20, target is 12x21")
    one = members(tmp_path / "out/train")["0"]
    assert np.array_equal(pixels(one["a.png"]), np.asarray(photo(0)))
    assert one["inst.png"] == (root / "train_inst/0.png").read_bytes()
    index = read_index(tmp_path / "out/train")
    assert (index.channels, index.classes, index.instances) == ((3, 3), 0, True)


@pytest.mark.parametrize(
    ("folders", "classes", "reason"),
    [
        ((), 35, "no such folder"),
        (("train",), 35, "holds no train_label and train_img, or gtFine and leftImg8bit"),
        (("train",), 0, "holds no train_A and train_B"),
        (("train_A", "train_B"), 35, "holds pictures, no label maps; give --classes 0"),
        (("train_label", "train_img"), 0, "holds label maps; give --classes"),
        (("train_label", "gtFine/train"), 35, "holds both train_label and gtFine"),
        (("train_label",), 35, "train_img: no such folder"),
        (("leftImg8bit/val",), 35, "gtFine/val: no such folder"),
        (("test_label",), 35, "test has no photos"),
        (("train_label", "train_img"), 35, "no pictures here"),
    ],
)
def test_a_root_that_is_none(
    folders: tuple[str, ...], classes: int, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in folders:
        (tmp_path / "in" / folder).mkdir(parents=True)
    line = refusal(capsys, "labels", tmp_path / "in", tmp_path / "out", "--classes", classes)
    assert reason in line
    assert str(tmp_path / "in") in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("more", [(), ("--classes", "257"), ("--classes", "-1"), ("--classes", "35", "--sigma", "2")])
def test_a_mistaken_command_gets_one_line(more: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        packer.main(["labels", "in", "out", *more])
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


# Going on, and being known again


def test_the_same_command_goes_on(
    source: Path, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    argv = ("labels", source, tmp_path / "out", "--classes", 35, "--samples", 3)
    with monkeypatch.context() as patch:
        patch.setattr(packer, "write", interrupt)
        assert pack(*argv) == 130
    assert "classes is 36, was 35" in refusal(capsys, *argv[:3], "--classes", 36, "--samples", 3)
    assert "instances is False, was True" in refusal(capsys, *argv, "--no-instances")
    assert pack(*argv) == 0
    assert files(tmp_path / "out") == files(packed)


def test_other_settings_and_files_are_refused(source: Path, packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(packed)
    assert "other files or settings" in refusal(capsys, "labels", source, packed, "--classes", 36, "--samples", 3)
    assert "other files or settings" in refusal(
        capsys, "labels", source, packed, "--classes", 35, "--samples", 3, "--no-instances"
    )
    assert files(packed) == before


def test_sets_packed_before_there_were_label_maps_are_known() -> None:
    settings = Settings(form="pairs", layout="left", seed=0, samples=5, bytes=0, val=0, size=(0, 0), sigma=0.0)
    samples = [("k", '[["k.png", 3]]')]
    # what the packer of pairs alone gave
    assert (
        fingerprint(settings, samples, [Bad("n", "r")])
        == "528e0e788905c750354916ca92c9b0451f8a687ec980ba2418c8e7604d9c5610"
    )


# decode_ids by itself


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file (0 bytes)"),
        (b"no picture", "not an image"),
        (encoded("BMP"), f"{NOT_WHOLE} BMP of mode L"),
        (encoded("GIF"), f"{NOT_WHOLE} GIF of mode P"),
        (encoded("JPEG"), f"{NOT_WHOLE} JPEG of mode L"),
        (encoded("TIFF", compression="jpeg"), f"{NOT_WHOLE} JPEG of mode L"),
        (encoded("WEBP", lossless=True), f"{CHANNELS} 3"),
        # PIL would swap the bytes of this one
        (tiff(numbers(0, 35, np.int32), kind=2, order=">", deflate=True), f"{NOT_WHOLE} TIFF of mode I;32BS"),
    ],
)
def test_what_may_change_ids_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        decode_ids(data)


def test_ids_are_int32_as_they_were_stored() -> None:
    for high, dtype in ((35, np.uint8), (65536, np.uint16)):
        file = BytesIO()
        Image.fromarray(numbers(0, high, dtype)).save(file, "PNG")
        found = decode_ids(file.getvalue())
        assert (found.dtype, found.shape) == (np.int32, (H, W))
        assert np.array_equal(found, numbers(0, high, np.int32))


# The real thing

needs_cityscapes = pytest.mark.skipif(not CITYSCAPES.is_dir(), reason="no Cityscapes samples beside this checkout")


@needs_cityscapes
def test_real_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pack("labels", CITYSCAPES, tmp_path / "out", "--classes", 35, processes=os.cpu_count() or 1) == 0
    assert "test has no photos" in capsys.readouterr().out
    found = members(tmp_path / "out/train")
    assert len(found) == len(list((CITYSCAPES / "train_img").iterdir())) == 8
    highest = 0
    for key, one in found.items():
        for extension, folder, end in zip(("a", "inst", "b"), ("label", "inst", "img"), FINE, strict=True):
            assert one[f"{extension}.png"] == (CITYSCAPES / f"train_{folder}/{key}{end}").read_bytes()
        highest = max(highest, int(decode_ids(one["inst.png"]).max()))
        assert np.array_equal(decode_ids(one["inst.png"]), pixels(one["inst.png"]))
    assert highest == 33001
    index = read_index(tmp_path / "out/train")
    assert (index.classes, index.instances, index.channels, index.largest) == (35, True, (1, 3), (1024, 2048))
