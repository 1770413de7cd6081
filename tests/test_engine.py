"""Ranks and micro-batches change speed and memory, never the mathematics; counted and compared on real processes."""

import pytest
import torch
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from p2p import dist
from p2p.data.reader import noise_keys
from p2p.data.steps import rank_slice
from p2p.engine import HAS_BUCKETS, Engine
from p2p.loop import train
from p2p.networks import PatchGAN, UNet
from p2p.networks.norm import init_normal
from p2p.tasks import Pix2Pix
from tests.ranks import run_ranks

BATCH, STEPS, SIDE = 4, 3, 32


def play(norm, group, micro, gan="vanilla", recompute=None, dtype=torch.float64, compiled=False):
    """Train a small pix2pix on this rank's share of seeded batches; returns weights and reductions a step."""
    weights = torch.Generator().manual_seed(3)
    G = UNet(3, 3, size=16, width=4, dropout="paper", norm=norm, group=group).to(dtype)
    D = PatchGAN(6, field=16, width=4, norm=norm, group=group).to(dtype)
    nets = {}
    for name, net in (("G", G), ("D", D)):
        init_normal(net, weights)
        nets[name] = Engine(net, compile=compiled, recompute=bool(micro) if recompute is None else recompute)
    reduced = count_reductions(nets)
    pixels = torch.Generator().manual_seed(4)
    batches = []
    for step in range(STEPS):
        x, y = (torch.rand(BATCH, 3, SIDE, SIDE, generator=pixels, dtype=dtype) * 2 - 1 for _ in "xy")
        mine = rank_slice(0, BATCH, dist.rank(), dist.world())
        z = noise_keys(0, [step * BATCH + i for i in mine])
        batches.append({"x": x[list(mine)], "y": y[list(mine)], "z": z})
    train(Pix2Pix(gan=gan), nets, batches, total=BATCH * STEPS, batch=BATCH, micro=micro)
    weights = {f"{k}.{n}": p.detach() for k, e in nets.items() for n, p in e.net.named_parameters()}
    return weights, {name: len(calls) / STEPS for name, calls in reduced.items()}


def count_reductions(nets):
    """Put a communication hook on each network that notes the bytes of every bucket that is reduced."""
    calls = {name: [] for name in nets}
    for name, engine in nets.items():
        if engine.ddp is not None:

            def hook(state, bucket, log=calls[name]):
                log.append(bucket.buffer().nbytes)
                return allreduce_hook(state, bucket)

            engine.ddp.register_comm_hook(None, hook)
    return calls


def assert_same(a, b, tolerance=1e-9):
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def one_step_of_a_larger_network():
    """Bytes of each reduction of the first step, and of the gradients."""
    engine = Engine(UNet(3, 3, size=64, width=16))
    calls = count_reductions({"G": engine})
    x = torch.rand(1, 3, 64, 64)
    engine.backward(engine(x, None).square().mean())
    engine.step()
    return calls["G"], 4 * sum(p.numel() for p in engine.parameters.values())


@pytest.mark.skipif(not HAS_BUCKETS, reason="torch before 2.14 cannot cut DDP's buckets without its forward")
def test_gradients_are_reduced_in_buckets_from_the_first_step_on(tmp_path):
    """In one piece they would wait for the end of the backward."""
    calls, gradients = run_ranks(2, one_step_of_a_larger_network, folder=tmp_path)[0]
    assert len(calls) > 1
    assert sum(calls) == gradients


CASES = {
    "batch norm alone": {"norm": "batch", "group": 1, "micro": 0},
    "batch norm in pairs": {"norm": "batch", "group": 2, "micro": 0},
    "batch norm and micro-batches": {"norm": "batch", "group": 1, "micro": 1},
    "instance norm": {"norm": "instance", "group": 1, "micro": 0},
    "no norm": {"norm": "none", "group": 1, "micro": 0},
    "lsgan": {"norm": "instance", "group": 1, "micro": 1, "gan": "lsgan"},
    "hinge": {"norm": "instance", "group": 1, "micro": 0, "gan": "hinge"},
    "wgan": {"norm": "instance", "group": 1, "micro": 1, "gan": "wgan"},
}


def play_all(cases):
    return {name: play(**case) for name, case in cases.items()}


@pytest.fixture(scope="module")
def on_two_ranks(tmp_path_factory):
    return run_ranks(2, play_all, CASES, folder=tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_give_the_weights_of_one_with_one_reduction_a_network_and_step(case, on_two_ranks):
    alone, _ = play(**CASES[case] | {"micro": 0})
    first, second = (rank[case] for rank in on_two_ranks)
    assert_same(alone, first[0])
    assert_same(first[0], second[0], tolerance=0)
    assert first[1] == {"G": 1, "D": 1}


@pytest.mark.parametrize(("norm", "group"), [("batch", 1), ("batch", 2), ("instance", 1), ("none", 1)])
def test_micro_batches_give_the_weights_of_the_whole(norm, group):
    whole, _ = play(norm, group, micro=0)
    parts, _ = play(norm, group, micro=group)
    assert_same(whole, parts)


def test_uneven_shares_of_three_ranks_weigh_by_their_images(tmp_path):
    alone, _ = play("instance", 1, micro=0)
    (weights, _), *_ = run_ranks(3, play, "instance", 1, 0, folder=tmp_path)
    assert_same(alone, weights)


def test_recomputing_activations_changes_no_bit():
    plain, _ = play("batch", 2, micro=0, recompute=False, dtype=torch.float32)
    again, _ = play("batch", 2, micro=0, recompute=True, dtype=torch.float32)
    assert_same(plain, again, tolerance=0)


def test_a_frozen_network_passes_gradients_on_and_keeps_none():
    D = Engine(PatchGAN(6, field=16, width=4))
    xy = torch.randn(1, 6, 16, 16, requires_grad=True)
    D.frozen(xy)[0][-1].sum().backward()
    assert xy.grad is not None
    assert all(p.grad is None and p.requires_grad for p in D.net.parameters())


def test_state_goes_on_as_if_nothing_had_been():
    def engine():
        torch.manual_seed(1)
        return Engine(UNet(1, 1, size=16, width=2, norm="none"))

    def step(e, seed):
        x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
        e.backward(e(x, None).square().mean())
        e.step()

    one = engine()
    for seed in range(4):
        step(one, seed)
        if seed == 1:
            stored = {name: t.clone() for name, t in one.state().items()}
    two = engine()
    two.load(stored)
    for seed in (2, 3):
        step(two, seed)
    for name, tensor in one.state().items():
        assert torch.equal(tensor, two.state()[name]), name


def test_weights_of_another_network_are_refused():
    small, large = (Engine(UNet(3, 3, size=16, width=w)) for w in (2, 4))
    with pytest.raises(ValueError, match=r"another network: .* is \(.*\) in the file, \(.*\) in the network"):
        large.load(small.state())


def test_bf16_keeps_weights_and_results_in_float32_and_stays_near():
    torch.manual_seed(0)
    net = UNet(3, 3, size=16, width=8, norm="instance")
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    full = Engine(net)(x, None)
    half = Engine(net, precision="bf16", channels_last=True)(x, None)
    assert half.dtype == torch.float32
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert 0 < (full - half).abs().max() < 0.05


def test_compiled_networks_learn_as_eager_ones():
    eager, _ = play("instance", 1, micro=0, dtype=torch.float32)
    compiled, _ = play("instance", 1, micro=0, dtype=torch.float32, compiled=True)
    assert_same(eager, compiled, tolerance=1e-4)


class HalfUsed(torch.nn.Module):
    """A network with a weight that its answer does not depend on."""

    def __init__(self):
        super().__init__()
        self.used, self.idle = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))

    def forward(self, x):
        return x * self.used


def step_half_used():
    """What a step says, and the weights after it."""
    engine = Engine(HalfUsed(), lr=0.1)
    engine.backward(engine(torch.ones(1, 1)).mean() / dist.joined())
    try:
        engine.step()
    except ValueError as error:
        return str(error), [p.item() for p in engine.net.parameters()]
    return "", [p.item() for p in engine.net.parameters()]


def test_a_weight_without_a_gradient_is_never_left_out_of_a_sum_in_silence(tmp_path):
    """Alone its gradient is 0; on two ranks, where DDP would wait for it and sum nothing, it is named."""
    said, weights = step_half_used()
    assert (said, weights) == ("", [pytest.approx(0.9), 1.0])
    for said, weights in run_ranks(2, step_half_used, folder=tmp_path):
        assert "HalfUsed: no loss of the turn depends on its weight idle" in said
        assert weights == [1.0, 1.0]
