"""The engines agree: DDP and DeepSpeed's ZeRO end with the same weights for every task, and `exact` with the same bits
on any number of ranks; on real processes, with every byte of every reduction counted."""

import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as td
from torch import nn

import p2p
from p2p import checkpoint, dist
from p2p.adam import Adam
from p2p.data.reader import noise_keys
from p2p.data.steps import rank_slice
from p2p.data.views import View
from p2p.engine import Engine
from p2p.loop import train
from p2p.networks import Encoder, LocalEnhancer, MultiScale, PatchGAN, UNet
from p2p.networks.network import part_alone, parts
from p2p.networks.norm import init_normal
from p2p.tasks import TASKS
from p2p.zero import ZeRO
from tests.ranks import free_port, run_ranks

SIDE, STEPS = 32, 8
needs_deepspeed = pytest.mark.skipif(not importlib.util.find_spec("deepspeed"), reason="DeepSpeed is not installed")


ALONE = "pix2pixhd, the enhancer alone"


def pix2pix(norm, group):
    D = PatchGAN(6, field=16, width=4, norm=norm, group=group)
    return TASKS["pix2pix"](), View(), {"G": UNet(3, 3, size=16, width=4, norm=norm, group=group), "D": D}


def pix2pixhd(norm, group):
    """Local G with an encoder of two features, D of two scales, four classes and boundaries. No biases before a norm:
    their gradients are rounding noise, which Adam makes large."""
    kind = {"norm": norm, "group": group, "bias": False}
    G = LocalEnhancer(7, 3, width=4, enhancers=1, local_blocks=1, downs=1, blocks=1, **kind)
    D = MultiScale(8, scales=2, field=16, width=4, **kind)
    nets = {"G": nn.ModuleDict({"G": G, "E": Encoder(3, 2, width=4, downs=1, **kind)}), "D": D}
    return TASKS["pix2pixhd"](perceptual=0, features=2), View(4, boundaries=True), nets


def maps(batch, numbers):
    """Labels and instances in blocks of 8 pixels."""
    blocks = torch.randint(0, 4, (batch, 1, SIDE // 8, SIDE // 8), generator=numbers)
    instances = torch.randint(0, 5, blocks.shape, generator=numbers, dtype=torch.int32)
    return {"x": grown(blocks.to(torch.uint8)), "instances": grown(instances)}


def grown(blocks):
    return blocks.repeat_interleave(8, 2).repeat_interleave(8, 3)


GAMES = {"pix2pix": pix2pix, "pix2pixhd": pix2pixhd, ALONE: pix2pixhd}


def play(
    make,
    task,
    *,
    batch=4,
    micro=0,
    unit=1,
    steps=STEPS,
    load=None,
    first=0,
    channels_last=False,
    norm="batch",
    precision="fp32",
):
    """Train small networks in engines of `make` on this rank's share of seeded batches; returns their weights, states,
    and the bytes that were reduced for each element of a gradient."""
    alone = task == ALONE
    task, view, made = GAMES[task](norm, unit)
    shapes, nets = torch.Generator().manual_seed(3), {}
    for name, net in made.items():
        init_normal(net, shapes)
        if alone and name == "G":
            for key, weight in net.named_parameters():
                weight.requires_grad_(key.startswith(part_alone(net)))
        nets[name] = make(
            net, lr=2e-3, recompute=bool(micro) and name == "G", channels_last=channels_last, precision=precision,
            parts=parts(net),
        )  # fmt: skip
        if load:
            nets[name].load(load[name])
    numbers = torch.Generator().manual_seed(4)
    batches = []
    for step in range(first + steps):
        whole = {"y": torch.rand(batch, 3, SIDE, SIDE, generator=numbers) * 2 - 1}
        whole |= (
            {"x": torch.rand(batch, 3, SIDE, SIDE, generator=numbers) * 2 - 1}
            if not view.classes
            else maps(batch, numbers)
        )
        mine = list(rank_slice(0, batch, dist.rank(), dist.world(), unit))
        share = {name: pixels[mine] for name, pixels in whole.items()}
        batches.append({**share, "z": noise_keys(0, [step * batch + i for i in mine])})
    sent = count_bytes()
    called = nets["G"].networks() if "E" in nets["G"].net._modules else {"G": nets["G"]}
    train(
        task, {**called, "D": nets["D"]}, batches[first:], view=view, total=batch * (first + steps),
        images=batch * first, batch=batch,
        micro=micro, rate=lambda images: 1 - images / 1000,
    )  # fmt: skip
    sent = sum(sent) / steps / sum(p.numel() for e in nets.values() for p in e.net.parameters() if p.requires_grad)
    weights = {f"{k}.{n}": p.detach().contiguous() for k, e in nets.items() for n, p in e.net.named_parameters()}
    return weights, {name: {k: t.clone() for k, t in e.state().items()} for name, e in nets.items()}, sent


def count_bytes():
    """Note the size of everything that is summed over ranks from here on, whoever asks for it; what is less than the
    gradient of a layer, such as the number of a norm, is left out."""
    sizes = []

    def counted(original):
        def reduce(tensor, *args, **kwargs):
            if tensor.numel() > 64:
                sizes.append(tensor.nbytes)
            return original(tensor, *args, **kwargs)

        return reduce

    td.all_reduce, td.reduce = counted(td.all_reduce), counted(td.reduce)
    return sizes


def digest(weights):
    return hashlib.sha256(b"".join(weights[name].numpy().tobytes() for name in sorted(weights))).hexdigest()


def make_engine(name):
    if name == "ddp":
        return lambda net, **settings: Counted(net, **settings)
    stage, offload = int(name[4]), name.endswith("offloaded")
    return lambda net, **settings: ZeRO(net, stage=stage, offload=offload, **settings)


class Counted(Engine):
    """An engine whose DDP reduces through `td.all_reduce`, where it is counted, as its built-in reduction does."""

    def __init__(self, net, **settings):
        super().__init__(net, **settings)
        if self.ddp is not None:
            self.ddp.register_comm_hook(None, lambda _, bucket: reduce_mean(bucket.buffer()))


def reduce_mean(buffer):
    work = td.all_reduce(buffer.div_(td.get_world_size()), async_op=True)
    return work.get_future().then(lambda future: future.value()[0])


def play_one(engine, case):
    return play(make_engine(engine), **case)


def play_all(engines, cases):
    played = {(e, c): play_one(e, case) for c, case in cases.items() for e in engines}
    return played | {(e, IN_PART): play_in_part(make_engine(e)) for e in engines if e in (*ENGINES, "exact")}


IN_PART = "a turn of one of two networks"


def play_in_part(make, **settings):
    """Two networks with one optimiser, and turns whose losses reach one of them alone; returns their weights."""
    torch.manual_seed(0)
    engine = make(nn.ModuleDict({name: nn.Linear(2, 1) for name in "GH"}), lr=0.1, parts=[("G.",), ("H.",)], **settings)
    nets, whole = engine.networks(), torch.rand(4, 2)
    x = whole[list(rank_slice(0, 4, dist.rank(), dist.world()))]
    for _ in range(3):
        for name, goal in (("G", 5.0), ("H", -5.0)):
            engine.backward((nets[name](x) - goal).square().mean() * len(x) / 4)
            engine.step()
    return {name: weight.detach().clone() for name, weight in engine.net.named_parameters()}


ENGINES = ["ddp", "zero0", "zero1", "zero2", "zero1 offloaded", "zero2 offloaded"]
CASES = {
    f"{task}{how}": {"task": task, **settings}
    for task in GAMES
    for how, settings in {
        "": {},
        " channels last": {"channels_last": True},
        " in bf16": {"channels_last": task == "pix2pix", "precision": "bf16"},
        " in micro-batches": {"micro": 1, "norm": "instance"},
    }.items()
    if task != ALONE or not how
}


HALF = "half of "


@pytest.fixture(scope="module")
def on_two_ranks(tmp_path_factory):
    cases = CASES | {HALF + task: {"task": task, "steps": STEPS // 2} for task in GAMES}
    return run_ranks(2, play_all, ENGINES, cases, folder=tmp_path_factory.mktemp("engines"))


@needs_deepspeed
@pytest.mark.parametrize("engine", ENGINES)
def test_a_turn_may_leave_out_networks_that_share_its_optimiser(engine, on_two_ranks):
    """They have the gradient 0 in it, on every rank and in every engine alike."""
    expected = play_in_part(Engine)
    for rank in on_two_ranks:
        for name, weight in rank[engine, IN_PART].items():
            assert torch.allclose(weight, expected[name], atol=1e-6), name
    exact = play_in_part(Engine, reduction="exact")
    assert all(torch.allclose(weight, expected[name], atol=1e-5) for name, weight in exact.items())


@needs_deepspeed
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("engine", ENGINES)
def test_engines_agree_and_reduce_each_gradient_once(engine, case, on_two_ranks):
    expected, ours = on_two_ranks[0]["ddp", case], on_two_ranks[0][engine, case]
    for name, weight in expected[0].items():
        # DeepSpeed's weights are contiguous, for which some convolutions on a CPU round otherwise.
        if "micro" in case or ("hd" in case and "last" in case):
            torch.testing.assert_close(ours[0][name], weight, rtol=0, atol=1e-6, msg=name)
        else:
            assert torch.equal(ours[0][name], weight), name
        assert torch.equal(on_two_ranks[1][engine, case][0][name], ours[0][name])
    assert ours[2] == pytest.approx(4, rel=0.01)  # bytes of a float32, once a step; ZeRO rounds buffers up


def test_every_task_is_played():
    assert set(TASKS) < set(GAMES)


@needs_deepspeed
@pytest.mark.parametrize("task", GAMES)
def test_a_state_is_whole_and_the_same_from_every_engine(task, on_two_ranks):
    expected = on_two_ranks[0]["ddp", task][1]
    for engine in ENGINES:
        for rank in on_two_ranks:
            for name, state in rank[engine, task][1].items():
                assert state.keys() == expected[name].keys()
                assert all(torch.equal(t, expected[name][key]) for key, t in state.items()), engine


@needs_deepspeed
@pytest.mark.parametrize("task", GAMES)
@pytest.mark.parametrize(
    ("before", "after", "world"),
    [
        ("ddp", "zero2", 1),
        ("ddp", "zero1", 2),
        ("zero1", "ddp", 3),
        ("zero2", "ddp", 2),
        ("zero2", "zero1 offloaded", 3),
    ],
)
def test_any_engine_goes_on_from_any_other_on_any_number_of_ranks(before, after, world, task, on_two_ranks, tmp_path):
    """4 steps on 2 ranks, then 4 on some number in another engine, against 8 steps."""
    half = on_two_ranks[0][before, HALF + task][1]
    rest = {"task": task, "steps": 4, "first": 4, "load": half}
    weights, _, _ = run_ranks(world, play_one, after, rest, folder=tmp_path)[0]
    for name, weight in on_two_ranks[0]["ddp", task][0].items():
        tolerance = 0 if world == 2 else 2e-4  # Adam magnifies the rounding of near-zero gradients
        torch.testing.assert_close(weights[name], weight, rtol=0, atol=tolerance, msg=name)


EXACT = {"batch": 12, "micro": 2, "unit": 2, "steps": 15}


def play_exactly(case):
    return play(lambda net, **settings: Engine(net, reduction="exact", **settings), **case)


@pytest.mark.parametrize(("task", "worlds"), [("pix2pix", (1, 2, 3, 4, 5)), ("pix2pixhd", (1, 2, 5)), (ALONE, (1, 2))])
def test_exact_gives_the_same_bits_on_any_number_of_ranks(task, worlds, tmp_path):
    case = EXACT | {"task": task}
    runs = {world: run_ranks(world, play_exactly, case, folder=tmp_path) for world in worlds}
    digests = {world: {digest(weights) for weights, _, _ in ranks} for world, ranks in runs.items()}
    assert all(found == digests[1] and len(found) == 1 for found in digests.values()), digests
    assert runs[2][0][2] == pytest.approx(8, rel=0.01)  # one reduction of int64


@pytest.mark.parametrize("task", GAMES)
def test_exact_is_what_it_should_be_to_rounding(task, tmp_path):
    """Against the usual sums in float32, where they round otherwise."""
    case = EXACT | {"task": task, "steps": 4}
    (exact, _, _), *_ = run_ranks(2, play_exactly, case, folder=tmp_path)
    usual, _, _ = play(Engine, **case)
    assert any(not torch.equal(usual[name], weight) for name, weight in exact.items())
    for name, weight in exact.items():
        torch.testing.assert_close(weight, usual[name], rtol=0, atol=2e-4, msg=name)


def test_what_the_grid_cannot_hold_becomes_nan_everywhere():
    for value in (float("nan"), float("inf"), 5000.0):
        engine = Engine(PatchGAN(3, field=1, width=2), reduction="exact")
        first, *others = engine.parameters.values()
        engine.backward((first * value).sum())
        engine.backward(sum(p.sum() for p in others))
        engine.step()
        assert all(p.isnan().all() for p in engine.parameters.values()), value


@pytest.mark.parametrize("threads", [1, 2])
def test_an_update_does_not_depend_on_how_the_weights_are_cut(threads):
    """Odd cuts, 30 steps: PyTorch's own fused Adam differs in some of the last weights of a tensor."""

    def weights(cuts, steps=30):
        numbers = torch.Generator().manual_seed(0)
        parts = [torch.nn.Parameter(p.clone()) for p in torch.randn(100_003, generator=numbers).split(cuts)]
        optimizer = Adam(parts, 2e-4, (0.5, 0.999))
        for _ in range(steps):
            for p, grad in zip(parts, torch.randn(100_003, generator=numbers).split(cuts), strict=True):
                p.grad = grad.clone()
            optimizer.step()
        return torch.cat([p.detach() for p in parts])

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole = weights(100_003)
        for cut in (17, 1_000, 50_001):
            assert torch.equal(whole, weights(cut))
    finally:
        torch.set_num_threads(before)


@needs_deepspeed
def test_the_command_trains_with_deepspeed_and_goes_on_without(config_file, tmp_path):
    """torchrun with stage 2, DeepSpeed's own launcher with stage 1, then one process of ours; one generator file."""
    here = Path(sys.executable).parent
    arguments = ["--config", str(config_file), "--run", str(tmp_path), "--set", "schedule.decay=0"]
    zero = ["--set", "engine.name=deepspeed", "--set"]
    steps = [
        [
            str(here / "torchrun"),
            "--standalone",
            "--nproc-per-node=2",
            "-m",
            "--",
            "launch.train",
            *zero,
            "engine.zero_stage=2",
        ],
        [str(here / "deepspeed"), "--num_gpus=2", "--module", "launch.train", *zero, "engine.zero_stage=1"],
        [sys.executable, "-m", "launch.train", *zero, "engine.zero_stage=1"],
        [sys.executable, "-m", "launch.train"],
    ]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{here}:{os.environ['PATH']}", "MASTER_PORT": str(free_port())}
    for epochs, step in enumerate(steps, 1):
        command = [*step, *arguments, "--set", f"schedule.epochs={epochs}"]
        done = subprocess.run(command, cwd=here.parents[1], capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
        assert checkpoint.newest(tmp_path).name == f"{24 * epochs:012d}"
        state = checkpoint.read_state(checkpoint.newest(tmp_path))
        assert (
            checkpoint.read_tensors(checkpoint.newest(tmp_path), "G", state)["adam/down.0.conv.weight/step"]
            == 6 * epochs
        )
        picture = torch.zeros(1, 3, 32, 32)
        assert p2p.load(tmp_path)(picture).shape == picture.shape
