"""Translation of label sets: the picture is G's of exactly these maps, what belongs together is found by name, and
what is wrong is named."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from launch.translate import main
from p2p.config import Inference
from p2p.data.augment import Augment
from p2p.data.shardset import ShardSet
from p2p.data.views import View, boundaries, painted, to_float, to_uint8
from p2p.generator import Generator, load
from p2p.spec import Net, Spec
from p2p.tiles import tiled
from shards import pack
from tests.conftest import SHARED

CITYSCAPES = SHARED / "cityscapes_samples"
CLASSES = 6
H, W = 18, 26
VIEWS = {
    "labels": (View(CLASSES), False),
    "boundaries": (View(CLASSES, True), False),
    "features": (View(CLASSES, True), True),
    "features alone": (View(CLASSES), True),
    "pictures and boundaries": (View(0, True), False),
    "pictures and features": (View(0, True), True),
}
"""Kinds of generators: the view, and whether there is an encoder."""


def make_generator(folder: Path, kind: str = "boundaries", *, norm: str = "instance", **spec: Any) -> Generator:
    """A small residual generator, stored in a folder."""
    view, encoded = VIEWS[kind]
    torch.manual_seed(1)
    encoder = Net("instance", {"width": 2, "downs": 2}, (3, 2)) if encoded else None
    made = Spec(
        "global",
        {"width": 4, "downs": 2, "blocks": 1, "norm": norm},
        (view.channels(3, 3)[0] + 2 * encoded, 3),
        **{"crop": (16, 24), "view": view, "encoder": encoder, **spec},
    )
    G = Generator(made.build(), made, Inference())
    for parameter in G.net.parameters():  # as built, the picture is nearly gray whatever is done
        parameter.data *= 8 if norm == "none" else 3
    folder.mkdir(parents=True, exist_ok=True)
    G.save(folder / "generator.safetensors")
    return load(folder)


def sample(seed: int, height: int = H, width: int = W, *, pictures: bool = False) -> dict[str, np.ndarray]:
    """A label map of rectangles, each an instance of its own, and a photograph; as files hold them."""
    draw = np.random.default_rng(seed)
    x, instances = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint16)
    for number in range(5):
        top, left = draw.integers(0, height), draw.integers(0, width)
        kind = draw.integers(1, CLASSES)
        x[top : top + height // 2, left : left + width // 2] = kind
        instances[top : top + height // 2, left : left + width // 2] = kind * 1000 + number
    y = draw.integers(0, 256, (height, width, 3), np.uint8)
    return {"x": draw.integers(0, 256, (height, width, 3), np.uint8) if pictures else x, "instances": instances, "y": y}


def members(one: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The same as a reader has it, `[C,H,W]`."""
    planes = {name: torch.from_numpy(v.astype(np.int32)).reshape(*v.shape[:2], -1) for name, v in one.items()}
    return {n: v.permute(2, 0, 1).to(torch.int32 if n == "instances" else torch.uint8) for n, v in planes.items()}


def by_hand(G: Generator, one: Mapping[str, Tensor]) -> Tensor:
    return to_uint8(G.of({name: member[None] for name, member in one.items()}))[0]


def save(path: Path, values: np.ndarray | Image.Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (Image.fromarray(values) if isinstance(values, np.ndarray) else values).save(path)
    return path


def write(root: Path, samples: Mapping[str, Mapping[str, np.ndarray]]) -> Path:
    """Folders x, instances and y, files of one name in each."""
    for name, one in samples.items():
        for member, values in one.items():
            save(root / member / f"{name}.png", values)
    return root


def opened(path: Path) -> Tensor:
    values = np.array(Image.open(path))
    return torch.from_numpy(values.reshape(*values.shape[:2], -1)).permute(2, 0, 1)


def near(a: Tensor, b: Tensor) -> bool:
    """Whether 8-bit pictures are equal, but for what 1e-6 may do to a rounding."""
    return a.shape == b.shape and int((a.int() - b.int()).abs().max()) <= 1


def translate(root: Path, *argv: object, out: str = "out") -> int:
    return main([str(root / "G"), *map(str, argv), "--out", str(root / out)])


def result(out: Path) -> dict[str, Any]:
    return json.loads((out / "result.json").read_text())


def beside(root: Path, *kinds: str) -> list[object]:
    """Options that name the folders of `write`."""
    names = {"instances": "--instances", "y": "--targets"}
    return [part for kind in kinds for part in (names[kind], root / kind)]


def maps(G: Generator) -> list[str]:
    """What a generator's inputs need beside them, and a target."""
    return ["instances", "y"] if G.spec.view.boundaries or G.spec.encoder else ["y"]


# The picture


@pytest.mark.parametrize("kind", VIEWS)
def test_the_output_is_what_the_generator_makes_of_the_maps(tmp_path: Path, kind: str) -> None:
    G = make_generator(tmp_path / "G", kind)
    pictures = kind.startswith("pictures")
    samples = {name: sample(seed, pictures=pictures) for seed, name in enumerate(("a", "deep/er/b", "c"))}
    write(tmp_path, samples)
    assert translate(tmp_path, tmp_path / "x", *beside(tmp_path, *maps(G))) == 0
    values = []
    for name, one in samples.items():
        seen = members(one)
        shown = seen["x"] if pictures else painted(seen["x"][None])[0]
        assert torch.equal(opened(tmp_path / f"out/input/{name}.png"), shown)
        assert torch.equal(opened(tmp_path / f"out/target/{name}.png"), seen["y"])
        assert near(opened(tmp_path / f"out/output/{name}.png"), by_hand(G, seen))
        fake = G.of({n: member[None] for n, member in seen.items()}).clamp(-1, 1)
        values.append(float((fake - to_float(seen["y"][None])).abs().mean() / 2))
    rows = {row["name"]: row["l1"] for row in result(tmp_path / "out")["translated"]}
    assert [rows[name] for name in samples] == pytest.approx(values, abs=1e-5)
    assert not list((tmp_path / "out").rglob("*inst*"))


def test_a_target_is_not_needed(tmp_path: Path) -> None:
    G = make_generator(tmp_path / "G")
    one = sample(0)
    write(tmp_path, {"a": one})
    assert translate(tmp_path, tmp_path / "x/a.png", *beside(tmp_path, "instances")) == 0
    assert near(opened(tmp_path / "out/output/a.png"), by_hand(G, members(one)))
    assert not (tmp_path / "out/target").exists()
    assert result(tmp_path / "out")["translated"][0]["l1"] is None


@pytest.mark.parametrize("size", [(12, 20), 24])
def test_masks_take_the_nearest_pixel_and_photographs_are_interpolated(tmp_path: Path, size: Any) -> None:
    G = make_generator(tmp_path / "G", "features")
    one = sample(3, 36, 50)
    write(tmp_path, {"a": one})
    asked = size if isinstance(size, int) else "x".join(map(str, size))
    assert translate(tmp_path, tmp_path / "x", *beside(tmp_path, "instances", "y"), "--size", asked) == 0
    masks = frozenset(["x", "instances"])
    seen = Augment(size, size, mirror=False, train=False, masks=masks)(members(one), 0)
    shown = opened(tmp_path / "out/input/a.png")
    assert torch.equal(shown, painted(seen["x"][None])[0])
    colours = {tuple(colour) for colour in painted(torch.arange(CLASSES)[None, None, None])[0].flatten(1).T.tolist()}
    assert {tuple(colour) for colour in shown.flatten(1).T.tolist()} <= colours
    assert torch.equal(opened(tmp_path / "out/target/a.png"), seen["y"])
    assert near(opened(tmp_path / "out/output/a.png"), by_hand(G, seen))


@pytest.mark.parametrize("kind", ["boundaries", "features", "pictures and boundaries"])
def test_a_picture_does_not_depend_on_its_companions(tmp_path: Path, kind: str) -> None:
    """Nor on the batch; sizes that are padded to one share a forward, and no boundary comes from the padding."""
    G = make_generator(tmp_path / "G", kind)
    sizes = [(16, 24), (15, 22), (16, 24), (20, 24), (14, 21), (16, 23)]
    pictures = kind.startswith("pictures")
    samples = {f"{n}": sample(n, *size, pictures=pictures) for n, size in enumerate(sizes)}
    write(tmp_path, samples)
    options = beside(tmp_path, "instances", "y")
    assert translate(tmp_path, tmp_path / "x", *options, "--batch", 1, out="one") == 0
    assert translate(tmp_path, tmp_path / "x", *options, "--batch", 8, out="eight") == 0
    assert translate(tmp_path, tmp_path / "x/4.png", *options, out="alone") == 0
    for name, one in samples.items():
        expected = by_hand(G, members(one))
        for out in ("one", "eight", *(["alone"] if name == "4" else [])):
            assert near(opened(tmp_path / f"{out}/output/{name}.png"), expected)
    assert result(tmp_path / "one")["translated"][4]["name"] == "4"


def test_tiles_see_the_boundaries_of_the_whole_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    G = make_generator(tmp_path / "G", "features", norm="none")
    one = sample(5, 50, 70)
    write(tmp_path, {"a": one, "small": sample(6)})
    options = beside(tmp_path, "instances", "y")
    assert translate(tmp_path, tmp_path / "x", *options, "--tile", "24x32") == 0
    assert translate(tmp_path, tmp_path / "x", *options, out="whole") == 0
    batch = {name: member[None] for name, member in members(one).items()}
    x, features = G.spec.view.encode(batch)["x"], G.encode(to_float(batch["y"]), batch["instances"])
    expected = tiled(lambda r, c: G(x[..., r, c], features[..., r, c]), (50, 70), tile=(24, 32), overlap=6, multiple=4)
    assert near(opened(tmp_path / "out/output/a.png"), to_uint8(expected)[0])
    assert not near(opened(tmp_path / "out/output/a.png"), opened(tmp_path / "whole/output/a.png"))  # tiles have edges
    assert near(opened(tmp_path / "out/output/small.png"), opened(tmp_path / "whole/output/small.png"))
    said = capsys.readouterr().out
    assert "1 picture of 70x50 in tiles of up to 32x24; 1 picture of 26x18 padded to 28x20" in said
    assert result(tmp_path / "out")["tiles"].startswith("of 24x32 (height x width), at least 6 pixels")


# Shard sets


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pix2pixHD's folders in `data` and the set that is packed from them in `set`. Do not change them."""
    root = tmp_path_factory.mktemp("labels")
    for seed, name in enumerate(("0", "1", "2", "deep/3", "4.dotted")):
        one = sample(seed)
        for kind, member in (("label", "x"), ("inst", "instances"), ("img", "y")):
            save(root / f"data/train_{kind}/{name}.png", one[member])
    argv = ["labels", root / "data", root / "set", "--classes", CLASSES, "--samples", 2, "--processes", 1]
    assert pack.main([*map(str, argv)]) == 0
    return root


@pytest.mark.parametrize("kind", ["labels", "boundaries", "features"])
def test_a_shard_set_is_translated_as_its_files_are(tmp_path: Path, root: Path, kind: str) -> None:
    G = make_generator(tmp_path / "G", kind)
    assert translate(tmp_path, root / "set/train", out="shards") == 0
    folders = {"instances": ["--instances", root / "data/train_inst"], "y": ["--targets", root / "data/train_img"]}
    options = [part for name in maps(G) for part in folders[name]]
    assert translate(tmp_path, root / "data/train_label", *options, out="files") == 0
    shards = ShardSet(str(root / "set/train"))
    for shard, count in enumerate(shards.counts):
        for number in range(count):
            key, one = shards.read(shard, number)
            assert near(opened(tmp_path / f"shards/output/{key}.png"), by_hand(G, one))
            for folder in ("input", "output", "target"):
                a, b = (opened(tmp_path / f"{out}/{folder}/{key}.png") for out in ("shards", "files"))
                assert near(a, b) if folder == "output" else torch.equal(a, b)


def test_shards_are_resized_as_in_training(tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_generator(tmp_path / "G", resized=True)
    assert translate(tmp_path, root / "set/train") == 0
    assert opened(tmp_path / "out/input/0.png").shape == (3, 16, 24)
    assert "trained on" not in capsys.readouterr().out
    assert translate(tmp_path, root / "set/train", "--size", "20x28", "--overwrite") == 0
    assert opened(tmp_path / "out/input/0.png").shape == (3, 20, 28)
    assert result(tmp_path / "out")["size"] == "resized to 20x28 (height x width)"


def test_what_was_trained_on_is_told(tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_generator(tmp_path / "G")
    assert translate(tmp_path, root / "set/train") == 0
    assert "trained on 16x24 (height x width) pixels; --size 16x24 resizes to that" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("packed", "view", "says"),
    [
        ({"classes": 0}, View(CLASSES, True), "holds pictures, the generator translates label maps"),
        ({}, View(0, True), "holds label maps, the generator translates pictures"),
        ({}, View(3, True), "holds 6 classes, the generator knows 3"),
        ({"instances": False}, View(CLASSES, True), "holds no instance maps"),
    ],
)
def test_a_shard_set_for_others_is_refused(
    tmp_path: Path, packed: dict[str, Any], view: View, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = Spec("global", {"width": 2, "downs": 1, "blocks": 1}, (view.channels(3, 3)[0], 3), 16, view=view)
    (tmp_path / "G").mkdir()
    Generator(spec.build(), spec, Inference()).save(tmp_path / "G/generator.safetensors")
    classes, one = packed.get("classes", CLASSES), sample(0, pictures="classes" in packed)
    names = ("A", "inst", "B") if not classes else ("label", "inst", "img")
    for kind, member in zip(names, ("x", "instances", "y"), strict=True):
        save(tmp_path / f"data/train_{kind}/a.png", one[member])
    argv = ["labels", tmp_path / "data", tmp_path / "set", "--classes", classes, "--processes", 1]
    left_out = [] if packed.get("instances", True) else ["--no-instances"]
    assert pack.main([*map(str, argv), *left_out]) == 0
    capsys.readouterr()
    assert translate(tmp_path, tmp_path / "set/train") == 2
    error = capsys.readouterr().err
    assert f"{tmp_path}/set/train: {says}" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


# By name


def test_cityscapes_own_folders_where_all_lies_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    G = make_generator(tmp_path / "G")
    samples = {}
    for seed, scene in enumerate(("aachen/aachen_1", "ulm/ulm_2")):
        one = samples[scene] = sample(seed)
        save(tmp_path / f"gtFine/{scene}_gtFine_labelIds.png", one["x"])
        save(tmp_path / f"gtFine/{scene}_gtFine_instanceIds.png", one["instances"])
        save(tmp_path / f"gtFine/{scene}_gtFine_labelTrainIds.png", sample(9)["x"])
        save(tmp_path / f"gtFine/{scene}_gtFine_color.png", one["y"])
        save(tmp_path / f"photos/{scene}_leftImg8bit.png", one["y"])
    options = ["--instances", tmp_path / "gtFine", "--targets", tmp_path / "photos"]
    assert translate(tmp_path, tmp_path / "gtFine", *options) == 0
    assert {row["name"] for row in result(tmp_path / "out")["translated"]} == set(samples)
    for scene, one in samples.items():
        assert near(opened(tmp_path / f"out/output/{scene}.png"), by_hand(G, members(one)))
        assert torch.equal(opened(tmp_path / f"out/target/{scene}.png"), members(one)["y"])
    assert "passed over 6 files that are no label maps by name" in capsys.readouterr().out


def test_files_are_matched_by_name_and_never_by_position(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    G = make_generator(tmp_path / "G")
    samples = {name: sample(seed) for seed, name in enumerate("abcd")}
    write(tmp_path, samples)
    (tmp_path / "instances/b.png").rename(tmp_path / "instances/B_other.png")  # c is now where b was
    (tmp_path / "instances/d.png").rename(tmp_path / "instances/d_gtCoarse_instanceIds.png")
    save(tmp_path / "instances/0.png", samples["a"]["instances"])
    assert translate(tmp_path, tmp_path / "x", *beside(tmp_path, "instances")) == 2
    said = capsys.readouterr().err
    assert said == f"{tmp_path}/x/b.png: needs one instance map b in {tmp_path}/instances; there is none\n"
    assert [row["name"] for row in result(tmp_path / "out")["translated"]] == ["a", "c", "d"]
    for name in "acd":
        assert near(opened(tmp_path / f"out/output/{name}.png"), by_hand(G, members(samples[name])))


def test_two_inputs_never_share_an_instance_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_generator(tmp_path / "G")
    write(tmp_path, {"a": sample(0)})
    save(tmp_path / "more/a.png", sample(1)["x"])
    asked = tmp_path / "x", tmp_path / "more", *beside(tmp_path, "instances")
    assert translate(tmp_path, *asked) == 2
    assert "only one can be the input of instance map a" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# What goes wrong


def jpeg(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "JPEG")
    return file.getvalue()


BAD: dict[str, tuple[str, Any, str]] = {
    "a class too many": ("x", np.full((H, W), CLASSES, np.uint8), "x/b.png: holds label 6, and the generator knows 0"),
    "16 bits": ("x", np.full((H, W), 256, np.uint16), "x/b.png: holds label 256, "),
    "colours": ("x", np.zeros((H, W, 3), np.uint8), "x/b.png: a label or instance map has one channel; this has 3"),
    "a photograph's coding": ("x", jpeg(np.zeros((H, W), np.uint8)), "x/b.png: a label or instance map is PNG or TIFF"),
    "no label map": ("x", b"text", "x/b.png: not an image"),
    "instances of another size": (
        "instances",
        np.zeros((H, W + 1), np.uint16),
        "x/b.png: its members are of several sizes in pixels (input 26x18, instance map 27x18, target 26x18)",
    ),
    "instances in colours": (
        "instances",
        np.zeros((H, W, 3), np.uint8),
        "instances/b.png: a label or instance map has one channel; this has 3",
    ),
    "damaged instances": ("instances", b"", "instances/b.png: empty file"),
    "no instances": ("instances", None, "instances; there is none"),
    "several instances": (
        "instances/b_gtFine_instanceIds.png",
        np.zeros((H, W), np.uint8),
        "there is several (b.png, ",
    ),
    "no target": ("y", None, "x/b.png: needs one target b in "),
    "a target of another size": ("y", np.zeros((H + 2, W, 3), np.uint8), "target 26x20)"),
    "a deep target": ("y", np.zeros((H, W), np.uint16), "y/b.png: more than 8 bits"),
}


@pytest.mark.parametrize("mistake", BAD)
def test_what_cannot_be_used_is_named_and_the_others_are_done(
    tmp_path: Path, mistake: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make_generator(tmp_path / "G", "features")
    write(tmp_path, {name: sample(seed) for seed, name in enumerate("abc")})
    where, content, says = BAD[mistake]
    path = tmp_path / where if "/" in where else tmp_path / where / "b.png"
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save(path, content)
    assert translate(tmp_path, tmp_path / "x", *beside(tmp_path, "instances", "y")) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{tmp_path}/x/b.png: ")
    assert says in error
    assert error.count("\n") == 1
    assert [row["name"] for row in result(tmp_path / "out")["translated"]] == ["a", "c"]
    assert [bad["source"] for bad in result(tmp_path / "out")["bad"]] == [f"{tmp_path}/x/b.png"]


def test_a_map_is_not_taken_for_its_own_instance_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_generator(tmp_path / "G")
    write(tmp_path, {"a": sample(0)})
    assert translate(tmp_path, tmp_path / "x", "--instances", tmp_path / "x") == 2
    assert "needs one instance map a" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("labels", ["--instances", "instances"], "--instances: this G was trained without instance maps; leave it out"),
        ("boundaries", [], "--instances: this G needs the instance map of each input"),
        ("pictures and boundaries", [], "--instances: this G needs the instance map of each input"),
        ("boundaries", ["--instances", "nowhere"], "no instance maps here; give the folder"),
        ("labels", ["--targets", "G"], "no targets here; give the folder"),
        ("labels", ["--pairs", "left"], "--pairs: this G translates label maps"),
        ("pictures and boundaries", ["--pairs", "left", "--targets", "y"], "--targets: with --pairs"),
        ("boundaries", ["--instances", "instances", "--features", "3"], "--features: this G was trained without"),
        ("boundaries", ["--instances", "instances", "--features", "0"], "--features: this G was trained without"),
        ("boundaries", ["--instances", "instances", "--edit", "1=1"], "--edit: this G was trained without"),
        ("features", ["--instances", "instances", "--features", "real"], "--features real: are those of targets"),
        ("features", ["--instances", "instances"], "clusters.json: no such file; finish the training, or run python"),
        ("boundaries", ["--instances", "instances", "--tile", "30"], "--tile: 30 pixels are no multiple of 4"),
        ("labels", ["--reverse"], "--reverse: is for shard sets"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_one_line_and_nothing_is_written(
    tmp_path: Path, kind: str, options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make_generator(tmp_path / "G", kind)
    write(tmp_path, {"a": sample(0)})
    given = [str(tmp_path / option) if (tmp_path / option).is_dir() else option for option in options]
    assert translate(tmp_path, tmp_path / "x", *given) == 2
    said, error = capsys.readouterr()
    assert said == ""
    assert says in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_options_for_files_are_refused_where_there_are_none(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_generator(tmp_path / "G")
    for option, folder in (("--instances", "data/train_inst"), ("--targets", "data/train_img")):
        assert translate(tmp_path, root / "set/train", option, root / folder) == 2
        assert f"{option}: is for files; a shard set has its own" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--size", "12x"], ["--size", "0x8"], ["--tile", "a"], ["--edit", "3"]])
def test_a_misspelt_option_is_one_line(tmp_path: Path, option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    make_generator(tmp_path / "G")
    with pytest.raises(SystemExit) as ended:
        translate(tmp_path, tmp_path, *option)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_result_is_not_put_among_the_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_generator(tmp_path / "G")
    write(tmp_path, {"a": sample(0)})
    assert translate(tmp_path, tmp_path / "x", *beside(tmp_path, "instances"), out="instances/out") == 2
    assert "lie in each other" in capsys.readouterr().err
    assert not (tmp_path / "instances/out").exists()


# Real maps


@pytest.mark.skipif(not CITYSCAPES.is_dir(), reason=f"{CITYSCAPES.name}: the sample maps are not on this machine")
def test_real_maps_of_cityscapes(tmp_path: Path) -> None:
    view = View(35, True)
    spec = Spec("global", {"width": 2, "downs": 2, "blocks": 1}, (36, 3), (64, 128), view=view)
    (tmp_path / "G").mkdir()
    G = Generator(spec.build(), spec, Inference())
    G.save(tmp_path / "G/generator.safetensors")
    folder = CITYSCAPES / "test_label"
    options = ["--instances", CITYSCAPES / "test_inst", "--size", "64x128"]
    assert translate(tmp_path, folder, *options) == 0
    rows = result(tmp_path / "out")["translated"]
    assert len(rows) == len(list(folder.iterdir())) == 15
    name = "frankfurt_000001_055387"
    labels = np.array(Image.open(folder / f"{name}_gtFine_labelIds.png"))
    instances = np.array(Image.open(CITYSCAPES / "test_inst" / f"{name}_gtFine_instanceIds.png"))
    small = {"x": labels[8::16, 8::16], "instances": instances[8::16, 8::16]}  # the centre of each 16 x 16, as PIL
    seen = members(small)
    assert boundaries(seen["instances"][None]).any()
    assert torch.equal(opened(tmp_path / f"out/input/{name}.png"), painted(seen["x"][None])[0])
    assert near(opened(tmp_path / f"out/output/{name}.png"), by_hand(G, seen))
