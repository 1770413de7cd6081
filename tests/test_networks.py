"""Networks: published counts, sizes and receptive fields; norms and noise that do not know the batch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from p2p.data import keyed
from p2p.networks import PatchGAN, UNet
from p2p.networks.norm import GroupedBatchNorm, SyncNorm, init_normal, set_statistics
from p2p.noise import Dropout, mix, uniform


def count(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("net", "parameters"),
    [
        (lambda: UNet(), 54_413_955),
        (lambda: UNet(size=128), 41_828_995),
        (lambda: UNet(1, 2), 54_409_858),
        (lambda: PatchGAN(), 2_768_705),
        (lambda: PatchGAN(field=1), 9_024),
        (lambda: PatchGAN(field=1, norm="none"), 9_024 - 256 + 128 + 1),
    ],
)
def test_published_parameter_counts(net, parameters):
    with torch.device("meta"):
        assert count(net()) == parameters


@pytest.mark.parametrize(
    ("field", "parameters", "side"),
    [
        (1, 9_024, 256),
        (16, 139_585, 126),
        (34, 666_433, 62),
        (70, 2_768_705, 30),
        (142, 6_964_033, 14),
        (286, 11_159_361, 6),
    ],
)
def test_patchgan_maps_and_counts(field, parameters, side):
    with torch.device("meta"):
        D = PatchGAN(field=field)
        assert count(D) == parameters
        assert D(torch.empty(1, 6, 256, 256))[0][-1].shape == (1, 1, side, side)


@pytest.mark.parametrize("field", [1, 16, 34, 70, 142, 286])
def test_receptive_field_is_what_it_says(field):
    """The pixels that one logit's gradient reaches; ones for weights, so that nothing cancels."""
    D = PatchGAN(1, field=field, width=1, norm="none")
    for p in D.parameters():
        torch.nn.init.ones_(p)
    side = 512
    image = torch.ones(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    logits = D.double()(image)[0][-1]
    middle = logits.shape[-1] // 2
    logits[0, 0, middle, middle].backward()
    reached = image.grad[0, 0].nonzero()
    assert (reached.max(0).values - reached.min(0).values + 1).tolist() == [field, field]


@pytest.mark.parametrize("size", [4, 16, 64])
@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("norm", ["batch", "instance", "sync", "none"])
def test_unet_of_any_depth_uses_every_parameter(size, skips, norm):
    G = UNet(1, 2, size=size, width=2, skips=skips, norm=norm)
    init_normal(G, torch.Generator().manual_seed(0))
    y = G(torch.rand(2, 1, size * 2, size), torch.tensor([1, 2]))
    assert y.shape == (2, 2, size * 2, size)
    assert y.abs().max() <= 1
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in G.parameters())


def test_unet_says_which_sizes_it_takes():
    with pytest.raises(ValueError, match="got 48x64 pixels; sides must be multiples of 64"):
        UNet(size=64, width=2)(torch.zeros(1, 3, 48, 64))
    with pytest.raises(ValueError, match="size: 96 is not a power of two"):
        UNet(size=96)


def dropped(size, placement):
    """Levels with dropout, 1 the outermost."""
    G = UNet(size=size, width=1, dropout=placement)
    return [G.up[i].dropout.salt for i in range(len(G.up)) if G.up[i].dropout]


def test_both_dropout_placements():
    assert dropped(256, "paper") == [8, 7, 6]  # the three innermost, bottleneck included: models.lua
    assert dropped(256, "port") == [7, 6, 5]  # one level further out: networks.py
    assert dropped(128, "paper") == [7, 6, 5]
    assert dropped(128, "port") == [6, 5]
    assert dropped(256, "none") == []


def test_dropout_depends_on_the_sample_key_alone():
    layer, x = Dropout(0.5, salt=3), torch.ones(4, 8, 16, 16)
    z = torch.tensor([10, 11, 12, 10])
    y = layer(x, z)
    assert torch.equal(y[0], y[3])
    assert not torch.equal(y[0], y[1])
    assert torch.equal(y[1:2], layer(x[:1], z[1:2]))
    assert torch.equal(layer(x.contiguous(memory_format=torch.channels_last), z), y)
    assert torch.equal(layer(x, None), x)
    assert not torch.equal(Dropout(0.5, salt=4)(x, z), y)
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert abs((y == 0).double().mean() - 0.5) < 0.03  # 6 sigma of 8192 draws


def test_uniform_is_uniform_and_uncorrelated():
    u = uniform(torch.arange(64), 1, (32, 32)).flatten(1).double()
    assert abs(u.mean() - 0.5) < 0.007  # 6 sigma of 65536 draws
    assert (torch.histc(u, 16, 0, 1) / u.numel() - 1 / 16).abs().max() < 0.006
    assert (torch.corrcoef(u) - torch.eye(64)).abs().max() < 0.19  # 6 sigma of 1024 draws


def test_device_and_reader_stir_alike():
    values = np.arange(-5, 5, dtype=np.int64) * 7_919_199_999
    assert np.array_equal(mix(torch.from_numpy(values)).numpy().view(np.uint64), keyed.mix(values.view(np.uint64)))


@pytest.mark.parametrize("group", [1, 2, 4])
def test_grouped_batch_norm_is_batch_norm_of_each_group(group):
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 5) * 3 + 1
    layer = GroupedBatchNorm(3, group)
    init_normal(layer, torch.Generator().manual_seed(0))
    expected = torch.cat([F.batch_norm(g, None, None, layer.weight, layer.bias, True) for g in x.split(group)])
    assert torch.equal(layer(x), expected)
    assert torch.allclose(layer(x)[:group], layer(x[:group]), atol=1e-6)  # neighbours outside the group: no matter


def test_a_batch_that_splits_a_group_is_refused():
    with pytest.raises(ValueError, match="3 images do not divide into groups of 2"):
        GroupedBatchNorm(3, 2)(torch.zeros(3, 3, 4, 4))


@pytest.mark.parametrize("layer", [GroupedBatchNorm(3, 4), SyncNorm(3)])
def test_in_evaluation_a_picture_does_not_know_its_neighbours(layer):
    x = torch.randn(4, 3, 5, 5)
    layer.eval()
    for statistics in ("batch", "running"):
        set_statistics(layer, statistics)
        assert torch.allclose(layer(x)[2:3], layer(x[2:3]), atol=1e-6)


def test_init_is_the_papers():
    G = UNet(size=64, width=32)
    init_normal(G, torch.Generator().manual_seed(1))
    for name, p in G.named_parameters():
        mean = float("norm.weight" in name)
        if name.endswith("bias"):
            assert (p == 0).all(), name
        elif p.numel() > 500:
            assert abs(p.mean() - mean) < 0.005, name
            assert abs(p.std() - 0.02) < 0.003, name
    again = UNet(size=64, width=32)
    init_normal(again, torch.Generator().manual_seed(1))
    assert all(torch.equal(a, b) for a, b in zip(G.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_no_bias_before_a_norm(norm):
    """Its gradient is rounding noise that Adam turns into full steps."""
    biases = [n for n, _ in UNet(size=16, width=2, norm=norm).named_parameters() if "conv.bias" in n]
    assert biases == ["up.3.conv.bias"]
