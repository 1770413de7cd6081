"""Weights of the authors' pix2pixHD in ours: the same outputs, the published sizes, and what does not fit is named.

The layout's source is NVIDIA/pix2pixHD 14b3b3c, models/networks.py, as recorded by printing its state dicts. The
networks below are written out from that record and from Wang et al. 2018.
"""

import json
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from torch import nn

import p2p
from launch.convert import main as convert
from launch.train import main as train
from p2p import checkpoint, original
from p2p import config as conf
from p2p.build import build_experiment
from p2p.data.views import View
from p2p.engine import load_strict
from p2p.log import Journal
from p2p.networks.norm import set_statistics
from p2p.run import Run
from shards import pack
from tests.conftest import small_tree

NORMS = {"instance": lambda c: nn.InstanceNorm2d(c, affine=False), "batch": nn.BatchNorm2d}


# The original, written out


class Block(nn.Module):
    def __init__(self, c, norm):
        super().__init__()
        first = [nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3), norm(c), nn.ReLU()]
        self.conv_block = nn.Sequential(*first, nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3), norm(c))

    def forward(self, x):
        return x + self.conv_block(x)


def start(c_in, c, norm):
    return [nn.ReflectionPad2d(3), nn.Conv2d(c_in, c, 7), norm(c), nn.ReLU()]


def down(c, norm):
    return [nn.Conv2d(c, 2 * c, 3, stride=2, padding=1), norm(2 * c), nn.ReLU()]


def up(c, norm):
    return [nn.ConvTranspose2d(2 * c, c, 3, stride=2, padding=1, output_padding=1), norm(c), nn.ReLU()]


def end(c, c_out):
    return [nn.ReflectionPad2d(3), nn.Conv2d(c, c_out, 7), nn.Tanh()]


def trunk(c_in, c, downs, blocks, norm):
    layers = start(c_in, c, norm)
    for k in range(downs):
        layers += down(c * 2**k, norm)
    layers += [Block(c * 2**downs, norm) for _ in range(blocks)]
    for k in reversed(range(downs)):
        layers += up(c * 2**k, norm)
    return layers


class Global(nn.Module):
    def __init__(self, c_in=36, c_out=3, width=64, downs=4, blocks=9, norm="instance"):
        super().__init__()
        self.model = nn.Sequential(*trunk(c_in, width, downs, blocks, NORMS[norm]), *end(width, c_out))

    def forward(self, x):
        return self.model(x)


class Local(nn.Module):
    """`width` is the outermost; enhancer 1 is the innermost."""

    def __init__(self, c_in=36, c_out=3, width=32, enhancers=1, local_blocks=3, downs=4, blocks=9, norm="instance"):
        super().__init__()
        make, self.count = NORMS[norm], enhancers
        self.model = nn.Sequential(*trunk(c_in, width * 2**enhancers, downs, blocks, make))
        for n in range(1, enhancers + 1):
            c = width * 2 ** (enhancers - n)
            after = [Block(2 * c, make) for _ in range(local_blocks)] + up(c, make)
            after += end(c, c_out) if n == enhancers else []
            setattr(self, f"model{n}_1", nn.Sequential(*start(c_in, c, make), *down(c, make)))
            setattr(self, f"model{n}_2", nn.Sequential(*after))

    def forward(self, x):
        sizes = [x]
        for _ in range(self.count):
            sizes.append(smaller(sizes[-1]))
        h = self.model(sizes[-1])
        for n in range(1, self.count + 1):
            h = getattr(self, f"model{n}_2")(getattr(self, f"model{n}_1")(sizes[self.count - n]) + h)
        return h


class Scales(nn.Module):
    """D; `apart` has a name for each layer, which gives all feature maps. Number 0 is the coarsest."""

    def __init__(self, c_in=39, width=64, layers=3, scales=2, norm="instance", apart=True):
        super().__init__()
        self.count, self.layers, self.apart = scales, layers, apart
        c = [width * min(2**k, 8) for k in range(layers + 1)]
        for n in range(scales):
            parts = [[nn.Conv2d(c_in, c[0], 4, 2, 2), nn.LeakyReLU(0.2)]]
            for k in range(1, layers + 1):
                conv = nn.Conv2d(c[k - 1], c[k], 4, 2 if k < layers else 1, 2)
                parts.append([conv, NORMS[norm](c[k]), nn.LeakyReLU(0.2)])
            parts.append([nn.Conv2d(c[-1], 1, 4, 1, 2)])
            for k, part in enumerate(parts if apart else []):
                setattr(self, f"scale{n}_layer{k}", nn.Sequential(*part))
            if not apart:
                setattr(self, f"layer{n}", nn.Sequential(*(layer for part in parts for layer in part)))

    def forward(self, xy):
        found = []
        for n in reversed(range(self.count)):
            maps = [xy]
            for k in range(self.layers + 2) if self.apart else []:
                maps.append(getattr(self, f"scale{n}_layer{k}")(maps[-1]))
            found.append(maps[1:] if self.apart else [getattr(self, f"layer{n}")(xy)])
            xy = smaller(xy)
        return found


class Features(nn.Module):
    """E, which averages its map over each instance of each picture."""

    def __init__(self, c_in=3, c_out=3, width=16, downs=4, norm="instance"):
        super().__init__()
        self.model = nn.Sequential(*trunk(c_in, width, downs, 0, NORMS[norm]), *end(width, c_out))

    def forward(self, y, instances):
        maps = self.model(y)
        found = torch.empty_like(maps)
        for n in range(len(y)):
            for i in instances[n].unique():
                for c in range(maps.shape[1]):
                    found[n, c][instances[n, 0] == i] = maps[n, c][instances[n, 0] == i].mean()
        return found


def smaller(x):
    return F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)


# Outputs


def prepared(make, **settings):
    """The original with its own first weights, in float64; norms have seen something."""
    torch.manual_seed(3)
    net = make(**settings).double()
    for name, tensor in net.state_dict().items():
        if tensor.ndim == 1 and not name.endswith("bias"):
            tensor.uniform_(0.5, 1.5)
    return net


def ours(found, where):
    """Our network with the converted weights, and no other."""
    net, state = found
    made = net.build(where).double()
    load_strict(made, state)
    return made


def same(a, b):
    assert a.shape == b.shape
    assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


def picture(channels, side=32, count=2):
    return torch.rand(count, channels, side, side, dtype=torch.float64) * 2 - 1


def compare(theirs, mine, *inputs):
    """With the statistics of each picture, in training and in use."""
    singly = [theirs.train()(*(v[n : n + 1] for v in inputs)) for n in range(len(inputs[0]))]
    same(mine.eval()(*inputs), torch.cat(singly))
    same(mine.train()(*inputs), torch.cat(singly))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("width", "downs", "blocks"), [(4, 2, 3), (6, 1, 1), (2, 4, 2)])
def test_global_net(width, downs, blocks, norm):
    settings = {"width": width, "downs": downs, "blocks": blocks, "norm": norm}
    theirs = prepared(Global, c_in=6, c_out=2, **settings)
    net, state = original.generator(theirs.state_dict())
    assert (net.name, net.settings, net.channels) == ("global", settings | {"bias": True}, (6, 2))
    compare(theirs, ours((net, state), "G"), picture(6))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("enhancers", "local_blocks"), [(1, 3), (1, 1), (2, 2), (3, 1)])
def test_local_net(enhancers, local_blocks, norm):
    settings = {"width": 2, "enhancers": enhancers, "local_blocks": local_blocks, "downs": 1, "blocks": 2, "norm": norm}
    theirs = prepared(Local, c_in=5, **settings)
    net, state = original.generator(theirs.state_dict())
    assert (net.name, net.settings, net.channels) == ("local", settings | {"bias": True}, (5, 3))
    compare(theirs, ours((net, state), "G"), picture(5))


@pytest.mark.parametrize("norm", NORMS)
def test_stored_averages_of_batch_norms_are_kept(norm):
    theirs = prepared(Local, c_in=4, width=2, downs=1, blocks=1, norm=norm)
    mine = ours(original.generator(theirs.state_dict()), "G").eval()
    set_statistics(mine, "running" if norm == "batch" else "batch")
    x = picture(4)
    same(mine(x), theirs.eval()(x))


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize(("scales", "layers", "field"), [(1, 3, 70), (2, 3, 70), (3, 2, 34), (2, 1, 16), (1, 4, 142)])
def test_discriminator(scales, layers, field, apart):
    for norm in NORMS:
        theirs = prepared(Scales, c_in=5, width=4, layers=layers, scales=scales, norm=norm, apart=apart)
        net, state = original.discriminator(theirs.state_dict())
        settings = {"scales": scales, "field": field, "width": 4, "norm": norm, "padding": 2, "bias": True}
        assert (net.name, net.settings, net.channels) == ("multiscale", settings, (5, 1))
        xy = picture(5, side=40, count=1)
        judged, expected = ours((net, state), "D")(xy), theirs(xy)
        assert len(judged) == len(expected) == scales
        for own, other in zip(judged, expected, strict=True):
            assert len(own) == layers + 2
            for a, b in zip(own if apart else own[-1:], other, strict=True):
                same(a, b)


@pytest.mark.parametrize("norm", NORMS)
def test_encoder(norm):
    theirs = prepared(Features, c_out=4, width=2, downs=2, norm=norm)
    net, state = original.encoder(theirs.state_dict())
    assert (net.name, net.channels) == ("instance", (3, 4))
    assert net.settings == {"width": 2, "downs": 2, "norm": norm, "bias": True}
    instances = torch.randint(0, 5, (2, 1, 32, 32)) * 1000 + 7
    compare(theirs, ours((net, state), "E"), picture(3), instances)


# Names, sizes


def on_meta(make, **settings):
    with torch.device("meta"):
        return make(**settings).state_dict()


@pytest.mark.parametrize(
    ("state", "keys", "read", "where", "count"),
    [
        (on_meta(Global), 56, original.generator, "G", 182_546_755),
        (on_meta(Local), 74, original.generator, "G", 182_857_059),
        (on_meta(Scales, scales=1), 10, original.discriminator, "D", 2_801_601),
        (on_meta(Scales, scales=3), 30, original.discriminator, "D", 3 * 2_801_601),
        (on_meta(Scales, scales=3, apart=False), 30, original.discriminator, "D", 3 * 2_801_601),
        (on_meta(Features), 20, original.encoder, "E", 788_803),
    ],
)
def test_published_networks_in_full_size(state, keys, read, where, count):
    assert len(state) == keys
    net, _ = read(state)
    with torch.device("meta"):
        made = net.build(where)
    assert sum(p.numel() for p in made.parameters()) == sum(v.numel() for v in state.values()) == count


def test_names_are_the_recorded_ones():
    outer = {"model.1", *(f"model.{k}" for k in (4, 7, 10, 13, 25, 28, 31, 34))}
    blocks = {f"model.{k}.conv_block.{j}" for k in range(16, 25) for j in (1, 5)}
    local = {"model1_1.1", "model1_1.4", "model1_2.3", "model1_2.7"}
    local |= {f"model1_2.{k}.conv_block.{j}" for k in range(3) for j in (1, 5)}
    for state, modules in (
        (on_meta(Global), outer | blocks | {"model.38"}),
        (on_meta(Local), outer | blocks | local),
        (on_meta(Features), {f"model.{k}" for k in (*range(1, 26, 3), 29)}),
        (on_meta(Scales, scales=1), {f"scale0_layer{k}.0" for k in range(5)}),
        (on_meta(Scales, scales=1, apart=False), {f"layer0.{k}" for k in (0, 2, 5, 8, 11)}),
    ):
        assert set(state) == {f"{name}.{tensor}" for name in modules for tensor in ("weight", "bias")}


def test_wrappers_and_averages_of_old_instance_norms_do_not_matter():
    state = Global(4, 3, width=2, downs=1, blocks=1).state_dict()
    expected = original.generator(state)[1]
    old = {"model.2.running_mean": torch.ones(2), "model.2.running_var": torch.zeros(2)}
    for prefix in ("module.", "_orig_mod.", "module._orig_mod."):
        found = original.generator({prefix + name: tensor for name, tensor in (state | old).items()})[1]
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)


def without(state, name):
    return {key: value for key, value in state.items() if key != name}


def broken():
    """What is no such network, who reads it, and what is said."""
    read_G, read_D, read_E = original.generator, original.discriminator, original.encoder
    G, D = (make.state_dict() for make in (Global(4, 3, 2, downs=2, blocks=1), Scales(7, 2, scales=2)))
    local, E = Local(4, 3, 2, downs=1, blocks=1).state_dict(), Features(3, 3, 2, downs=2).state_dict()
    wide, flat = on_meta(Scales, width=128), torch.zeros(1, 1, 1, 1)
    wide["scale0_layer3.0.weight"] = torch.empty(512, 512, 4, 4, device="meta")  # their widths end at 512
    deep = {f"model.{k}.weight": flat for k in (1, 606, *range(1000, 1200))} | {"model.304.conv_block.1.weight": flat}
    return [
        ({}, read_G, "holds no weights by name; give a file that pix2pixHD's training has written"),
        (torch.zeros(3), read_G, "holds no weights by name"),
        ({"state_dict": G}, read_G, "state_dict is no tensor"),
        ({"epoch": 3}, read_D, "epoch is no tensor"),
        (without(G, "model.1.weight"), read_G, "model.1.weight is missing, the weight of a convolution expected"),
        (without(G, "model.7.bias"), read_G, r"model.7.bias is missing, \(8,\) expected in a global G of width 2, d"),
        (without(G, "model.10.conv_block.5.bias"), read_G, "model.10.conv_block.5.bias is missing"),
        (G | {"model.4.weight": flat}, read_G, r"model.4.weight is \(1, 1, 1, 1\), \(4, 2, 3, 3\) expected in a"),
        (G | {"more.weight": flat}, read_G, "more.weight is not expected in a global G of width 2, downs 2, blocks 1"),
        (G | {"model.2.weight": torch.ones(2)}, read_G, "model.2.bias is missing"),
        (without(local, "model1_2.7.weight"), read_G, "model1_2.7.weight is missing"),
        (E, read_G, "of a global G of width 2, downs 2, blocks 0, norm instance, which cannot be .*blocks: 0 is less"),
        (deep, read_G, "of a global G of width 1, downs 100, blocks 1, norm instance, which cannot be"),
        (G, read_E, "model.17.weight is missing"),
        (G, read_D, "scale 0 has 0 convolutions, 3 to 7 expected"),
        (D, read_G, "model.1.weight is missing"),
        (without(D, "scale1_layer2.0.bias"), read_D, "scale1_layer2.0.bias is missing"),
        (D | {"scale0_layer2.1.weight": torch.ones(8)}, read_D, "scale0_layer2.1.weight is not expected"),
        (wide, read_D, r"scale0_layer3.0.weight is \(512, 512, 4, 4\), \(1024, 512, 4, 4\) expected"),
    ]


@pytest.mark.parametrize(("state", "read", "said"), broken())
def test_what_does_not_fit_is_named(state, read, said):
    with pytest.raises(ValueError, match=said) as error:
        read(state)
    assert str(error.value).count("\n") == 0
    assert "give a file" in str(error.value)


# The command

CLASSES = 5


@pytest.fixture
def trained(tmp_path):
    """A folder as the original leaves it: a local G with features, D, E."""
    torch.manual_seed(3)
    folder = tmp_path / "checkpoints" / "small"
    folder.mkdir(parents=True)
    nets = {
        "G": Local(CLASSES + 1 + 3, 3, 2, downs=2, blocks=1, local_blocks=1),
        "D": Scales(CLASSES + 1 + 3, 2, scales=2),
        "E": Features(3, 3, 2, downs=2),
    }
    for name, net in nets.items():
        torch.save(net.state_dict(), folder / f"latest_net_{name}.pth")
    return folder, nets


def store(folder, name, value, **how):
    torch.save(value, folder / f"latest_net_{name}.pth", **how)


def command(folder, out, *more):
    return convert([str(folder), "--out", str(out), "--classes", str(CLASSES), *more])


def refused(capsys, folder, out, *more):
    """The one line that is said; nothing is left behind."""
    before = sorted(out.parent.iterdir())
    assert command(folder, out, *more) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("p2p-convert: ")
    assert not printed.out
    assert sorted(out.parent.iterdir()) == before
    return printed.err


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    """Shards of four label maps with instances."""
    root = tmp_path_factory.mktemp("labels")
    for seed in range(4):
        random = np.random.default_rng(seed)
        images = {
            "label": random.integers(0, CLASSES, (8, 8), dtype=np.uint8).repeat(4, 0).repeat(4, 1),
            "inst": random.integers(0, 30000, (4, 4)).astype(np.uint16).repeat(8, 0).repeat(8, 1),
            "img": random.integers(0, 256, (32, 32, 3), dtype=np.uint8),
        }
        for name, pixels in images.items():
            (root / f"in/train_{name}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / f"in/train_{name}/{seed}.png")
    assert pack.main(["labels", str(root / "in"), str(root / "set"), "--classes", str(CLASSES)]) == 0
    return root / "set"


def config(path, labels, said, out, **changed):
    """The settings that the command has printed, with everything else small."""
    networks = yaml.safe_load("\n".join(line for line in said.splitlines() if line[1] == ":"))
    tree = small_tree(labels) | {"task": {"name": "pix2pixhd", "perceptual": 0.0}, "init_from": str(out)}
    tree["data"] |= {"val": "", "batch": 2, "load": 32, "crop": 32}
    tree |= {"E": {"name": "instance"}} | networks | changed
    if "E" in networks:
        tree["task"]["features"] = 3
    path.write_text(json.dumps(tree))
    return path


def first_weights(path, folder):
    """What a run begins with."""
    made = build_experiment(conf.load(path), 1, torch.device("cpu"))
    return Run(made, folder, torch.device("cpu"), Journal(folder, 0, print)).nets


def test_converted_weights_translate_as_the_original_does(trained, tmp_path, capsys):
    folder, nets = trained
    assert command(folder, tmp_path / "out") == 0
    said = capsys.readouterr()
    assert "task.features=3, data.boundaries=true and init_from=" in said.out
    assert not said.err
    G = p2p.load(tmp_path / "out")
    assert (G.spec.crop, G.spec.resized, G.spec.view) == ((1024, 2048), True, View(CLASSES, boundaries=True))
    assert G.spec.pictures == (1, 3)
    x, y = torch.rand(2, CLASSES + 1, 32, 32), torch.rand(2, 3, 32, 32) * 2 - 1
    instances = torch.randint(0, 4, (2, 1, 32, 32))
    features = nets["E"](y, instances)
    assert torch.allclose(G.encode(y, instances), features, atol=1e-5)
    assert torch.allclose(G(x, features.detach()), nets["G"](torch.cat([x, features], 1)), atol=1e-5)


def test_a_run_begins_with_converted_weights(trained, labels, tmp_path, capsys):
    folder, nets = trained
    out = tmp_path / "out"
    assert command(folder, out) == 0
    path = config(tmp_path / "hd.yaml", labels, capsys.readouterr().out, out)
    assert train(["--config", str(path), "--run", str(tmp_path / "run"), "--dry-run"]) == 0
    found = first_weights(path, tmp_path / "run")
    G, D, E = (found[name].net for name in "GDE")
    assert torch.equal(G.enhancers[0].up.conv.weight, nets["G"].model1_2[1].weight)
    assert torch.equal(E.trunk[0].conv.weight, nets["E"].model[1].weight)
    assert torch.equal(D.scales[0].convs[3].bias, nets["D"].scale0_layer3[0].bias)
    assert train(["--config", str(path), "--run", str(tmp_path / "run"), "--set", "schedule.epochs=0.5"]) == 0
    assert checkpoint.newest(tmp_path / "run")


def test_a_local_net_grows_around_a_converted_global_one(labels, tmp_path, capsys):
    """As with the original's --load_pretrain: the inner net, and the two coarser scales."""
    torch.manual_seed(3)
    G, D = Global(CLASSES + 1, 3, 4, downs=2, blocks=1), Scales(CLASSES + 1 + 3, 2, scales=2)
    store(tmp_path, "G", G.state_dict())
    store(tmp_path, "D", D.state_dict())
    assert command(tmp_path, tmp_path / "out", "--crop", "16x24", "--no-resize") == 0
    spec = p2p.load(tmp_path / "out").spec
    assert (spec.crop, spec.resized, spec.encoder) == ((16, 24), False, None)
    larger = {"name": "local", "width": 2, "downs": 2, "blocks": 1}, {"name": "multiscale", "width": 2, "scales": 3}
    said = capsys.readouterr().out
    path = config(tmp_path / "hd.yaml", labels, said, tmp_path / "out", G=larger[0], D=larger[1])
    found = first_weights(path, tmp_path / "run")
    assert torch.equal(found["G"].net.trunk[3].convs[1].conv.weight, G.model[10].conv_block[5].weight)
    assert torch.equal(found["D"].net.scales[1].last.weight, D.scale1_layer4[0].weight)


def test_what_was_converted_is_no_run_to_go_on_with(trained, labels, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(trained[0], out) == 0
    path = config(tmp_path / "hd.yaml", labels, capsys.readouterr().out, out)
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    assert train(["--config", str(path), "--run", str(out)]) == 2
    assert "give the run's own settings, or another --run folder" in capsys.readouterr().err
    assert all(file.read_bytes() == data for file, data in before.items())


@pytest.mark.parametrize("how", [{}, {"_use_new_zipfile_serialization": False}])
def test_g_alone_of_another_epoch_in_old_and_new_files(how, tmp_path, capsys):
    G = Global(3, 3, 2, downs=1, blocks=1, norm="batch")
    torch.save(G.state_dict(), tmp_path / "20_net_G.pth", **how)
    argv = [
        str(tmp_path),
        "--out",
        str(tmp_path / "deep" / "out"),
        "--classes",
        "0",
        "--no-boundaries",
        "--which",
        "20",
    ]
    assert convert(argv) == 0
    assert not capsys.readouterr().err
    found = p2p.load(tmp_path / "deep" / "out")
    assert (found.spec.crop, found.spec.pictures, found.spec.settings["norm"]) == ((512, 1024), (3, 3), "batch")
    assert found.picture(Image.new("RGB", (20, 12))).size == (20, 12)
    x = picture(3, count=1).float()
    assert torch.allclose(found(x), G.train()(x), atol=1e-5)


class Program:
    """What a hostile file would have the reader do."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_files_that_run_code_are_refused(trained, tmp_path, capsys):
    folder, nets = trained
    state = nets["D"].state_dict() | {"more": Program(tmp_path / "harm")}
    for how in ({}, {"_use_new_zipfile_serialization": False}):
        store(folder, "D", state, **how)
        said = refused(capsys, folder, tmp_path / "out")
        assert f"{folder / 'latest_net_D.pth'}: is damaged, or holds more than weights" in said
    assert not (tmp_path / "harm").exists()


def claims(state, name):
    """One number, said to be many."""
    return state | {name: torch.zeros(1).expand(state[name].shape)}


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("G", lambda state: b"nothing", "latest_net_G.pth: holds no weights by name"),
        ("G", lambda state: {**state, "model1_2.8.weight": torch.zeros(3)}, "G.pth: model1_2.8.weight is not expected"),
        ("E", lambda state: without(state, "model.1.bias"), "latest_net_E.pth: model.1.bias is missing"),
        ("D", lambda state: state | {"scale0_layer0.0.bias": torch.full((2,), np.nan)}, "not made of finite numbers"),
        ("G", lambda state: claims(state, "model.1.weight"), "model.1.weight is not made of finite numbers"),
        ("G", lambda state: Local(CLASSES + 2, 3, 2).state_dict(), "sees 7 channels, which are not 5 classes + 1 of"),
        ("E", lambda state: Features(3, 2, 2).state_dict(), "not 5 classes + 1 of boundaries + 2 features; give its"),
        ("E", lambda state: Features(1, 3, 2).state_dict(), "E.pth: sees 1 channels, and with this G 3 are expected"),
        ("D", lambda state: Scales(12, 2).state_dict(), "D.pth: sees 12 channels, and with this G 9 are expected"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit(name, change, said, trained, tmp_path, capsys):
    folder, nets = trained
    store(folder, name, change(nets[name].state_dict()))
    assert said in refused(capsys, folder, tmp_path / "out")


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b"x" * 100])
def test_damaged_files(damage, trained, tmp_path, capsys):
    file = trained[0] / "latest_net_G.pth"
    file.write_bytes(damage(file.read_bytes()))
    assert f"{file}: is damaged" in refused(capsys, trained[0], tmp_path / "out")


def test_mistakes_of_the_command(trained, tmp_path, capsys):
    folder, out = trained[0], tmp_path / "out"
    assert "20_net_G.pth: no such file; give a folder of the original's checkpoints/" in refused(
        capsys, folder, out, "--which", "20"
    )
    assert "not 4 classes + 1 of boundaries + 3 features" in refused(capsys, folder, out, "--classes", "4")
    assert "not 5 classes + 3 features" in refused(capsys, folder, out, "--no-boundaries")
    assert "not a picture's 1 or 3 + 1 of" in refused(capsys, folder, out, "--classes", "0")
    for wrong in (["--classes", "-1"], ["--crop", "512"], ["--crop", "0x10"]):
        with pytest.raises(SystemExit) as stopped:
            command(folder, out, *wrong)
        assert stopped.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_what_exists_is_never_overwritten(trained, tmp_path, capsys):
    for out in (tmp_path / "folder", tmp_path / "file"):
        out.mkdir() if out.name == "folder" else out.write_text("mine")
        assert f"{out}: exists already; give a new folder with --out" in refused(capsys, trained[0], out)
    assert (tmp_path / "file").read_text() == "mine"
