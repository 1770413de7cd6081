"""The training command on real files and real processes: what it writes, how it goes on, how it refuses."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import p2p
from launch.train import main, parser
from p2p import checkpoint, status
from p2p import config as conf
from p2p.build import build_experiment, build_networks
from p2p.data.views import to_float
from p2p.log import Journal
from p2p.run import Run
from shards import pack
from tests.conftest import hd_tree, small_tree, write_pairs

ROOT = Path(__file__).parents[1]


def train(config, run, *overrides):
    """The command in this process; returns its exit code."""
    sets = [part for o in overrides for part in ("--set", o)]
    return main(["--config", str(config), "--run", str(run), *sets])


def command(config, run, *overrides, ranks=1):
    """The command as a user types it."""
    launcher = [sys.executable, "-m"]
    if ranks > 1:
        launcher += ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m", "--"]
    sets = [part for o in overrides for part in ("--set", o)]
    return [*launcher, "launch.train", "--config", str(config), "--run", str(run), *sets]


def weights(run, images=48):
    folder = checkpoint.folder(run, images)
    return {f"{n}/{k}": t for n in ("G", "D") for k, t in load_file(folder / f"{n}.safetensors").items()}


def scalars(run):
    return [json.loads(line) for line in (run / "scalars.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, shard_folder):
    """A run of 48 images with a checkpoint every 8, its config file, and what it printed."""
    return run_whole(tmp_path_factory.mktemp("finished"), small_tree(shard_folder))


def run_whole(root, tree):
    config = root / "small.yaml"
    config.write_text(json.dumps(tree))
    done = subprocess.run(
        command(config, root / "run", "every.save=8", "every.keep=9"), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return root / "run", config, done.stdout


@pytest.fixture(scope="module")
def finished_hd(tmp_path_factory, label_folder):
    """The same of pix2pixHD, through all its stages."""
    return run_whole(tmp_path_factory.mktemp("hd"), hd_tree(label_folder))


@pytest.fixture(params=["pix2pix", "pix2pixhd"])
def either(request):
    """Both, one after the other."""
    return request.getfixturevalue({"pix2pix": "finished", "pix2pixhd": "finished_hd"}[request.param])


def test_says_what_it_does(finished):
    _, _, said = finished
    assert "24 pairs in 4 shards" in said
    assert "batch   4 = 1 rank x 4 images" in said
    assert "run     48 images, 12 steps" in said
    assert "saved" in said


def test_figures_are_written_as_json_lines_and_for_tensorboard(finished):
    run, _, _ = finished
    losses = {"D/real", "D/fake", "G/gan", "G/l1", "D(real)", "D(fake)", "lr", "images/s", "wait"}
    lines = [line for line in scalars(run) if losses <= line.keys()]
    assert [line["images"] for line in lines] == [8, 16, 24, 32, 40, 48]
    assert lines[0]["lr"] == 2e-4
    assert lines[-1]["lr"] == pytest.approx(2e-4 * (1 - (44 - 24) / 24))  # of the last step, linearly to 0
    validated = [line["images"] for line in scalars(run) if "val/L1" in line]
    assert validated == [0, 24, 48]
    l1 = [line["val/L1"] for line in scalars(run) if "val/L1" in line]
    assert l1[-1] < l1[0]

    board = EventAccumulator(str(run / "tensorboard")).Reload()
    assert losses <= set(board.Tags()["scalars"])
    assert [event.step for event in board.Scalars("val/L1")] == [0, 24, 48]
    assert [event.step for event in board.Images("x, G(x), y")] == [0, 24, 48]
    assert board.Images("x, G(x), y")[0].width == 3 * 34 + 2


def test_the_stored_generator_is_the_one_that_was_validated(either):
    """Read as a user would, it has the L1 that the last line of the log says."""
    run, config, _ = either
    generator = p2p.load(run)
    made = build_experiment(conf.load(config), 1, torch.device("cpu"))
    errors = []
    for batch in made.validation(0, 1, 2, print).batches(0, 6):
        fake = generator.of(batch)
        errors.append((fake - to_float(batch["y"])).abs().mean((1, 2, 3)) / 2)
    last = [line["val/L1"] for line in scalars(run) if "val/L1" in line][-1]
    assert torch.cat(errors).mean().item() == pytest.approx(last, rel=1e-5)


@pytest.mark.parametrize(
    ("game", "images"),
    [
        ("finished", 8),
        ("finished", 16),
        ("finished_hd", 8),  # the global net
        ("finished_hd", 12),  # at its end
        ("finished_hd", 16),  # the enhancer alone
        ("finished_hd", 24),  # at its end
        ("finished_hd", 32),  # everything together
    ],
)
def test_a_resumed_run_ends_with_the_same_bits(request, tmp_path, game, images):
    run, config, _ = request.getfixturevalue(game)
    shutil.copytree(checkpoint.folder(run, images), checkpoint.folder(tmp_path, images))
    done = subprocess.run(command(config, tmp_path, "every.save=8"), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"resuming after {images} images" in done.stdout
    expected, got = weights(run), weights(tmp_path)
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_a_killed_run_goes_on_and_ends_with_the_same_bits(either, tmp_path):
    run, config, _ = either
    started = subprocess.Popen(command(config, tmp_path, "every.save=16"), cwd=ROOT, stdout=subprocess.DEVNULL)
    while not checkpoint.saved(tmp_path) or scalars(tmp_path)[-1]["images"] <= 16:  # a line beyond the checkpoint
        assert started.poll() is None, "ended before it was killed"
        time.sleep(0.005)
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert (
        subprocess.run(command(config, tmp_path, "every.save=8"), cwd=ROOT, stdout=subprocess.DEVNULL).returncode == 0
    )
    expected, got = weights(run), weights(tmp_path)
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    written = [(line["images"], "val/L1" in line) for line in scalars(tmp_path)]
    assert len(written) == len(set(written))  # what lay beyond the checkpoint was not written twice
    speed = ("time", "images/s", "wait", "memory", "ranks/images/s", "ranks/wait", "ranks/memory")
    same, undisturbed = ([{k: v for k, v in s.items() if k not in speed} for s in scalars(r)] for r in (tmp_path, run))
    assert same == undisturbed


def test_two_ranks_go_on_from_one_and_agree_to_rounding(either, tmp_path):
    run, config, _ = either
    shutil.copytree(checkpoint.folder(run, 16), checkpoint.folder(tmp_path, 16))
    done = subprocess.run(command(config, tmp_path, ranks=2), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "4 = 2 ranks x 2 images" in done.stdout
    expected, got = weights(run), weights(tmp_path)
    for name in expected:
        if name.split("/")[1] == "net":
            torch.testing.assert_close(got[name], expected[name], rtol=1e-3, atol=1e-4, msg=name)
    assert scalars(tmp_path)[-1]["val/L1"] == pytest.approx(scalars(run)[-1]["val/L1"], rel=1e-3)


def test_one_rank_goes_on_from_two_with_their_average(either, tmp_path):
    """Written on 2 ranks, read on 1: the weights, Adam's moments and the average of the weights."""
    _, config, _ = either
    sets = ("ema.half_life=20", "every.save=16", "every.keep=9")
    alone = tmp_path / "alone"
    assert train(config, alone, *sets) == 0
    assert (
        subprocess.run(command(config, tmp_path / "two", *sets, ranks=2), cwd=ROOT, capture_output=True).returncode == 0
    )
    shutil.copytree(checkpoint.folder(tmp_path / "two", 16), checkpoint.folder(tmp_path / "one", 16))
    assert train(config, tmp_path / "one", *sets) == 0
    for other in ("two", "one"):
        for name, tensor in p2p.load(tmp_path / other).net.state_dict().items():
            expected = p2p.load(alone).net.state_dict()[name]
            torch.testing.assert_close(tensor, expected, rtol=1e-3, atol=1e-4, msg=f"{other}: {name}")


def test_a_damaged_sample_on_one_of_two_ranks_is_said_once(shard_folder, config_file, tmp_path):
    folder = shutil.copytree(shard_folder / "train", tmp_path / "damaged")
    flip(folder / "shard-000000.tar")
    done = subprocess.run(
        command(config_file, tmp_path / "run", f"data.train={folder}", ranks=2),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("p2p-train: ")]
    assert sum("1 unreadable samples, data.max_bad allows 0: shard-000000.tar" in line for line in lines) == 1
    assert "launch/train.py" not in done.stderr  # no traceback of ours


def test_micro_batches_by_the_command_give_the_same_run(either, tmp_path):
    run, config, _ = either
    assert train(config, tmp_path, "data.micro=2", "every.keep=9") == 0
    assert scalars(tmp_path)[-1]["val/L1"] == pytest.approx(scalars(run)[-1]["val/L1"], rel=1e-3)
    made = build_experiment(conf.load(config, ["data.micro=2"]), 1, torch.device("cpu"))
    engines = build_networks(made, torch.device("cpu"))
    assert engines["G"].recompute == (made.task.first == "D")
    assert not engines["D"].recompute


def test_settings_reach_the_engines_and_the_stream(finished):
    _, config, _ = finished
    sets = ["engine.precision=bf16", "optimizer.lr=1e-3", "optimizer.beta1=0.9", "data.reverse=true", "seed=5"]
    made = build_experiment(conf.load(config, sets), 1, torch.device("cpu"))
    G = build_networks(made, torch.device("cpu"))["G"]
    assert (G.precision, G.lr, G.optimizer.param_groups[0]["betas"]) == ("bf16", 1e-3, (0.9, 0.999))
    assert (made.generators["G"].reverse, made.generators["G"].resized, made.train.reverse) == (True, True, True)
    stream = made.stream(0, 1, print)
    assert (stream.augment.seed, stream.order.seed, stream.seed) == (5, 5, 5)


@pytest.mark.parametrize(
    ("game", "ends"),
    [
        ("finished", [56]),  # 8 + 3 x 16 >= 48
        ("finished_hd", [24, 40, 72]),  # each stage, of 12, 12 and 24 images, in whole steps
    ],
)
def test_another_batch_on_the_way_ends_in_whole_steps(request, tmp_path, game, ends):
    run, config, _ = request.getfixturevalue(game)
    shutil.copytree(checkpoint.folder(run, 8), checkpoint.folder(tmp_path, 8))
    assert train(config, tmp_path, "data.batch=16", "every.save=100", "every.keep=9") == 0
    assert [int(p.name) for p in checkpoint.saved(tmp_path)] == [8, *ends]
    assert scalars(tmp_path)[-1]["images"] == ends[-1]


def test_a_finished_run_is_left_as_it_is(either, capsys):
    run, config, _ = either

    def times():
        kept = (p for p in run.rglob("*") if p.is_file() and p.parent.name != "logs" and p.name != status.FILE)
        return {p: p.stat().st_mtime_ns for p in kept}

    before = times()
    assert train(config, run, "every.save=8", "every.keep=9") == 0
    assert "already trained to 48 images" in capsys.readouterr().out
    assert times() == before
    assert status.read(run)["state"] == "finished"


def test_only_the_newest_checkpoints_are_kept(config_file, tmp_path):
    assert train(config_file, tmp_path / "run", "every.save=4", "every.keep=2") == 0
    assert [int(p.name) for p in checkpoint.saved(tmp_path / "run")] == [44, 48]


def test_dry_run_writes_nothing(config_file, tmp_path, capsys):
    assert main(["--config", str(config_file), "--run", str(tmp_path / "run"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "crop: 32" in said
    assert "run     48 images, 12 steps" in said
    assert not (tmp_path / "run").exists()


def test_the_average_is_kept_over_a_resume(config_file, tmp_path):
    for name in ("whole", "part"):
        run = tmp_path / name
        if name == "part":
            shutil.copytree(checkpoint.folder(tmp_path / "whole", 16), checkpoint.folder(run, 16))
        assert train(config_file, run, "ema.half_life=20", "every.save=8", "every.keep=9") == 0
    whole, part = (p2p.load(tmp_path / name).net.state_dict() for name in ("whole", "part"))
    raw = load_file(checkpoint.folder(tmp_path / "whole", 48) / "G.safetensors")
    assert all(torch.equal(whole[name], part[name]) for name in whole)
    assert not torch.equal(whole["down.0.conv.weight"], raw["net/down.0.conv.weight"])


def test_the_average_has_the_stated_half_life(config_file, tmp_path):
    """After as many images as the half-life, half of a weight's first value is left."""
    made = build_experiment(conf.load(config_file, ["ema.half_life=40"]), 1, torch.device("cpu"))
    run = Run(made, tmp_path, torch.device("cpu"), Journal(tmp_path, 0, print))
    weight = run.nets["G"].net.down[0].conv.weight
    run.averages.update()  # the first is a copy
    first = weight.detach().clone()
    with torch.no_grad():
        weight.zero_()
    for _ in range(10):  # 10 steps of 4 images
        run.averages.update()
    assert torch.allclose(run.averages.models["G"].module.down[0].conv.weight, first / 2)


def test_running_statistics_are_measured_for_the_stored_weights(config_file, tmp_path):
    assert train(config_file, tmp_path / "run", "inference.statistics=running", "inference.dropout=false") == 0
    generator = p2p.load(tmp_path / "run")
    assert (generator.inference.statistics, generator.inference.dropout) == ("running", False)
    norm = generator.net.down[1].norm
    assert (norm.running_var != 1).all()
    # The mean over the first 256 training images of the first normed map, measured another way.
    made = build_experiment(conf.load(config_file), 1, torch.device("cpu"))
    maps = []
    generator.net.down[1].conv.register_forward_hook(lambda module, args, out: maps.append(out))
    with torch.no_grad():
        for batch in made.stream(0, 1, print).batches(0, 256):
            generator.net(to_float(batch["x"]))
    assert torch.allclose(norm.running_mean, torch.cat(maps).mean((0, 2, 3)), atol=1e-5)


def test_a_loss_that_is_not_finite_stops_the_run_and_the_last_checkpoint_stays(config_file, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(config_file, run, "schedule.epochs=0.5", "schedule.decay=0", "every.save=4") == 0
    before = checkpoint.newest(run)
    capsys.readouterr()
    assert train(config_file, run, "optimizer.lr=1e30", "every.save=4") == 1
    said = capsys.readouterr().err
    assert "p2p-train: step " in said
    assert "nan" in said
    assert "samples 0" in said
    kept = checkpoint.newest(run)
    assert before in checkpoint.saved(run)
    assert all(torch.isfinite(t).all() for t in load_file(kept / "G.safetensors").values())


def test_weights_that_are_not_finite_are_not_stored(config_file, tmp_path, capsys):
    """The last loss was finite, the step after it was not: G alone, one step after the last good checkpoint."""
    run = tmp_path / "run"
    few = ("task.gan_weight=0.0", "schedule.decay=0", "every.save=4", "every.keep=1")
    assert train(config_file, run, *few, "schedule.epochs=0.5") == 0
    assert train(config_file, run, *few, "schedule.epochs=0.66", "optimizer.lr=1e40") == 1
    assert "the weights of G are no longer finite" in capsys.readouterr().err
    assert [int(p.name) for p in checkpoint.saved(run)] == [12]


def test_the_average_may_begin_and_end_on_the_way(finished, tmp_path):
    run, config, _ = finished
    shutil.copytree(checkpoint.folder(run, 8), checkpoint.folder(tmp_path, 8))
    assert train(config, tmp_path, "ema.half_life=20", "schedule.decay=0", "schedule.epochs=1", "every.save=8") == 0
    assert train(config, tmp_path, "every.save=8") == 0


def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(finished, tmp_path, monkeypatch, capsys):
    """Files may grow to 64 kB and no further, as on a disk without room."""
    run, config, _ = finished
    shutil.copytree(checkpoint.folder(run, 8), checkpoint.folder(tmp_path, 8))
    limited = f"ulimit -f 64; exec {shlex.join(command(config, tmp_path, 'every.save=8'))}"
    done = subprocess.run(["bash", "-c", limited], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert re.fullmatch(r"p2p-train: .*000000000016: cannot be written .*\n", done.stderr)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["000000000008"]


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


# What a person can get wrong: one line, exit code 2, nothing written.


def refused(config, tmp_path, capsys, *overrides, run="run"):
    code = train(config, tmp_path / run, *overrides)
    said = capsys.readouterr().err
    assert code == 2
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("data.train=/nowhere", "/nowhere: no index.json here"),
        ("task.name=pix3pix", "task.name: no task 'pix3pix'; there are pix2pix"),
        ("G.name=vnet", "G.name: no network 'vnet'; there is unet"),
        ("G.size=48", "p2p-train: G.size: 48 is not a power of two >= 4; use 64, 128, 256, ..."),
        ("G.size=64", "G: does not take pictures of data.crop 32 pixels (U-Net 64: got 32x32"),
        ("D.field=286", "D: does not take pictures of data.crop 32 pixels"),
        ("G.group=3", "G.group: 3 images share statistics, but data.batch 4 on 1 ranks"),
        ("data.lanes=6", "data.lanes: 6 is not a multiple of data.batch 4"),
        ("data.load=20", "data.load: 20 is less than data.crop 32"),
        ("data.crop=64", "data.load: 36 is less than data.crop 64"),
        ("task.gan=wgan", "D.norm: mixes images, which wgan's penalty forbids"),
        ("task.l1=-1.0", "task: l1, gan_weight, penalty, matching and perceptual are weights"),
        ("schedule.name=constant", "schedule.decay: 1.0 epochs, but schedule.name is constant"),
        ("data.bacth=3", "data.bacth: unknown setting; did you mean 'batch'?"),
        ("task.lambda=3", "task.lambda: unknown setting"),
        ("G.group=0", "G.group: 0 images cannot share statistics"),
        ("G.group='2'", "G.group: input should be a valid integer"),
        ("G.width=0", "G.width: 0 channels; use 1 or more"),
        ("D.width=-4", "D.width: -4 channels; use 1 or more"),
        ("D.name=unet", "D.name: no network 'unet'; there is patch"),
        ("G.name=patch", "G.name: no network 'patch'; there is unet"),
        ("seed=18446744073709551616", "seed: input should be less than"),
        ("seed=2001-01-01", "holds a value that is neither text, number, list nor section"),
        ("optimizer.beta1=1", "optimizer.beta1: input should be less than 1"),
    ],
)
def test_a_setting_that_cannot_be(config_file, tmp_path, capsys, override, says):
    assert says in refused(config_file, tmp_path, capsys, override)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["engine.zero_stage=2"], "engine.zero_stage, engine.offload: are DeepSpeed's; use engine.name=deepspeed"),
        (["engine.name=deepspeed", "engine.offload=true"], "engine.offload: stage 0 keeps Adam's state whole"),
        (["engine.name=deepspeed", "engine.reduction=exact"], "engine.reduction: exact needs engine.name=ddp"),
        (["engine.compile=true", "engine.reduction=exact"], "engine.reduction: exact needs engine.name=ddp"),
        (["G.norm=sync", "engine.reduction=exact"], "G.norm: sync depends on the number of ranks"),
        (
            ["G.group=1", "D.group=1", "data.micro=3", "engine.reduction=exact"],
            "data.micro: exact sums parts of 3 images",
        ),
        (["engine.zero_stage=3"], "engine.zero_stage: "),
    ],
)
def test_engines_that_cannot_be(config_file, tmp_path, capsys, overrides, says):
    assert says in refused(config_file, tmp_path, capsys, *overrides)
    assert not (tmp_path / "run").exists()


def test_groups_of_both_networks_stay_whole(config_file):
    """On 3 ranks a batch of 12 in groups of 4 is 4 + 4 + 4, of 8 not possible; on 2 ranks it is 4 + 8."""
    settings = ["data.batch=12", "G.group=2", "D.group=4"]
    for world, shares in ((1, [12]), (2, [4, 8]), (3, [4, 4, 4])):
        assert build_experiment(conf.load(config_file, settings), world, torch.device("cpu")).shares == shares
    with pytest.raises(ValueError, match=r"G.group 2 and D.group 3: only multiples of 6 images .* use 2 x 6"):
        build_experiment(conf.load(config_file, ["data.batch=6", "G.group=2", "D.group=3"]), 2, torch.device("cpu"))


def test_a_crop_larger_than_the_pictures(config_file, tmp_path, capsys):
    said = refused(config_file, tmp_path, capsys, "data.load=0", "data.crop=64")
    assert "data.crop: 64 does not fit pictures of 32x32" in said


def test_a_batch_smaller_than_the_ranks_is_said_once(config_file, tmp_path):
    done = subprocess.run(
        command(config_file, tmp_path / "run", "data.batch=1", "G.group=1", "D.group=1", ranks=2),
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.count("p2p-train: data.batch: 1 is less than the 2 ranks; use at least 2, or fewer ranks") == 1
    assert "launch/train.py" not in done.stderr  # no traceback of ours
    assert not (tmp_path / "run").exists()


def half_written(folder):
    file = folder / "G.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (half_written, r"G.safetensors: has 1000 bytes, state.json says"),
        (lambda f: (f / "D.safetensors").unlink(), "D.safetensors: is missing"),
        (lambda f: (f / "state.json").write_text("{"), "state.json: cannot be read"),
        (lambda f: (f / "state.json").write_text('{"files": []}'), "state.json: cannot be read"),
        (lambda f: flip(f / "G.safetensors"), "G.safetensors: cannot be read (its bytes are not those"),
    ],
)
def test_a_half_written_checkpoint_is_named(finished, tmp_path, capsys, damage, says):
    run, config, _ = finished
    for images in (8, 16):
        shutil.copytree(checkpoint.folder(run, images), checkpoint.folder(tmp_path / "run", images))
    damage(checkpoint.folder(tmp_path / "run", 16))
    said = refused(config, tmp_path, capsys)
    assert says in said
    assert "to go on from an older" in said
    shutil.rmtree(checkpoint.folder(tmp_path / "run", 16))  # the remedy that it names
    assert train(config, tmp_path / "run", "every.save=8") == 0


def test_what_was_being_written_when_a_process_died_is_not_a_checkpoint(finished, tmp_path):
    run, config, _ = finished
    shutil.copytree(checkpoint.folder(run, 8), checkpoint.folder(tmp_path, 8))
    shutil.copytree(checkpoint.folder(run, 16), checkpoint.folder(tmp_path, 16).with_name(".000000000016.tmp"))
    assert checkpoint.newest(tmp_path) == checkpoint.folder(tmp_path, 8)
    assert train(config, tmp_path, "every.save=8", "every.keep=9") == 0
    assert all(torch.equal(a, b) for a, b in zip(weights(run).values(), weights(tmp_path).values(), strict=True))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("G.width=8", "weights of another network"),
        ("seed=1", "was trained with seed 0 of the order, now it is 1"),
        ("data.block=4", "was trained with block 16 of the order, now it is 4"),
    ],
)
def test_a_run_of_another_experiment_is_not_gone_on_with(finished, tmp_path, capsys, override, says):
    run, config, _ = finished
    shutil.copytree(checkpoint.folder(run, 8), checkpoint.folder(tmp_path / "run", 8))
    assert says in refused(config, tmp_path, capsys, override)
    assert [p.name for p in checkpoint.saved(tmp_path / "run")] == ["000000000008"]


def test_other_shards_under_the_same_name_are_noticed(finished, tmp_path, capsys):
    run, config, _ = finished
    shutil.copytree(checkpoint.folder(run, 8), checkpoint.folder(tmp_path / "run", 8))
    pack.main(["pairs", str(write_pairs(tmp_path / "p", 24, first=50)), str(tmp_path / "s"), "--input", "right"])
    capsys.readouterr()
    assert "was trained with s" in refused(config, tmp_path, capsys, f"data.train={tmp_path / 's'}")


def test_changed_settings_are_shown(finished, tmp_path, capsys):
    run, config, _ = finished
    shutil.copytree(checkpoint.folder(run, 8), checkpoint.folder(tmp_path, 8))
    assert train(config, tmp_path, "optimizer.lr=1e-5") == 0
    assert "optimizer.lr: 0.0002 -> 1e-05" in capsys.readouterr().out


def test_a_damaged_sample_stops_a_small_set_in_one_line(shard_folder, config_file, tmp_path, capsys):
    folder = shutil.copytree(shard_folder / "train", tmp_path / "damaged")
    data = bytearray((folder / "shard-000000.tar").read_bytes())
    data[700] ^= 1
    (folder / "shard-000000.tar").write_bytes(data)
    said = refused(config_file, tmp_path, capsys, f"data.train={folder}")
    assert "1 unreadable samples, data.max_bad allows 0: shard-000000.tar at byte 0" in said
    assert train(config_file, tmp_path / "run2", f"data.train={folder}", "data.max_bad=0.1") == 0
    assert "hole at position" in capsys.readouterr().out


def test_the_flags_are_few():
    """Knobs belong into the configuration file."""
    assert {o for a in parser()._actions for o in a.option_strings} == {
        "-h", "--help", "--config", "--run", "--set", "--dry-run", "--local_rank",
    }  # fmt: skip


def test_grayscale_and_colour_sides_of_their_own(tmp_path, config_file):
    """Two folders, gray input and colour target: the channels come from the data."""
    from PIL import Image

    for name, mode in (("x", "L"), ("y", "RGB")):
        (tmp_path / name).mkdir()
        for i in range(8):
            pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(tmp_path / name / f"{i}.png")
    assert pack.main(["folders", str(tmp_path / "x"), str(tmp_path / "y"), str(tmp_path / "s")]) == 0
    sets = [f"data.train={tmp_path / 's'}", f"data.val={tmp_path / 's'}", "schedule.epochs=1", "schedule.decay=0"]
    assert train(config_file, tmp_path / "run", *sets) == 0
    assert p2p.load(tmp_path / "run").spec.channels == (1, 3)
