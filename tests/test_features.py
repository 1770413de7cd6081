"""Instance features: gathered as a slow loop gathers, clustered for each class, drawn as a pure function, edited in one
place only."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from launch.cluster import main as cluster
from p2p import config as conf
from p2p import features
from p2p.appearance import Teller, chosen, edit, sampled
from p2p.data.augment import nearest
from p2p.data.shardset import ShardSet
from p2p.data.views import View, to_float, to_uint8
from p2p.features import Gathered, find
from p2p.generator import MARGIN, Generator, load
from p2p.networks.encoder import pooled
from shards import pack
from tests.test_labels import CLASSES, beside, make_generator, members, near, opened, result, sample, save, write
from tests.test_labels import translate as translate_labels

ROOT = Path(__file__).parents[1]
F = 2
"""Features of the test's generators."""


def batch_of(*seeds: int, pictures: bool = False) -> dict[str, Tensor]:
    """A batch as the reader has it."""
    each = [members(sample(seed, pictures=pictures)) for seed in seeds]
    return {name: torch.stack([one[name] for one in each]) for name in each[0]}


def centres_of(*classes: int, clusters: int = 3) -> dict[int, Tensor]:
    """Clusters that are all different."""
    values = torch.linspace(-1, 1, len(classes) * clusters * F).view(len(classes), clusters, F)
    return dict(zip(classes, values, strict=True))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose newest checkpoint has an encoder, with the training set that it names. Do not change it."""
    root = tmp_path_factory.mktemp("run")
    for seed in range(6):
        one = sample(seed)
        for kind, member in (("label", "x"), ("inst", "instances"), ("img", "y")):
            save(root / f"data/train_{kind}/{seed}.png", one[member])
    argv = ["labels", root / "data", root / "set", "--classes", CLASSES, "--samples", 4, "--processes", 1]
    assert pack.main([*map(str, argv)]) == 0
    for images in (10, 20):
        checkpoint = root / f"run/checkpoints/{images:012d}"
        make_generator(checkpoint, "features" if images == 20 else "boundaries", resized=True)
        tree = {"data": {"train": str(root / "set/train")}}
        (checkpoint / "config.yaml").write_text(conf.dump(conf.from_tree(tree)))
    return root


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    """The newest checkpoint of the run, to be written to."""
    source = run / "run/checkpoints/000000000020"
    target = tmp_path / "run/checkpoints/000000000020"
    target.mkdir(parents=True)
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


# Found and gathered


@pytest.mark.parametrize("classes", [0, CLASSES])
def test_instances_are_found_as_a_slow_loop_finds_them(classes: int) -> None:
    batch = batch_of(0, 1, 2, pictures=not classes)
    batch["instances"][1, 0, :3, :4] = 2_000_000_000  # no table has so many rows
    batch["instances"][2, 0, 5:, 6:] = 999
    found = find(View(classes, True), batch)
    slow = []
    for number, ids in enumerate(batch["instances"][:, 0].numpy()):
        for one in np.unique(ids):
            mine = ids == one
            votes = np.bincount(batch["x"][number, 0].numpy()[mine]) if classes else []
            kind = int(np.argmax(votes)) if classes else one if one < 1000 else one // 1000
            slow.append((int(one), int(kind), int(mine.sum()), number, np.argwhere(mine).tolist()))
    fast = []
    for row in range(len(found.ids)):
        where = (found.rows == row).nonzero()
        assert len({int(picture) for picture in where[:, 0]}) == 1
        fast.append(
            (*(int(v[row]) for v in (found.ids, found.classes, found.areas)), int(where[0, 0]), where[:, 1:].tolist())
        )
    assert sorted(fast) == sorted(slow)


def test_what_is_spread_lies_in_its_instance() -> None:
    batch = batch_of(3, 4)
    found = find(View(CLASSES), batch)
    maps = found.spread(torch.arange(len(found.ids)).float()[:, None].expand(-1, F))
    assert maps.shape == (2, F, *batch["x"].shape[2:])
    assert torch.equal(maps[:, 0].long(), found.rows)


@pytest.mark.parametrize("kind", ["features", "pictures and features"])
def test_features_are_gathered_as_a_slow_loop_gathers_them(tmp_path: Path, kind: str) -> None:
    G = make_generator(tmp_path, kind)
    batches = [batch_of(*seeds, pictures=kind.startswith("pictures")) for seeds in ((0, 1), (2,))]
    gathered = features.collect(G, [*batches, {"x": torch.empty(0), "y": torch.empty(0)}])
    slow: dict[int, list[tuple[float, list[float]]]] = {}
    for batch in batches:
        assert G.encoder
        maps = G.encoder.eval().maps(torch.nn.functional.pad(to_float(batch["y"]), (0, 2, 0, 2), mode="replicate"))
        for number, ids in enumerate(batch["instances"][:, 0]):
            for one in ids.unique():
                mine = ids == one
                mean = maps[number, :, : ids.shape[0], : ids.shape[1]][:, mine].double().mean(1).tolist()
                slow.setdefault(int(one) // 1000, []).append((int(mine.sum()) / (18 * 26 // 32), mean))
    assert gathered.keys() == slow.keys()
    for kind_of, found in gathered.items():
        assert found.areas.tolist() == [area for area, _ in slow[kind_of]]
        assert np.allclose(found.features, [mean for _, mean in slow[kind_of]], atol=1e-5)


def test_a_generator_without_an_encoder_has_nothing_to_gather(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="trained without features"):
        features.collect(make_generator(tmp_path), [batch_of(0)])
    with pytest.raises(ValueError, match="no pictures"):
        features.collect(make_generator(tmp_path, "features"), [])


# Clustered


def test_only_large_instances_count_and_a_class_keeps_its_largest() -> None:
    assert features.large(np.array([0.5, 0.51, 3, 0.1]), 2).tolist() == [1, 2]
    assert features.large(np.array([0.1, 0.4, 0.2, 0.5]), 2).tolist() == [1, 3]
    assert features.large(np.array([0.1]), 10).tolist() == [0]


def test_clusters_are_those_of_each_class_the_frequent_first() -> None:
    draw = np.random.default_rng(0)
    blobs = {1: [(30, [0.9, -0.9]), (20, [-0.5, 0.5])], 2: [(10, [0.1, 0.1]), (40, [-0.9, -0.9])]}
    gathered = {}
    for number, parts in blobs.items():
        values = np.concatenate([np.tile(np.float32(at), (n, 1)) for n, at in parts])
        values += draw.normal(0, 0.01, values.shape).astype(np.float32)
        small = np.full((25, F), 0.0, np.float32)  # would be a cluster, if small ones counted
        gathered[number] = Gathered(np.concatenate([values, small]), np.repeat([1, 0.2], [len(values), 25]))
    centres = features.fit(gathered, 2)
    assert torch.allclose(centres[1], torch.tensor([[0.9, -0.9], [-0.5, 0.5]]), atol=0.02)
    assert torch.allclose(centres[2], torch.tensor([[-0.9, -0.9], [0.1, 0.1]]), atol=0.02)


def test_no_more_clusters_than_different_features() -> None:
    values = np.float32([[0, 0], [0, 0], [0.5, 0.5], [0, 0]])
    centres = features.fit({7: Gathered(values, np.ones(4))}, 10)
    assert torch.equal(centres[7], torch.tensor([[0, 0], [0.5, 0.5]]))


def test_clustering_repeats_whatever_the_batches(tmp_path: Path) -> None:
    G = make_generator(tmp_path, "features")
    together = features.fit(features.collect(G, [batch_of(*range(8))]), 2)
    again = features.fit(features.collect(G, [batch_of(*range(8))]), 2)
    apart = features.fit(features.collect(G, [batch_of(seed) for seed in range(8)]), 2)
    assert together.keys() == again.keys() == apart.keys() == set(range(CLASSES))
    for number, centres in together.items():
        assert torch.equal(centres, again[number])
        assert torch.allclose(centres, apart[number], atol=1e-4)
        assert len(centres) == 2


# Drawn and chosen


def test_a_drawn_cluster_depends_on_seed_key_and_instance_alone() -> None:
    centres = centres_of(0, 1, 2, 3, 4, 5, clusters=7)
    batch = batch_of(0)
    view = View(CLASSES)
    maps = sampled(find(view, batch), centres, seed=3, key="ulm/1")
    assert maps.shape == (1, F, *batch["x"].shape[2:])
    moved = {name: member.flip(-1)[..., 4:] for name, member in batch.items()}  # other neighbours, other places
    assert torch.equal(sampled(find(view, moved), centres, seed=3, key="ulm/1"), maps.flip(-1)[..., 4:])
    assert not torch.equal(sampled(find(view, batch), centres, seed=4, key="ulm/1"), maps)
    assert not torch.equal(sampled(find(view, batch), centres, seed=3, key="ulm/2"), maps)
    assert torch.equal(pooled(maps, batch["instances"]), maps)


def test_what_is_drawn_is_the_same_on_every_machine() -> None:
    ids = torch.tensor([[[[0, 1, 2, 26001, 26002, 33001, 7, 2_000_000_000]]]], dtype=torch.int32)
    one = {"x": torch.zeros_like(ids, dtype=torch.uint8), "instances": ids}
    centres = {0: torch.arange(10.0)[:, None] / 10}
    maps = sampled(find(View(1), one), centres, seed=3, key="frankfurt/frankfurt_000000_000576")
    assert (maps.flatten() * 10).round().int().tolist() == [4, 4, 0, 2, 7, 4, 6, 0]


def test_every_cluster_of_a_class_is_as_likely() -> None:
    ids = torch.arange(10_000, dtype=torch.int32).view(1, 1, 100, 100)
    one = {"x": torch.zeros_like(ids, dtype=torch.uint8), "instances": ids}
    maps = sampled(find(View(1), one), {0: torch.arange(5.0)[:, None]}, seed=0, key="")
    assert (maps.flatten().long().bincount(minlength=5) - 2000).abs().max() < 200  # 5 standard deviations


def test_a_cluster_is_chosen_by_number_for_all_or_for_each_class() -> None:
    batch = batch_of(0, 1)
    found = find(View(CLASSES), batch)
    centres = {number: values[: 1 + number % 3] for number, values in centres_of(0, 1, 2, 3, 5).items()}
    labels = batch["x"][:, 0]
    for asked in (0, 4, {1: 1, 2: 5}):
        maps = chosen(found, centres, asked)
        for kind in labels.unique().tolist():
            number = asked if isinstance(asked, int) else asked.get(kind, 0)
            wanted = centres[kind][number % len(centres[kind])] if kind in centres else torch.zeros(F)
            assert (maps.permute(0, 2, 3, 1)[labels == kind] == wanted).all()


# Edited


def test_an_edit_changes_one_instance_and_nothing_else(tmp_path: Path) -> None:
    batch = batch_of(0)
    G = make_generator(tmp_path, "features")
    maps = G.encode(to_float(batch["y"]), batch["instances"])
    before = maps.clone()
    instance = int(batch["instances"].unique()[-1])
    mine = (batch["instances"] == instance).expand_as(maps)
    edited = edit(maps, batch["instances"], instance, torch.tensor([0.25, -0.75]))
    assert torch.equal(maps, before)
    assert torch.equal(edited[~mine], maps[~mine])
    assert set(edited[:, 0][mine[:, 0]].tolist()) == {0.25}
    assert set(edited[:, 1][mine[:, 1]].tolist()) == {-0.75}
    with pytest.raises(ValueError, match="no instance 77"):
        edit(maps, batch["instances"], 77, torch.zeros(F))


@pytest.mark.parametrize("norm", ["none", "instance", "batch"])
@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_an_edit_changes_the_picture_there_and_nowhere_else(tmp_path: Path, norm: str, statistics: Any) -> None:
    """Instance norm measures the whole picture, so that G itself would move every pixel."""
    G = make_generator(tmp_path, "features", norm=norm)
    G.inference = replace(G.inference, statistics=statistics)
    side = 128
    batch = members(sample(0, side, side))
    batch["instances"][:] = 0
    batch["instances"][:, :32, :32] = 5
    x = G.spec.view.encode({name: member[None] for name, member in batch.items()})["x"]
    before = torch.zeros(1, F, side, side)
    after = edit(before, batch["instances"][None], 5, torch.ones(F))
    old, new, alone = G(x, before), G.changed(x, before, after), G(x, after)
    moved = (new - old).abs().amax((0, 1))
    assert moved[:32, :32].max() > 1e-3
    assert moved[32 + MARGIN :].max() < 1e-5
    assert moved[:, 32 + MARGIN :].max() < 1e-5
    if norm == "none" or statistics == "running":
        torch.testing.assert_close(new[..., :32, :32], alone[..., :32, :32], rtol=0, atol=1e-5)
    else:
        assert (alone - old)[..., 64:, 64:].abs().max() > 1e-4  # what is prevented


# Kept


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    centres = centres_of(26, 0, 33)
    path = features.write(tmp_path, centres, 5)
    assert path == tmp_path / "clusters.json"
    assert json.loads(path.read_text())["clusters"] == 5
    again = features.read(tmp_path, F)
    assert again.keys() == centres.keys()
    assert all(torch.equal(again[number], values) for number, values in centres.items())
    assert [file.name for file in tmp_path.iterdir()] == ["clusters.json"]


GOOD: dict[str, Any] = {"clusters": 2, "features": F, "classes": {"3": [[0.5, 0], [-1, 1]]}}
HOSTILE: dict[str, Any] = {
    "no JSON": "{",
    "nothing": "",
    "a list": [],
    "bytes": b"\xff\xfe\x00",
    "too deep": "[" * 100_000,
    "other features": {**GOOD, "classes": {"3": [[0.5, 0, 0]]}},
    "rows of several lengths": {**GOOD, "classes": {"3": [[0.5, 0], [1]]}},
    "no clusters in a class": {**GOOD, "classes": {"3": []}},
    "no classes": {**GOOD, "classes": {}},
    "a class with a name": {**GOOD, "classes": {"car": [[0, 0]]}},
    "a class below 0": {**GOOD, "classes": {"-1": [[0, 0]]}},
    "not a number": json.dumps(GOOD).replace("0.5", "NaN"),
    "no finite number": json.dumps(GOOD).replace("0.5", "1e999"),
    "out of range": json.dumps(GOOD).replace("0.5", "1.5"),
    "text for a number": json.dumps(GOOD).replace("0.5", '"0.5"'),
    "a number with a million digits": json.dumps(GOOD).replace("0.5", "1" * 1_000_000),
    "truth for a number": json.dumps(GOOD).replace("0.5", "true"),
    "more than belongs there": {**GOOD, "pickle": "gASV"},
    "less than belongs there": {"clusters": 2, "features": F},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_one_line_that_names_it(tmp_path: Path, what: str) -> None:
    (tmp_path / "clusters.json").write_text(json.dumps(GOOD))
    assert features.read(tmp_path, F)[3].tolist() == [[0.5, 0], [-1, 1]]
    content = HOSTILE[what]
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    (tmp_path / "clusters.json").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ValueError, match="no usable clusters") as caught:
        features.read(tmp_path, F)
    assert str(caught.value).startswith(f"{tmp_path}/clusters.json: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


# The command


def test_the_command_clusters_the_newest_checkpoint(
    run: Path, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cluster([str(copied.parents[1]), "--clusters", "2"]) == 0
    said = capsys.readouterr().out.splitlines()
    found = features.read(copied, F)
    G, shards = load(copied), ShardSet(str(run / "set/train"))
    gathered = features.collect(G, features.every(G.spec, shards))
    expected = features.fit(gathered, 2)
    assert found.keys() == expected.keys()
    assert all(torch.allclose(values, expected[number], atol=1e-5) for number, values in found.items())
    lines = [f"class {n:3}: {len(gathered[n].areas):7,} instances, {len(found[n]):3} clusters" for n in sorted(found)]
    assert said[1:-1] == lines
    assert said[-1] == f"wrote {copied}/clusters.json"
    each = sum(len(one.areas) for one in gathered.values())
    ids = [shards.read(s, n)[1]["instances"] for s, count in enumerate(shards.counts) for n in range(count)]
    assert each == sum(len(nearest(one, (16, 24)).unique()) for one in ids)  # each picture once, as validation has it


def test_the_command_as_a_process_of_its_own(run: Path, copied: Path) -> None:
    (copied / "config.yaml").unlink()
    command = [sys.executable, "-m", "launch.cluster", copied, "--shards", run / "set/train"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(len(values) <= 10 for values in features.read(copied, F).values())


def test_without_scikit_learn_it_says_what_to_install(copied: Path) -> None:
    code = "import sys; sys.modules['sklearn'] = None; from launch.cluster import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, copied], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "pip install 'p2p[features]'" in done.stderr
    assert not (copied / "clusters.json").exists()


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        ("no encoder", "was trained without instance features; there is nothing to cluster"),
        ("no run", "no such file; give a run folder"),
        ("no config", "config.yaml: no such file to name the training set; give it with --shards"),
        ("no shards", "no index.json here"),
        ("pictures", "holds pictures, the generator translates label maps"),
        ("a damaged sample", "unreadable samples"),
    ],
)
def test_a_mistake_is_one_line(
    run: Path, copied: Path, tmp_path: Path, shard_folder: Path, mistake: str, says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    asked: list[object] = [copied]
    if mistake == "no encoder":
        asked = [run / "run/checkpoints/000000000010"]
    if mistake == "no run":
        asked = [tmp_path / "nothing"]
    if mistake == "no config":
        (copied / "config.yaml").unlink()
    if mistake == "no shards":
        asked += ["--shards", tmp_path]
    if mistake == "pictures":
        asked += ["--shards", shard_folder / "train"]
    if mistake == "a damaged sample":
        for file in (run / "set/train").iterdir():
            save_bytes(tmp_path / "set" / file.name, file.read_bytes())
        data = bytearray((tmp_path / "set/shard-000000.tar").read_bytes())
        data[700] ^= 1
        (tmp_path / "set/shard-000000.tar").write_bytes(data)
        asked += ["--shards", tmp_path / "set"]
    assert cluster([*map(str, asked)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("p2p-cluster: ")
    assert says in error
    assert error.count("\n") == 1
    assert not (copied / "clusters.json").exists()


def save_bytes(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


# In translation


@pytest.fixture(name="G")
def generator_with_clusters(tmp_path: Path) -> Generator:
    """A generator in `G`, clusters of all classes but 5 beside it, and two samples."""
    G = make_generator(tmp_path / "G", "features")
    features.write(tmp_path / "G", centres_of(0, 1, 2, 3, 4))
    write(tmp_path, {"a": sample(0), "b": sample(1)})
    return G


def made(G: Generator, seed: int, maps: Tensor) -> Tensor:
    batch = batch_of(seed)
    return to_uint8(G(G.spec.view.encode(batch)["x"], maps))[0]


def maps_of(G: Generator, seed: int, key: str, how: str | int) -> Tensor:
    """Features as the command should find them."""
    batch, centres = batch_of(seed), centres_of(0, 1, 2, 3, 4)
    found = find(G.spec.view, batch)
    if how == "real":
        return G.encode(to_float(batch["y"]), batch["instances"])
    return chosen(found, centres, how) if isinstance(how, int) else sampled(found, centres, seed=9, key=key)


@pytest.mark.parametrize(
    ("options", "target", "how", "told"),
    [
        ([], True, "real", "of the target"),
        ([], False, "sampled", "sampled, seed 9"),
        (["--features", "sampled"], True, "sampled", "sampled, seed 9"),
        (["--features", "real"], True, "real", "of the target"),
        (["--features", "4"], True, 4, "cluster 4 of each class"),
    ],
)
def test_features_are_those_that_were_asked_for(
    tmp_path: Path, G: Generator, options: list[str], target: bool, how: str | int, told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folders = beside(tmp_path, "instances", *["y"] * target)
    assert translate_labels(tmp_path, tmp_path / "x", *folders, *options, "--seed", 9) == 0
    for seed, name in enumerate("ab"):
        assert near(opened(tmp_path / f"out/output/{name}.png"), made(G, seed, maps_of(G, seed, name, how)))
    others = [made(G, 0, maps_of(G, 0, "a", other)) for other in {"real", "sampled", 4} - {how}]
    assert not any(near(opened(tmp_path / "out/output/a.png"), other) for other in others)
    assert result(tmp_path / "out")["features"] == told
    assert told in (tmp_path / "out/index.html").read_text()
    unknown = "no clusters of class 5; the features of its instances are 0\n"
    assert capsys.readouterr().err == ("" if how == "real" else unknown)


def test_an_instance_is_edited_where_it_is_and_nowhere_else(
    tmp_path: Path, G: Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = set(batch_of(0)["instances"].unique().tolist()) - set(batch_of(1)["instances"].unique().tolist())
    instance = max(one for one in ids if 0 < one < 5000)
    options = beside(tmp_path, "instances", "y")
    assert translate_labels(tmp_path, tmp_path / "x", *options, "--edit", f"{instance}=4") == 0
    assert translate_labels(tmp_path, tmp_path / "x", *options, out="plain") == 0
    value = centres_of(0, 1, 2, 3, 4)[instance // 1000][4 % 3]
    maps = edit(maps_of(G, 0, "a", "real"), batch_of(0)["instances"], instance, value)
    x, before = G.spec.view.encode(batch_of(0))["x"], maps_of(G, 0, "a", "real")
    assert near(opened(tmp_path / "out/output/a.png"), to_uint8(G.changed(x, before, maps))[0])
    assert not near(opened(tmp_path / "out/output/a.png"), opened(tmp_path / "plain/output/a.png"))
    assert torch.equal(opened(tmp_path / "out/output/b.png"), opened(tmp_path / "plain/output/b.png"))
    assert result(tmp_path / "out")["features"] == f"of the target, instance {instance} cluster 4"
    capsys.readouterr()
    assert translate_labels(tmp_path, tmp_path / "x", *options, "--edit", "77=0", "--overwrite") == 2
    assert capsys.readouterr().err == "--edit 77=0: no picture has this instance\n"


def test_damaged_clusters_are_one_line(tmp_path: Path, G: Generator, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "G/clusters.json").write_text("{}")
    assert translate_labels(tmp_path, tmp_path / "x", *beside(tmp_path, "instances")) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path}/G/clusters.json: no usable clusters" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_teller_says_what_is_unknown_and_what_was_edited(tmp_path: Path, G: Generator) -> None:
    teller = Teller(G, centres_of(1), "sampled", edits={0: 1, 77: 1})
    one = members(sample(0))
    maps = teller("a", one)[1:]  # after what was before
    assert teller.unknown == set(one["x"].unique().tolist()) - {1}
    assert teller.edited == {0}
    assert (maps[:, :, (one["x"] != 1)[0]] == 0).all()
    assert not (maps[:, :, (one["x"] == 1)[0]] == 0).any()
