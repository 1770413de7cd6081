"""pix2pixHD's networks: the published counts, what their parts see, and instance means against slow loops."""

import pytest
import torch
from torch import nn

from p2p.engine import Engine
from p2p.networks import Encoder, LocalEnhancer, MultiScale, PatchGAN, ResNet
from p2p.networks.blocks import set_recompute
from p2p.networks.encoder import DENSE, instance_rows, pooled
from p2p.networks.norm import init_normal
from p2p.networks.vgg import VGG, load_vgg, weights_file
from tests.conftest import SHARED


def count(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (lambda: ResNet(36, 3), 182_546_755),
        (lambda: LocalEnhancer(36, 3), 182_857_059),
        (lambda: MultiScale(39, scales=1), 2_801_601),
        (lambda: MultiScale(39, scales=2), 5_603_202),
        (lambda: MultiScale(39, scales=3), 8_404_803),
        (lambda: Encoder(3, 3), 788_803),
        (lambda: ResNet(3, 3), 182_443_267),
        (lambda: ResNet(36, 3, bias=False), 182_546_755 - 21_376),
    ],
)
def test_counts_are_the_published(make, parameters):
    with torch.device("meta"):
        assert count(make()) == parameters


def test_maps_have_the_published_sizes():
    with torch.device("meta"):
        judged = MultiScale(39)(torch.empty(1, 39, 256, 512))
    sizes = [[tuple(m.shape[2:]) for m in maps] for maps in judged]
    assert sizes[0] == [(129, 257), (65, 129), (33, 65), (34, 66), (35, 67)]
    assert sizes[1] == [(65, 129), (33, 65), (17, 33), (18, 34), (19, 35)]
    assert [m.shape[1] for m in judged[0]] == [64, 128, 256, 512, 1]


NETS = {
    "global": lambda **kind: ResNet(5, 3, width=4, downs=2, blocks=2, **kind),
    "one enhancer": lambda **kind: LocalEnhancer(5, 3, width=2, downs=1, blocks=1, local_blocks=1, **kind),
    "three enhancers": lambda **kind: LocalEnhancer(5, 3, width=2, enhancers=3, downs=1, blocks=1, **kind),
}


@pytest.mark.parametrize("norm", ["instance", "batch", "sync", "none"])
@pytest.mark.parametrize("name", NETS)
def test_every_parameter_is_used_and_pictures_are_in_range(name, norm):
    G = NETS[name](norm=norm, bias=False)
    y = G(torch.rand(2, 5, 32, 64), torch.tensor([1, 2]))
    assert y.shape == (2, 3, 32, 64)
    assert y.abs().max() <= 1
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in G.parameters())


def test_an_enhancer_adds_to_what_the_net_inside_makes_of_half_the_picture():
    """With an enhancer that makes nothing of its own picture, G is the upper half of the enhancer on the trunk's maps
    of the averaged picture."""
    G = LocalEnhancer(3, 3, width=2, downs=1, blocks=1, local_blocks=1, norm="none")
    for parameter in G.enhancers[0].down.parameters():
        nn.init.zeros_(parameter)
    x = torch.rand(1, 3, 16, 16)
    half = nn.AvgPool2d(3, 2, 1, count_include_pad=False)(x)
    e = G.enhancers[0]
    assert torch.allclose(G(x), G.head(e.up(e.blocks(G.trunk(half)))), atol=1e-6)


def test_the_scales_see_the_picture_halved_again_and_again():
    """The coarsest is first in the list of modules and last in the answer."""
    D = MultiScale(3, scales=3, field=16, width=2)
    halve = nn.AvgPool2d(3, 2, 1, count_include_pad=False)
    xy = torch.rand(2, 3, 64, 64)
    alone = [D.scales[2](xy)[0], D.scales[1](halve(xy))[0], D.scales[0](halve(halve(xy)))[0]]
    for ours, theirs in zip(D(xy), alone, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert len(PatchGAN(3, field=16, width=2)(xy)) == 1


@pytest.mark.parametrize("size", [(30, 32), (32, 18), (4, 32)])
def test_sizes_that_do_not_divide_are_refused(size):
    with pytest.raises(ValueError, match=rf"global: got {size[0]}x{size[1]} pixels; sides must be multiples of 4"):
        NETS["global"]()(torch.zeros(1, 5, *size))


# Instance means.


def slow_means(maps, instances):
    """One instance of one picture after the other, in float64."""
    out = torch.empty_like(maps)
    for n in range(len(maps)):
        for i in instances[n].unique():
            mask = instances[n, 0] == i
            for c in range(maps.shape[1]):
                out[n, c][mask] = maps[n, c][mask].double().sum().div(mask.sum()).to(maps.dtype)
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [1, 1000, 21_000_000])  # the last does not fit a table
def test_pooling_is_the_mean_of_each_instance_exactly(dtype, spread):
    """Whole numbers, so that every order of adding them gives the same sum."""
    numbers = torch.Generator().manual_seed(0)
    instances = torch.randint(0, 100, (3, 1, 24, 40), generator=numbers, dtype=torch.int32) * spread
    instances[1] = 7  # a picture of one instance
    maps = torch.randint(-(2**20), 2**20, (3, 2, 24, 40), generator=numbers).to(dtype)
    assert torch.equal(pooled(maps, instances), slow_means(maps, instances))


def test_pictures_with_the_same_ids_are_not_mixed():
    maps = torch.cat([torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)])
    assert torch.equal(pooled(maps, torch.full((2, 1, 4, 4), 33_001, dtype=torch.int32)), maps)


def test_pooling_passes_gradients_on_as_the_slow_one_does():
    instances = torch.randint(0, 5, (2, 1, 6, 6), dtype=torch.int32)
    maps = torch.randn(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    (ours,) = torch.autograd.grad((pooled(maps, instances) * weights).sum(), maps)
    (slow,) = torch.autograd.grad((slow_means_of(maps, instances) * weights).sum(), maps)
    torch.testing.assert_close(ours, slow, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(lambda m: pooled(m, instances), maps)


def slow_means_of(maps, instances):
    """The same, differentiable."""
    pictures = []
    for one, ids in zip(maps, instances, strict=True):
        masks = [(ids == i).to(maps.dtype) for i in ids.unique()]
        pictures.append(sum(mask * (one * mask).sum((1, 2), keepdim=True) / mask.sum() for mask in masks))
    return torch.stack(pictures)


def test_a_mean_over_millions_of_pixels_keeps_its_digits():
    maps = torch.full((1, 1, 2048, 1024), 0.1) + torch.arange(2048 * 1024).view(1, 1, 2048, 1024) % 2 * 1e-4
    assert pooled(maps, torch.zeros(1, 1, 2048, 1024, dtype=torch.int32))[0, 0, 0, 0] == maps.double().mean().float()


def test_rows_are_few_where_ids_are_large():
    rows, number = instance_rows(torch.tensor([[[[5, 2_000_000_000]]], [[[5, 5]]]], dtype=torch.int32))
    assert number == 3
    assert rows.tolist() == [0, 1, 2, 2]
    assert instance_rows(torch.tensor([[[[0, 33_001]]]], dtype=torch.int32))[1] == 33_002 < DENSE


def test_features_are_the_same_in_all_of_an_instance():
    instances = torch.randint(0, 4, (2, 1, 16, 16), dtype=torch.int32)
    features = Encoder(3, 3, width=2, downs=2)(torch.rand(2, 3, 16, 16) * 2 - 1, instances)
    assert features.shape == (2, 3, 16, 16)
    assert features.abs().max() <= 1
    for n in range(2):
        for i in range(4):
            own = features[n][:, instances[n, 0] == i]
            assert torch.equal(own, own[:, :1].expand_as(own))


# Memory.


@pytest.mark.parametrize("name", NETS)
def test_recomputing_changes_no_bit_and_keeps_less(name):
    def step(recompute):
        net = NETS[name](bias=False)
        init_normal(net, torch.Generator().manual_seed(3))
        if recompute:
            assert set_recompute(net) > 3
        G, kept = Engine(net, lr=1e-3), []
        x = torch.rand(2, 5, 32, 32, generator=torch.Generator().manual_seed(4))
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
            loss = G(x, None).square().mean()
        G.backward(loss)
        G.step()
        return {n: p.detach().clone() for n, p in G.net.named_parameters()}, sum(kept)

    (plain, whole), (again, less) = step(False), step(True)
    assert all(torch.equal(plain[n], again[n]) for n in plain)
    assert less < whole / 2


# VGG.


@pytest.mark.parametrize("name", ["vgg19", "vgg16"])
def test_vgg_gives_the_map_after_the_first_relu_of_each_block(name):
    """Against torchvision's own network, one block after the other."""
    import torchvision

    net, theirs = VGG(name, "raw"), getattr(torchvision.models, name)(weights=None).features
    theirs.load_state_dict({k: dict(net.features.state_dict()).get(k, v) for k, v in theirs.state_dict().items()})
    y = torch.rand(1, 3, 32, 32)
    maps, expected, convolutions = y, [], 0
    for layer in theirs:
        maps = layer(maps.clone())
        convolutions = 0 if isinstance(layer, nn.MaxPool2d) else convolutions + isinstance(layer, nn.Conv2d)
        if isinstance(layer, nn.ReLU) and convolutions == 1:
            expected.append(maps.clone())
    assert all(torch.equal(a, b) for a, b in zip(net(y), expected, strict=True))


def test_vgg_sees_what_it_was_trained_on_unless_told_otherwise():
    torch.manual_seed(0)
    plain, raw = VGG("vgg16"), VGG("vgg16", "raw")
    raw.load_state_dict(plain.state_dict())
    y = torch.rand(1, 3, 16, 16) * 2 - 1
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    by_hand = (y / 2 + 0.5 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    assert torch.allclose(plain(y)[2], raw(by_hand)[2], atol=1e-5)
    gray = y[:, :1]
    assert torch.equal(plain(gray)[0], plain(gray.expand(-1, 3, -1, -1))[0])


def test_vggs_weights_are_constants_and_pass_gradients_on():
    net, y = VGG("vgg16"), torch.rand(1, 3, 16, 16, requires_grad=True)
    sum(m.mean() for m in net(y)).backward()
    assert y.grad.abs().max() > 0
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("of_today", [True, False])  # torchvision's own are of 2017
def test_weights_come_from_a_file_or_from_torchvisions_cache(tmp_path, monkeypatch, of_today):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ValueError, match=r"vgg19-dcbb9e9d.pth is no file; put https://.*task.perceptual=0"):
        weights_file("vgg19", "")
    net = VGG("vgg16")
    whole = net.state_dict() | {"classifier.0.weight": torch.zeros(3)}  # the full file has more
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints" / "vgg16-397923af.pth"
    torch.save(whole, file, _use_new_zipfile_serialization=of_today)
    found = load_vgg("vgg16", "raw", weights_file("vgg16", ""))
    assert all(torch.equal(a, b) for a, b in zip(found.state_dict().values(), net.state_dict().values(), strict=True))
    with pytest.raises(ValueError, match=r"holds no weights of vgg19 \(features.16.weight is missing"):
        load_vgg("vgg19", "raw", weights_file("vgg16", ""))
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"bad.pth holds no weights of vgg16"):
        load_vgg("vgg16", "raw", tmp_path / "bad.pth")


def test_a_file_that_would_run_a_program_is_not_loaded(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"features.0.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="holds no weights"):
        load_vgg("vgg16", "raw", tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_real_weights_know_an_edge_from_a_surface():
    file = SHARED / "weights" / "vgg16_features_torchvision_layout.pth"
    if not file.is_file():
        pytest.skip("needs the real weights of VGG-16, which are not kept here")
    net = load_vgg("vgg16", "imagenet", file)
    assert net.features[0].weight.flatten()[:3].tolist() == pytest.approx([-0.55373, 0.14270, 0.52896], abs=1e-5)
