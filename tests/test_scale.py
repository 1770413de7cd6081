"""The model behind `docs/scaling.md` behaves, its bytes are the real ones, and its tables are the page's."""

import pytest
import torch
import torch.distributed as td

from p2p.engine import Engine
from p2p.networks import LocalEnhancer, MultiScale, PatchGAN, ResNet, UNet
from tests.bench import scale, scale_cluster
from tests.bench import scale_model as model
from tests.ranks import run_ranks
from tests.test_engine import count_reductions
from tests.test_house import ROOT

NETS = {
    "U-Net 256": UNet,
    "PatchGAN 70": PatchGAN,
    "pix2pixHD global G": lambda: ResNet(36),
    "pix2pixHD local G": lambda: LocalEnhancer(36),
    "pix2pixHD D, 2 scales": lambda: MultiScale(39),
    "pix2pixHD D, 3 scales": lambda: MultiScale(39, scales=3),
}


def small():
    return {"G": UNet(size=16, width=8), "D": PatchGAN(field=16, width=8)}


def size(net):
    return 4 * sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", NETS)
def test_parameters_are_those_of_the_real_networks(name):
    with torch.device("meta"):
        assert size(NETS[name]()) == 4 * model.PARAMETERS[name]


def test_the_profile_holds_every_gradient_once():
    sizes = [sum(size for size, _ in model.PROFILE[net]) for net in "GD"]
    assert sizes == [4 * model.PARAMETERS[name] for name in ("U-Net 256", "PatchGAN 70")]


def backwards():
    """Bytes that DDP hands over to be reduced in one backward of each network."""
    nets = {name: Engine(net) for name, net in small().items()}
    calls = count_reductions(nets)
    nets["G"].backward(nets["G"](torch.zeros(1, 3, 16, 16), None).mean())
    nets["D"].backward(nets["D"](torch.zeros(1, 6, 32, 32))[0][-1].mean())
    return {name: sum(sizes) for name, sizes in calls.items()}


def test_two_ranks_reduce_and_send_the_gradients_bytes_exactly(tmp_path):
    real = {name: size(net) for name, net in small().items()}
    assert run_ranks(2, backwards, folder=tmp_path) == [real, real]
    assert {name: model.traffic(n, 2) for name, n in real.items()} == real


def zero(choices):
    """What DeepSpeed exchanges in a step with each choice of settings, as shares of the weights' bytes."""
    log = []

    def counted(name, plain):
        def call(*args, **kwargs):
            tensor = args[0] if args else kwargs.get("tensor", kwargs.get("output_tensor"))
            log.append((name, tensor.nbytes))
            return plain(*args, **kwargs)

        return call

    for name in ("all_reduce", "reduce", "all_gather_into_tensor", "reduce_scatter_tensor"):
        setattr(td, name, counted(name, getattr(td, name)))
    import deepspeed

    found = []
    for choice in choices:
        net = UNet(size=64, width=8)
        config = {"train_micro_batch_size_per_gpu": 1, "gradient_clipping": 0.0, "zero_allow_untested_optimizer": True}
        config["zero_optimization"] = choice
        adam = torch.optim.Adam(net.parameters())
        engine, *_ = deepspeed.initialize(model=net, optimizer=adam, config=config, dist_init_required=False)
        for _ in range(2):
            log.clear()
            engine.backward(engine(torch.zeros(1, 3, 64, 64), None).mean())
            engine.step()
        shares = {name: round(sum(n for other, n in log if other == name) / size(net), 2) for name in dict(log)}
        found.append({name: share for name, share in shares.items() if share})
    return found


def test_zero_reduces_as_ddp_does_and_gathers_the_weights_besides(tmp_path, monkeypatch):
    pytest.importorskip("deepspeed")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    plain = [{"stage": 1}, {"stage": 2}]
    owners = [stage | {"use_multi_rank_bucket_allreduce": False} for stage in plain]
    whole, parts = ({name: 1, "all_gather_into_tensor": 1} for name in ("all_reduce", "reduce"))
    expected = [whole, whole, parts, parts]
    assert run_ranks(2, zero, plain + owners, folder=tmp_path) == [expected, expected]


def test_one_rank_communicates_nothing():
    assert model.traffic(1e9, 1) == model.reduce_s(1e9, 1, model.ethernet(1)) == 0
    assert model.step_s(0.3, 1, model.ethernet(1)) == 0.3
    assert model.weak(4, 100, 1, model.ethernet(1)) == model.strong(4, 100, 1, model.ethernet(1)) == 1


@pytest.mark.parametrize("rate", model.LINKS)
def test_efficiency_is_never_above_one_and_falls_with_the_gpus(rate):
    link = model.ethernet(rate)
    for batch, speed in model.LOADS:
        for overlap in (False, True):
            found = [model.weak(batch, speed, w, link, overlap) for w in model.GPUS]
            assert found[0] == 1
            assert found == sorted(found, reverse=True)
            assert found[-1] > 0
        assert all(model.weak(batch, speed, w, link) >= model.weak(batch, speed, w, link, False) for w in model.GPUS)
    found = [model.strong(512, 500, w, link) for w in model.GPUS]
    assert found == sorted(found, reverse=True)


def test_what_is_hidden_is_what_fits_before_the_end_of_the_backward():
    def second(size):
        return size

    assert model.exposed_s([(1, 0.0)], second) == 1
    assert model.exposed_s([(1, 5.0), (1, 3.0)], second) == 0  # both are through before the end
    assert model.exposed_s([(4, 3.0), (1, 0.0)], second) == 2  # the first is late by one, the second waits for it
    assert model.exposed_s([(1, 9.0), (2, 1.0)], second) == 1  # nothing begins before it is ready


def test_the_fit_finds_what_made_the_points():
    points = [(a, b, a / 0.9 + b * 5e-5) for a, b in ((1e-7, 2), (0.1, 2), (1.5, 6), (0.02, 2))]
    assert model.fit(points) == pytest.approx((0.9, 5e-5))


def test_the_needed_rate_gives_the_efficiency_asked_for():
    rate = model.needed(0.9, 64, 1000, 64)
    assert model.weak(64, 1000, 64, model.ethernet(rate)) == pytest.approx(0.9)
    assert model.needed(0.9, 1, 1e6, 512) is None


def test_zero_divides_what_its_stage_says():
    assert [model.state_bytes(1, stage, 4) for stage in range(4)] == [16, 10, 7, 4]
    assert {model.state_bytes(1, stage) for stage in range(4)} == {16}


@pytest.mark.parametrize("name", model.tables(ROOT / "configs"))
def test_the_pages_tables_are_what_the_model_computes(name):
    assert model.tables(ROOT / "configs")[name] in (ROOT / "docs/scaling.md").read_text()


def test_without_root_the_measuring_is_refused_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["scale"])
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert scale.main() == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_cluster_is_removed_when_it_cannot_be_built(monkeypatch):
    commands = []

    def ip(command, check=True):
        commands.append(command)
        if "addr" in command:
            raise OSError("no")

    monkeypatch.setattr(scale_cluster, "ip", ip)
    with pytest.raises(OSError, match="no"), scale_cluster.built(scale_cluster.Cluster(2, 1)):
        pass
    made = [c.split()[-1] for c in commands if c.startswith("netns add")]
    after = commands[next(i for i, c in enumerate(commands) if "addr" in c) :]
    assert made
    assert all(f"netns del {name}" in after for name in made)
