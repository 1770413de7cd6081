"""Coarse to fine: what a stage takes over, what learns in it, in one command and in separate runs."""

import gc
import json
import shutil
import subprocess
import threading
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from launch import muster
from p2p import checkpoint, schedule
from p2p import config as conf
from p2p.build import build_experiment, build_networks
from p2p.data.augment import sides
from p2p.data.views import View
from p2p.engine import engines_of
from p2p.generator import Generator
from p2p.log import Journal
from p2p.networks import Encoder, LocalEnhancer, MultiScale, ResNet, UNet
from p2p.networks.network import newest_part
from p2p.networks.vgg import VGG
from p2p.run import Run
from p2p.spec import Net, Spec
from p2p.stages import grown, stages, taken_over
from p2p.tasks import TASKS, Pix2Pix
from tests.conftest import hd_tree, small_tree
from tests.test_train import ROOT, command, refused, scalars, train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, label_folder):
    """A run through all stages, with a checkpoint at each end and in the middle; its config."""
    root = tmp_path_factory.mktemp("coarse")
    config = root / "hd.yaml"
    config.write_text(json.dumps(hd_tree(label_folder)))
    assert train(config, root / "run", "every.save=8", "every.keep=99") == 0
    return root / "run", config


def state(run, images, name="G"):
    return load_file(checkpoint.folder(run, images) / f"{name}.safetensors")


def changed(before, after, prefix):
    """Which tensors of a kind two states have otherwise."""
    return {n for n in before if n.startswith(prefix) and n in after and not torch.equal(before[n], after[n])}


def test_the_enhancer_begins_with_the_global_nets_weights_and_moments(whole):
    """At the end of stage 0 the checkpoint is the global net's; 4 steps later, the enhancer having learnt alone, the
    trunk's weights and Adam's moments are still those."""
    run, _ = whole
    coarse, fine = state(run, 12), state(run, 16)
    trunk = {n for n in coarse if "G.trunk." in n}
    assert trunk
    assert any(n.startswith("adam/") for n in trunk)
    assert all(torch.equal(coarse[n], fine[n]) for n in trunk)
    assert not any("G.enhancers." in n for n in coarse)
    assert all(any(part in n for part in ("G.enhancers.0.", "G.head.", "E.")) for n in changed(coarse, fine, "net/"))


def test_what_learns_alone_is_the_enhancer_and_the_encoder(whole):
    run, _ = whole
    moved = changed(state(run, 16), state(run, 24), "net/")
    assert {n.split("/")[1].split(".")[0] for n in moved} == {"G", "E"}
    assert {n.split(".")[1] for n in moved if n.startswith("net/G.")} == {"enhancers", "head"}
    assert changed(state(run, 16, "D"), state(run, 24, "D"), "net/")
    together = changed(state(run, 24), state(run, 32), "net/")
    assert any(".trunk." in n for n in together if n.startswith("net/G."))


def test_adam_counts_the_steps_that_each_weight_has_made(whole):
    """3 steps of the global net, 3 of the enhancer alone, 6 of all."""
    run, _ = whole
    steps = {n.split("/")[1]: int(t) for n, t in state(run, 48).items() if n.endswith("/step")}
    assert {steps[n] for n in steps if n.startswith("G.trunk.")} == {3 + 6}
    assert {steps[n] for n in steps if n.startswith(("G.enhancers.", "G.head."))} == {3 + 6}
    assert {steps[n] for n in steps if n.startswith("E.")} == {3 + 3 + 6}
    D = {n.split("/")[1]: int(t) for n, t in state(run, 48, "D").items() if n.endswith("/step")}
    assert {D[n] for n in D if n.startswith("scales.0.")} == {12}  # the coarse scale was there from the start
    assert {D[n] for n in D if n.startswith("scales.1.")} == {9}


def test_the_average_goes_on_where_the_networks_stay_the_same(whole, tmp_path):
    """Steps averaged: of the global net, then, begun anew, of the enhancer's stage, which goes on when all learns."""
    _, config = whole
    assert train(config, tmp_path, "ema.half_life=20", "every.save=0", "every.keep=9") == 0
    counted = {images: int(state(tmp_path, images, "ema")["n_averaged"]) for images in (12, 24, 48)}
    assert counted == {12: 3, 24: 3, 48: 9}


def test_the_rate_goes_through_the_change_as_each_schedule_says(whole):
    _, config = whole
    made = build_experiment(conf.load(config), 1, CPU)
    assert [(s.begin, s.total, s.alone) for s in (made.before.before, made.before, made)] == [
        (0, 12, False), (12, 24, True), (24, 48, False),
    ]  # fmt: skip
    coarse, fine = schedule.factor("linear", 0.25, 0.25, 24), schedule.factor("linear", 0.75, 0.75, 24)
    for images in range(0, 48, 4):
        expected = coarse(images) if images < 12 else fine(images - 12)
        assert made.at(images).rate(images) == expected
    assert made.at(12).rate(12) == 1  # full again, where the global net's had fallen to a sixth
    assert made.at(23).rate(23) == made.rate(23)  # one schedule for the two parts of a stage


def test_the_pictures_of_a_stage_have_its_size(whole):
    _, config = whole
    made = build_experiment(conf.load(config), 1, CPU)
    for images, side, name, scales in ((0, 16, "global", 1), (12, 32, "local", 2), (24, 32, "local", 2)):
        stage = made.at(images)
        batch = next(iter(stage.stream(0, 1, print).batches(images, images + 4)))
        assert batch["x"].shape == (4, 1, side, side)
        assert batch["instances"].shape == (4, 1, side, side)
        spec = stage.generators["G"]
        assert (spec.name, spec.size) == (name, (side, side))
        assert len(stage.shapes["D"].scales) == scales


def test_two_ranks_through_all_stages_agree_with_one(whole, tmp_path):
    run, config = whole
    done = subprocess.run(command(config, tmp_path, ranks=2), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected, got = state(run, 48), state(tmp_path, 48)
    assert expected.keys() == got.keys()
    for name in (n for n in expected if n.startswith("net/")):
        torch.testing.assert_close(got[name], expected[name], rtol=1e-3, atol=3e-4, msg=name)
    assert scalars(tmp_path)[-1]["val/L1"] == pytest.approx(scalars(run)[-1]["val/L1"], rel=1e-2)


def test_zero_goes_through_the_stages_as_one_process_does(whole, tmp_path):
    pytest.importorskip("deepspeed")
    _, config = whole
    sets = ("engine.name=deepspeed", "engine.zero_stage=2", "engine.channels_last=false")
    done = subprocess.run(command(config, tmp_path / "zero", *sets), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert train(config, tmp_path / "ddp", "engine.channels_last=false") == 0
    expected, got = state(tmp_path / "ddp", 48), state(tmp_path / "zero", 48)
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_exact_gives_the_same_bits_through_all_stages(whole, tmp_path):
    _, config = whole
    for ranks in (1, 2):
        sets = ("engine.reduction=exact", "data.micro=1")
        done = subprocess.run(
            command(config, tmp_path / str(ranks), *sets, ranks=ranks), cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    expected, got = state(tmp_path / "1", 48), state(tmp_path / "2", 48)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_separate_runs_give_what_one_command_gives(whole, label_folder, tmp_path):
    """The global net in a run of its own, then the rest by `init_from`: the same first weights. (The samples come in
    another order, so what follows differs.)"""
    run, _ = whole
    tree = hd_tree(label_folder)
    first = tree | {"schedule": tree["coarse"][0], "coarse": []}
    first |= {"G": {"name": "global", "width": 8, "downs": 1, "blocks": 1, "bias": False}}
    first |= {"D": tree["D"] | {"scales": 1}, "data": tree["data"] | {"load": 18, "crop": 16}}
    (tmp_path / "first.yaml").write_text(json.dumps(first))
    assert train(tmp_path / "first.yaml", tmp_path / "global") == 0
    assert all(torch.equal(t, state(run, 12)[name]) for name, t in state(tmp_path / "global", 12).items())

    second = tree | {"coarse": [], "init_from": str(tmp_path / "global")}
    (tmp_path / "second.yaml").write_text(json.dumps(second))
    experiment = build_experiment(conf.load(tmp_path / "second.yaml"), 1, CPU)
    begun = Run(experiment.at(0), tmp_path / "local", CPU, quiet(tmp_path))
    assert begun.images == 0
    inside = {n: t for n, t in state(run, 16).items() if "G.trunk." in n}
    assert all(torch.equal(begun.engines["G"].state()[name].cpu(), t) for name, t in inside.items())
    assert train(tmp_path / "second.yaml", tmp_path / "local") == 0
    assert checkpoint.newest(tmp_path / "local").name == f"{36:012d}"
    # The same command again goes on with its own run, not with the other's.
    shutil.rmtree(tmp_path / "global")
    assert train(tmp_path / "second.yaml", tmp_path / "local") == 0


def quiet(folder):
    return Journal(folder / "logs", 0, lambda line: None)


def test_each_enhancer_is_trained_in_turn(label_folder, tmp_path):
    """Two enhancers: global at 8 pixels, one enhancer at 16, both at 32."""
    tree = hd_tree(label_folder)
    tree["data"] |= {"load": 32, "crop": 32}
    tree["G"] |= {"enhancers": 2}
    tree["D"] |= {"scales": 3}
    tree["coarse"] = [{"epochs": 0.25}, {"epochs": 0.25}]
    (tmp_path / "c.yaml").write_text(json.dumps(tree))
    made = build_experiment(conf.load(tmp_path / "c.yaml"), 1, CPU)
    assert train(tmp_path / "c.yaml", tmp_path / "run", "every.keep=9", "every.save=0") == 0
    assert [int(p.name) for p in checkpoint.saved(tmp_path / "run")] == [6 + 2, 16, 28, 52]  # whole steps of 4
    assert made.total == 52
    one, two = state(tmp_path / "run", 16), state(tmp_path / "run", 28)
    assert changed(one, two, "net/G.enhancers.0.") == changed(one, two, "net/G.trunk.") == set()
    widths = [s.config.G.settings["width"] for s in (made.at(0), made.at(8), made.at(16))]
    assert widths == [16, 8, 4]


def test_a_growing_net_keeps_what_fits_and_begins_the_rest_anew():
    old, new = ResNet(3, 3, width=8, downs=1, blocks=1), LocalEnhancer(3, 3, width=4, downs=1, blocks=1)
    assert newest_part(new) == ("enhancers.0.", "head.")
    before = {f"net/{n}": t for n, t in old.state_dict().items()} | {"adam/trunk.0.conv.weight/step": torch.tensor(3.0)}
    before |= {"adam/head.conv.weight/step": torch.tensor(3.0)}
    after = grown(new, {f"net/{n}": t for n, t in new.state_dict().items()}, before)
    assert torch.equal(after["net/trunk.2.convs.0.conv.weight"], before["net/trunk.2.convs.0.conv.weight"])
    assert torch.equal(after["net/head.conv.weight"], new.head.conv.weight)
    assert after["adam/trunk.0.conv.weight/step"] == 3
    assert "adam/head.conv.weight/step" not in after


@pytest.mark.parametrize(
    ("net", "old"),
    [
        (lambda: ResNet(3, 3, width=8, downs=1, blocks=1), lambda: LocalEnhancer(3, 3, width=4, downs=1, blocks=1)),
        (lambda: LocalEnhancer(3, 3, width=4, enhancers=2), lambda: ResNet(3, 3, width=16)),
        (lambda: LocalEnhancer(3, 3, width=4, downs=1), lambda: ResNet(3, 3, width=4, downs=1)),
        (lambda: MultiScale(scales=3, width=2), lambda: MultiScale(scales=1, width=2)),
        (lambda: MultiScale(scales=2, width=2), lambda: MultiScale(scales=3, width=2)),
    ],
    ids=["an enhancer into a global net", "two at once", "another width", "two scales at once", "a scale less"],
)
def test_what_does_not_fit_is_named(net, old):
    with torch.device("meta"), pytest.raises(ValueError, match=r" is .* there and .* here"):
        taken_over(net(), {n: tuple(t.shape) for n, t in old().state_dict().items()})


# What a person can get wrong: one line, exit code 2, before any process group.


def tree_file(tmp_path, tree):
    (tmp_path / "c.yaml").write_text(json.dumps(tree))
    return tmp_path / "c.yaml"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("G={name: unet, size: 16}", "coarse: is for a local G"),
        ("coarse=[{epochs: 1}, {epochs: 1}]", "coarse: has 2 stages, and G.enhancers is 1"),
        ("D.scales=1", "D.scales: 1, and the first of 1 coarse stages has 1 less"),
        ("data.crop=30", "data.crop 15 pixels (global: got 15x15 pixels; sides must be multiples of 2"),
        ("data.crop=31", "data.crop: 31 cannot be halved 1 times"),
        ("data.load=0", "data.load: coarse stages halve it"),
        ("data.load=[36, 0]", "data.load: [18, 0] has one side only"),
        ("schedule.alone=9", "schedule.alone: 9.0 epochs are more than this stage has"),
        ("coarse=[{epochs: 1, alone: 1}]", "coarse.0.alone: is for a local G"),
        ("coarse=[{epoch: 1}]", "coarse.0.epoch: unknown setting; did you mean 'epochs'?"),
        ("E.downs=6", "E: does not take pictures of data.crop"),
        ("task.perceptual=1", "task.vgg_weights: "),
        ("data.reverse=true", "its x are label maps"),
        ("init_from=nowhere", "nowhere: holds no checkpoint"),
        ("G.enhancers=0", "G.enhancers"),
    ],
)
def test_settings_that_do_not_fit(label_folder, tmp_path, capsys, monkeypatch, override, says):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert says in refused(tree_file(tmp_path, hd_tree(label_folder)), tmp_path, capsys, override)


def test_an_enhancers_checkpoint_where_a_global_one_is_wanted(whole, label_folder, tmp_path, capsys):
    run, _ = whole
    tree = hd_tree(label_folder) | {"init_from": str(run)}
    said = refused(tree_file(tmp_path, tree), tmp_path, capsys)
    assert f"init_from: {checkpoint.newest(run)} has another G: G.enhancers.0" in said
    assert "with one enhancer and one scale less" in said


def test_features_need_instances_and_validation_must_be_packed_alike(label_folder, shard_folder, tmp_path, capsys):
    tree = small_tree(shard_folder) | {"task": {"name": "pix2pixhd", "perceptual": 0, "features": 3}}
    assert "has no instance maps" in refused(tree_file(tmp_path, tree), tmp_path, capsys)
    tree = hd_tree(label_folder)
    tree["data"] |= {"val": str(shard_folder / "val")}
    assert "data.val: channels (3, 3), data.train has (1, 3)" in refused(tree_file(tmp_path, tree), tmp_path, capsys)


def test_schedules_that_were_changed_so_that_the_stage_is_another_are_refused(whole, tmp_path, capsys):
    run, config = whole
    shutil.copytree(checkpoint.folder(run, 48), checkpoint.folder(tmp_path / "run", 48))
    said = refused(config, tmp_path, capsys, "coarse=[{epochs: 9}]")
    assert "is of stage 2, but after 48 images the settings are in stage 0" in said


@pytest.mark.parametrize("override", ["D.name=multiscale", "task.matching=10"])
def test_the_parts_are_usable_alone_by_one_line(shard_folder, tmp_path, override):
    """Several scales of D, or feature matching, with the U-Net on ordinary pairs."""
    config = tree_file(tmp_path, small_tree(shard_folder))
    assert train(config, tmp_path / "run", override) == 0
    last = [line for line in scalars(tmp_path / "run") if "G/gan" in line][-1]
    assert ("G/matching" in last) == (override == "task.matching=10")
    l1 = [line["val/L1"] for line in scalars(tmp_path / "run") if "val/L1" in line]
    assert l1[-1] < l1[0]


RECIPES = sorted(p.stem for p in (ROOT / "configs").glob("*.yaml") if "pix2pixhd" in p.read_text())


def test_the_recipes_of_pix2pixhd_are_there():
    names = {"512p", "512p_features", "1024p_24gb", "1024p_24gb_features", "1024p_12gb", "1024p_12gb_features"}
    assert set(RECIPES) == {f"cityscapes_{n}" for n in names} | {"cityscapes_coarse_to_fine", "pictures_512p"}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipes_networks_are_the_papers_and_take_its_pictures(name):
    """On the meta device, in full size, in each of its stages."""
    config = conf.load(Path(ROOT, "configs", f"{name}.yaml"))
    view = View(0 if name == "pictures_512p" else 35, boundaries=name != "pictures_512p")
    features = config.task.settings.get("features", 0)
    task = TASKS["pix2pixhd"](**config.task.settings)
    for stage in stages(config):
        seen, _ = view.channels(3 if name == "pictures_512p" else 1, 3)
        channels = {name: role[1:] for name, role in task.networks(seen, 3).items()}
        with torch.device("meta"):
            G = Spec(stage.config.G.name, stage.config.G.settings, channels["G"], 1, view=view).build()
            D = Net(stage.config.D.name, stage.config.D.settings, channels["D"]).build("D")
            h, w = sides(stage.config.data.crop)
            assert G(torch.empty(1, seen + features, h, w)).shape == (1, 3, h, w)
            assert len(D(torch.empty(1, seen + 3, h, w))) == (2 if max(h, w) == 1024 and h == 512 else 3)
        if seen == 36 and not features:
            expected = {"global": 182_546_755, "local": 182_857_059}[stage.config.G.name]
            assert sum(p.numel() for p in G.parameters()) == expected
            scales = stage.config.D.settings["scales"]
            assert sum(p.numel() for p in D.parameters()) == 2_801_601 * scales


def test_a_stages_engines_end_with_it(whole, tmp_path):
    """No hook keeps the networks and moments of an earlier stage in memory."""
    _, config = whole
    made = build_experiment(conf.load(config), 1, CPU)
    nets = build_networks(made.at(0), CPU)
    left = [weakref.ref(engine) for engine in engines_of(nets).values()]
    del nets
    gc.collect()
    assert [ref() for ref in left] == [None, None]


def test_an_average_begins_with_what_the_run_begins_with(whole, label_folder, tmp_path):
    """With `init_from`, the first validation is that of the weights taken over."""
    run, _ = whole
    tree = hd_tree(label_folder) | {"coarse": [], "init_from": str(run), "ema": {"half_life": 1000}}
    tree["schedule"] = {"epochs": 1}
    assert train(tree_file(tmp_path, tree), tmp_path / "run", "every.save=0") == 0
    last = [line["val/L1"] for line in scalars(run) if "val/L1" in line][-1]
    assert scalars(tmp_path / "run")[0]["val/L1"] == pytest.approx(last, rel=1e-5)


def test_recomputing_gives_the_same_bits_through_the_command(whole, tmp_path):
    run, config = whole
    assert train(config, tmp_path, "engine.recompute=true") == 0
    assert all(torch.equal(t, state(tmp_path, 48)[name]) for name, t in state(run, 48).items())


def test_the_perceptual_loss_trains_stops_and_goes_on(label_folder, tmp_path):
    """With a VGG of random weights, on two ranks and on one."""
    torch.manual_seed(0)
    save_file({n: t.contiguous() for n, t in VGG("vgg16").state_dict().items()}, tmp_path / "vgg.safetensors")
    tree = hd_tree(label_folder) | {"coarse": [], "schedule": {"epochs": 1}}
    tree["task"] = {"name": "pix2pixhd", "vgg": "vgg16", "vgg_weights": str(tmp_path / "vgg.safetensors")}
    config = tree_file(tmp_path, tree)
    assert train(config, tmp_path / "one", "every.save=8", "every.keep=9") == 0
    assert all("G/perceptual" in line for line in scalars(tmp_path / "one") if "G/gan" in line)
    shutil.copytree(checkpoint.folder(tmp_path / "one", 8), checkpoint.folder(tmp_path / "again", 8))
    assert train(config, tmp_path / "again", "every.save=8") == 0
    expected = state(tmp_path / "one", 24)
    assert all(torch.equal(t, state(tmp_path / "again", 24)[name]) for name, t in expected.items())
    done = subprocess.run(command(config, tmp_path / "two", ranks=2), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in (n for n in expected if n.startswith("net/")):
        torch.testing.assert_close(state(tmp_path / "two", 24)[name], expected[name], rtol=1e-3, atol=3e-4, msg=name)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("G.enhancers=two", "G.enhancers: input should be a valid integer"),
        ("G.width=wide", "G.width: input should be a valid integer"),
        ("D.scales=three", "D.scales: input should be a valid integer"),
        ("schedule.alone=0.0001", "schedule.alone: leaves stage 1"),
        ("schedule.alone=1.499", "schedule.alone: leaves stage 2"),
        ("coarse=[{epochs: 0}]", "coarse.0.epochs: this stage has no length"),
        ("E={norm: batch, group: 3, downs: 1}", "E.group: 3 images share statistics"),
    ],
)
def test_mistakes_in_stages_are_named(label_folder, tmp_path, capsys, override, says):
    assert says in refused(tree_file(tmp_path, hd_tree(label_folder)), tmp_path, capsys, override)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["engine.recompute=true"], "engine.recompute: unet keeps its activations"),
        (["task.perceptual=1", "G.size=8", "data.crop=8", "data.load=8"], "data.crop: VGG needs 16 pixels"),
    ],
)
def test_settings_that_the_unet_cannot_take(shard_folder, tmp_path, capsys, monkeypatch, overrides, says):
    monkeypatch.setattr(Pix2Pix, "frozen", lambda self: {})
    assert says in refused(tree_file(tmp_path, small_tree(shard_folder)), tmp_path, capsys, *overrides)


def test_a_run_to_begin_from_is_looked_at_before_anything_starts(whole, label_folder, tmp_path, capsys):
    run, _ = whole
    broken = shutil.copytree(run, tmp_path / "broken")
    (checkpoint.newest(broken) / "D.safetensors").unlink()
    config = tree_file(tmp_path, hd_tree(label_folder) | {"coarse": [], "init_from": str(broken)})
    assert "D.safetensors: is missing" in refused(config, tmp_path, capsys)


def test_labels_beyond_the_classes_are_holes(label_folder, tmp_path, capsys):
    """An index that promises fewer classes than its maps have."""
    folder = shutil.copytree(label_folder / "train", tmp_path / "set")
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(index | {"classes": 3}))
    tree = hd_tree(label_folder)
    tree["data"] |= {"train": str(folder), "val": ""}
    said = refused(tree_file(tmp_path, tree), tmp_path, capsys)
    assert "label 3 is not below the 3 classes of index.json" in said


def test_features_with_the_unet_have_the_trainings_size():
    G = nn.ModuleDict({"G": UNet(5, 3, size=64, width=2), "E": Encoder(3, 2, width=2, downs=2)})
    spec = Spec("unet", {"size": 64, "width": 2}, (5, 3), 64, encoder=Net("instance", {"width": 2, "downs": 2}, (3, 2)))
    assert Generator(G, spec, conf.Inference()).padded(64) == 64


def test_a_rank_waits_for_the_checkpoint_of_the_stage_before(whole, tmp_path, monkeypatch):
    """A shared disk may show it late; where it is not shared, that is said."""
    run, config = whole
    made = build_experiment(conf.load(config), 1, CPU)
    shutil.copytree(checkpoint.folder(run, 8), checkpoint.folder(tmp_path, 8))
    aside = shutil.copytree(checkpoint.folder(run, 12), tmp_path / "aside")
    late = threading.Timer(1, lambda: aside.rename(checkpoint.folder(tmp_path, 12)))
    late.start()
    assert muster.arrived(made, tmp_path, 8) == 8
    assert muster.arrived(made, tmp_path, 12) == 12
    late.join()
    monkeypatch.setattr(muster, "LATE", 0.1)
    with pytest.raises(ValueError, match="the checkpoint after 24 images is not seen here; use a shared folder"):
        muster.arrived(made, tmp_path, 24)
