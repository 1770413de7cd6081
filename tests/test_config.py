"""Settings: one line for every mistake, and nothing is taken for what it is not."""

import re
from pathlib import Path

import pytest

from p2p import config as conf
from p2p.networks import NETWORKS, PatchGAN, UNet
from p2p.strict import checked
from p2p.tasks import TASKS, Pix2Pix

BASE = "data: {train: shards}\n"


def load(tmp_path, text, *overrides):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return conf.load(path, overrides)


def test_what_is_not_given_has_its_default(tmp_path):
    config = load(tmp_path, BASE + "G: {width: 32}\n")
    assert config.optimizer.lr == 2e-4
    assert (config.G.name, config.G.settings) == ("unet", {"width": 32})


def test_overrides_and_numbers_as_people_write_them(tmp_path):
    config = load(tmp_path, BASE + "optimizer: {lr: 1e-4}", "data.batch=8", "schedule.epochs=2", "D.field=16")
    assert config.optimizer.lr == 1e-4
    assert config.data.batch == 8
    assert config.schedule.epochs == 2.0
    assert config.D.settings == {"field": 16}


def test_dump_is_read_back_as_the_same(tmp_path):
    config = load(tmp_path, BASE, "G.norm=instance", "task.gan=lsgan", "ema.half_life=500")
    assert load(tmp_path, conf.dump(config)) == config


@pytest.mark.parametrize(
    ("text", "overrides", "says"),
    [
        ("data: {train: a, bacth: 3}", [], "c.yaml: data.bacth: unknown setting; did you mean 'batch'?"),
        ("data: {trian: a}", [], "data.trian: unknown setting; did you mean 'train'?"),
        (BASE + "dtaa: {}", [], "dtaa: unknown setting; did you mean 'data'?"),
        (BASE + "zzz: 1", [], "zzz: unknown setting; valid are data, seed"),
        (BASE + "optimizer: {lr: '1e-4'}", [], "optimizer.lr: input should be a valid number (got '1e-4')"),
        (BASE, ["optimizer.lr=.nan"], "optimizer.lr: input should be a finite number"),
        (BASE, ["data.batch=yes"], "data.batch: input should be a valid integer (got True; YAML reads"),
        (BASE, ["data.batch=4.5"], "data.batch: input should be a valid integer"),
        (BASE, ["data.batch=0"], "data.batch: input should be greater than or equal to 1 (got 0)"),
        (BASE, ["data.mirror=1"], "data.mirror: input should be a valid boolean (got 1)"),
        (
            BASE,
            ["schedule.name=no"],
            "schedule.name: input should be 'constant', 'linear', 'port' or 'hd' (got False; YAML",
        ),
        (BASE, ["data.batch"], "--set data.batch: write it as section.name=value"),
        (BASE, ["seed.x=1"], "seed"),
        ("seed: 1", [], "data: missing"),
        ("", [], "holds no settings"),
        ("data: {train: a, train: b}", [], "line 1: not valid YAML ('train' is given twice)"),
        ("data: [", [], "not valid YAML"),
        ("? [a, b]\n: 1\n", [], "c.yaml"),
        ("data: 3", [], "data: input should be an object (got 3)"),
        (BASE + "G: unet", [], "G: input should be an object (got 'unet')"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, text, overrides, says):
    with pytest.raises(ValueError, match=r".+") as error:
        load(tmp_path, text, *overrides)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.yaml: cannot be read \(No such file"):
        conf.load(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("constructor", "given", "says"),
    [
        (UNet, {"siez": 3}, "G.siez: unknown setting; did you mean 'size'?"),
        (UNet, {"norm": "bach"}, "G.norm: input should be 'batch', 'instance', 'sync' or 'none' (got 'bach')"),
        (UNet, {"in_channels": 4}, "G.in_channels: unknown setting"),
        (UNet, {"width": "64"}, "G.width: input should be a valid integer"),
        (PatchGAN, {"field": 71}, "G.field: input should be 1, 16, 34, 70, 142 or 286 (got 71)"),
        (Pix2Pix, {"lambda_L1": 50}, "G.lambda_L1: unknown setting; valid are l1, gan_weight"),
    ],
)
def test_a_constructor_is_its_own_schema(constructor, given, says):
    with pytest.raises(ValueError, match=r".+") as error:
        checked(constructor, given, "G")
    assert str(error.value).startswith(says)


RECIPES = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


def test_the_six_recipes_are_there():
    names = {path.stem for path in RECIPES}
    assert names >= {"facades", "edges2shoes", "edges2handbags", "maps", "cityscapes", "day2night"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_loads_and_names_its_source(path):
    config = conf.load(path)
    assert re.search(r"1611\.07004|1711\.11585", path.read_text())
    for where in "GDE":
        part = getattr(config, where)
        checked(NETWORKS[where][part.name], part.settings, where)
    task = TASKS[config.task.name]
    task(**checked(task, config.task.settings, "task"))


@pytest.mark.parametrize(
    ("name", "epochs", "batch", "jitter", "mirror", "reverse"),
    [
        ("facades", 200, 1, True, True, False),
        ("maps", 200, 1, True, True, False),
        ("cityscapes", 200, 1, True, True, False),
        ("edges2shoes", 15, 4, False, False, False),
        ("edges2handbags", 15, 4, False, False, False),
        ("day2night", 17, 4, True, True, False),
    ],
)
def test_recipes_are_the_papers(name, epochs, batch, jitter, mirror, reverse):
    config = conf.load(Path("configs") / f"{name}.yaml")
    data = config.data
    assert (config.schedule.name, config.schedule.epochs, config.schedule.decay) == ("constant", epochs, 0)
    assert (data.batch, data.mirror, data.crop, data.reverse) == (batch, mirror, 256, reverse)
    assert data.load == (286 if jitter else 256)
    assert config.G.settings["group"] == config.D.settings["group"] == batch
    assert config.task.settings.get("l1", 100.0) == 100.0
