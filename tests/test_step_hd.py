"""pix2pixHD's training step against a slow, literal transcription of the authors' update, in float64.

Convolutions before an instance norm have biases here, as in the original. They change no output, so their gradients
are rounding noise; in float64 that is 1e-15 against Adam's epsilon of 1e-8, and their steps agree, too.
"""

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from p2p.data.views import View
from p2p.engine import Engine
from p2p.forward import Forward
from p2p.loop import train
from p2p.networks import Encoder, LocalEnhancer, MultiScale, ResNet
from p2p.networks.network import part_alone, parts
from p2p.networks.vgg import VGG
from p2p.stages import grown
from p2p.tasks import Pix2PixHD
from tests.test_step import LiteralAdam, parameters

STEPS, BATCH, SIDE, CLASSES, FEATURES = 3, 2, 32, 5, 3
DOWNS, BLOCKS, LOCAL_BLOCKS, SCALES, D_LAYERS = 2, 2, 1, 2, 2
LAMBDA = 10.0
VGG_CONVS = ((0,), (2, 5), (7, 10), (12, 14, 16, 19), (21, 23, 25, 28))
"""torchvision's numbers of the convolutions up to relu1_1, from there to relu2_1, ..., relu5_1."""
VGG_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1)


# What the networks consist of


def relu(h, slope=0.0):
    return torch.where(h > 0, h, slope * h)


def norm(h):
    mean = h.mean((2, 3), keepdim=True)
    var = ((h - mean) ** 2).mean((2, 3), keepdim=True)
    return (h - mean) / torch.sqrt(var + 1e-5)


def reflected(h, by):
    """Row -1 is row 1, row H is row H - 2; columns likewise."""
    rows, columns = ([n - 1 - abs(n - 1 - abs(i)) for i in range(-by, n + by)] for n in h.shape[2:])
    return h[:, :, rows][:, :, :, columns]


def conv(w, name, h, stride=1, padding=0):
    return F.conv2d(h, w[f"{name}.weight"], w[f"{name}.bias"], stride, padding)


def up(w, name, h):
    return F.conv_transpose2d(h, w[f"{name}.weight"], w[f"{name}.bias"], 2, 1, output_padding=1)


def halved(h):
    """The mean of those of 3x3 pixels that exist, around every other pixel."""
    ones = torch.ones(h.shape[1], 1, 3, 3, dtype=h.dtype)
    total, count = (F.conv2d(v, ones, None, 2, 1, groups=h.shape[1]) for v in (h, torch.ones_like(h)))
    return total / count


def block(w, name, h):
    inner = relu(norm(conv(w, f"{name}.convs.0.conv", reflected(h, 1))))
    return h + norm(conv(w, f"{name}.convs.1.conv", reflected(inner, 1)))


# The networks


def global_net(w, name, x, downs, blocks):
    """c7s1, downs, residual blocks, ups: all but the last convolution."""
    h = relu(norm(conv(w, f"{name}0.conv", reflected(x, 3))))
    for k in range(1, 1 + downs):
        h = relu(norm(conv(w, f"{name}{k}.conv", h, 2, 1)))
    for k in range(1 + downs, 1 + downs + blocks):
        h = block(w, f"{name}{k}", h)
    for k in range(1 + downs + blocks, 1 + 2 * downs + blocks):
        h = relu(norm(up(w, f"{name}{k}.conv", h)))
    return h


def last(w, name, h):
    h = conv(w, f"{name}head.conv", reflected(h, 3))
    return (torch.exp(h) - torch.exp(-h)) / (torch.exp(h) + torch.exp(-h))


def alone_net(w, batch):
    return last(w, "", global_net(w, "trunk.", batch["x"], DOWNS, BLOCKS))


def local_net(w, batch):
    """Two enhancers: at half the size, which adds to the global net at a quarter, and at full size."""
    full = batch["x"]
    half = halved(full)
    h = global_net(w, "trunk.", halved(half), DOWNS, BLOCKS)
    for n, x in enumerate((half, full)):
        own = relu(norm(conv(w, f"enhancers.{n}.down.0.conv", reflected(x, 3))))
        h = h + relu(norm(conv(w, f"enhancers.{n}.down.1.conv", own, 2, 1)))
        for k in range(LOCAL_BLOCKS):
            h = block(w, f"enhancers.{n}.blocks.{k}", h)
        h = relu(norm(up(w, f"enhancers.{n}.up.conv", h)))
    return last(w, "", h)


def told_net(w, batch):
    """The encoder sees the photograph; each instance gets the mean of its pixels, channel by channel."""
    maps = last(w, "E.", global_net(w, "E.trunk.", batch["y"], DOWNS, 0))
    features = torch.zeros_like(maps)
    for n, instances in enumerate(batch["instances"]):
        for instance in instances.unique():
            pixels = instances[0] == instance
            for c in range(FEATURES):
                features[n, c][pixels] = maps[n, c][pixels].mean()
    x = torch.cat([batch["x"], features], 1)
    return last(w, "G.", global_net(w, "G.trunk.", x, DOWNS, BLOCKS))


def judged(w, xy):
    """All feature maps of each scale, the full size first; `scales.0` is the coarsest."""
    found = []
    for scale in reversed(range(SCALES)):
        h, maps = xy, []
        for k in range(D_LAYERS + 1):
            h = conv(w, f"scales.{scale}.convs.{k}", h, stride=2 if k < D_LAYERS else 1, padding=2)
            h = relu(norm(h) if k else h, 0.2)
            maps.append(h)
        found.append([*maps, conv(w, f"scales.{scale}.last", h, 1, 2)])
        xy = halved(xy)
    return found


def vgg_maps(w, h):
    """Nothing is normalised: VGG sees [-1, 1]."""
    found = []
    for convs in VGG_CONVS:
        for k in convs:
            if k and k == convs[-1]:  # the first of the next block
                h = F.max_pool2d(h, 2)
            h = relu(conv(w, f"features.{k}", h, padding=1))
        found.append(h)
    return found


# What they see, and the step


def literal_x(labels, instances):
    """A plane for each class, and one that is 1 on both sides of every boundary."""
    x = torch.zeros(len(labels), CLASSES + 1, SIDE, SIDE, dtype=torch.float64)
    for n, (label, instance) in enumerate(zip(labels[:, 0].tolist(), instances[:, 0].tolist(), strict=True)):
        for i in range(SIDE):
            for j in range(SIDE):
                x[n, label[i][j], i, j] = 1
                around = [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
                others = {instance[a][b] for a, b in around if 0 <= a < SIDE and 0 <= b < SIDE}
                x[n, CLASSES, i, j] = float(others != {instance[i][j]})
    return x


def literal_losses(net, G, D, vgg, batch):
    """One forward: all losses of the fake and of the D that are before any update."""
    x, y, fake = batch["x"], batch["y"], net(G, batch)
    on_fake, on_real = judged(D, torch.cat([x, fake.detach()], 1)), judged(D, torch.cat([x, y], 1))
    on_ours = judged(D, torch.cat([x, fake], 1))
    matching = 0.0
    for i in range(SCALES):
        for j in range(D_LAYERS + 1):  # all but the last
            weight = (1 / SCALES) * (4 / (D_LAYERS + 1))
            matching = matching + weight * (on_ours[i][j] - on_real[i][j].detach()).abs().mean() * LAMBDA
    seen = zip(VGG_WEIGHTS, vgg_maps(vgg, fake), vgg_maps(vgg, y), strict=True)
    return {
        "G/gan": sum(((maps[-1] - 1) ** 2).mean() for maps in on_ours),
        "G/matching": matching,
        "G/perceptual": sum(weight * (a - b).abs().mean() for weight, a, b in seen) * LAMBDA,
        "D/fake": 0.5 * sum((maps[-1] ** 2).mean() for maps in on_fake),
        "D/real": 0.5 * sum(((maps[-1] - 1) ** 2).mean() for maps in on_real),
    }


def literal_training(net, G, D, vgg, batches, adams_of_G, adam_of_D):
    """G's optimiser steps, then D's."""
    history = []
    for batch in batches:
        batch = batch | {"x": literal_x(batch["x"], batch["instances"])}
        losses = literal_losses(net, G, D, vgg, batch)
        for_G, for_D = (sum(v for name, v in losses.items() if name.startswith(who)) for who in ("G/", "D/"))
        learning = [p for adam in adams_of_G for p in adam.params.values()]
        gradients = iter(torch.autograd.grad(for_G, learning, retain_graph=True))
        gradients_of_D = torch.autograd.grad(for_D, list(D.values()))
        for adam in adams_of_G:
            adam.step([next(gradients) for _ in adam.params])
        adam_of_D.step(gradients_of_D)
        history.append({name: value.item() for name, value in losses.items()})
    return history


# Ours


class Players(NamedTuple):
    """Networks in float64, and their weights once more for the transcription."""

    G: torch.nn.Module
    D: torch.nn.Module
    vgg: torch.nn.Module
    weights: dict[str, torch.Tensor]
    d_weights: dict[str, torch.Tensor]
    vgg_weights: dict[str, torch.Tensor]


def players(G):
    D = MultiScale(CLASSES + 1 + 3, scales=SCALES, field=34, width=4).double()
    vgg = VGG("vgg19", input="raw").double()
    return Players(G.double(), D, vgg, parameters(G), parameters(D), dict(vgg.named_parameters()))


def make_batches(count):
    """Labels and instances in lumps, as in pictures; not all pictures have all of them."""
    found = []
    for k in range(count):
        lumps = [torch.randint(0, high, (BATCH, 1, SIDE // 4, SIDE // 4)) for high in (CLASSES, 4 + k)]
        labels, instances = (lump.repeat_interleave(4, 2).repeat_interleave(4, 3) for lump in lumps)
        y = torch.rand(BATCH, 3, SIDE, SIDE, dtype=torch.float64) * 2 - 1
        found.append({"x": labels.to(torch.uint8), "instances": (1000 * instances).to(torch.int32), "y": y})
    return found


class Double(View):
    """Planes in float64."""

    def encode(self, batch):
        found = super().encode(batch)
        return found | {"x": found["x"].double()}


def play(nets, vgg, batches, images=0, **settings):
    """The losses of each step of ours."""
    history = []
    train(
        Pix2PixHD(**settings),
        {**nets, "VGG": Forward(vgg)},
        batches,
        total=images + len(batches) * BATCH,
        images=images,
        view=Double(CLASSES, boundaries=True),
        log=lambda _, figures: history.append(figures),
        log_every=1,
    )
    return history


def agree(ours, theirs):
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        losses = {name for name in one if name.startswith(("G/", "D/"))} - {"G/gradient", "D/gradient"}
        assert losses == set(other)
        for name, value in other.items():
            assert one[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name


def same_weights(net, expected):
    for name, own in net.named_parameters():
        assert torch.allclose(own, expected[name], rtol=1e-9, atol=1e-9), name


@pytest.mark.parametrize("features", [0, FEATURES])
def test_steps_of_a_global_net_agree_with_the_original_written_out(features):
    """With features, the encoder learns with G's optimiser; D never sees what it says."""
    torch.manual_seed(5)
    G = ResNet(CLASSES + 1 + features, 3, width=4, downs=DOWNS, blocks=BLOCKS)
    E = Encoder(3, features, width=4, downs=DOWNS) if features else None
    p = players(nn.ModuleDict({"G": G, "E": E}) if features else G)
    batches = make_batches(STEPS)
    adams = [LiteralAdam(p.weights)], LiteralAdam(p.d_weights)
    net = told_net if features else alone_net
    theirs = literal_training(net, p.weights, p.d_weights, p.vgg_weights, batches, *adams)

    before = [w.clone() for w in p.G.parameters()]
    engine = Engine(p.G, parts=parts(p.G))
    nets = engine.networks() if features else {"G": engine}
    ours = play({**nets, "D": Engine(p.D)}, p.vgg, batches, features=features)
    agree(ours, theirs)
    same_weights(p.G, p.weights)
    same_weights(p.D, p.d_weights)
    assert not any(torch.equal(a, b) for a, b in zip(before, p.G.parameters(), strict=True))


def test_steps_of_an_enhancer_alone_and_then_with_the_others_agree_with_the_original_written_out():
    """Alone, only the newest enhancer and the last convolution learn. Together, Adam goes on for these, and begins
    for the rest: the authors' code begins anew for all of them, which is no part of the method."""

    def make(seed):
        torch.manual_seed(seed)
        return LocalEnhancer(
            CLASSES + 1, 3, width=4, enhancers=2, local_blocks=LOCAL_BLOCKS, downs=DOWNS, blocks=BLOCKS
        )

    p = players(make(5))
    fixed = {name: w.clone() for name, w in p.weights.items() if not name.startswith(("enhancers.1.", "head."))}
    assert {name.split(".")[0] for name in fixed} == {"trunk", "enhancers"}
    first, then = make_batches(STEPS), make_batches(STEPS)
    newest = LiteralAdam({name: w for name, w in p.weights.items() if name not in fixed})
    rest, of_D = LiteralAdam({name: p.weights[name] for name in fixed}), LiteralAdam(p.d_weights)
    given = p.weights, p.d_weights, p.vgg_weights

    theirs = literal_training(local_net, *given, first, [newest], of_D)
    for name, weight in p.G.named_parameters():
        weight.requires_grad_(name.startswith(part_alone(p.G)))
    nets = {"G": Engine(p.G, parts=parts(p.G)), "D": Engine(p.D, parts=parts(p.D))}
    agree(play(nets, p.vgg, first), theirs)
    same_weights(p.G, p.weights)
    same_weights(p.D, p.d_weights)
    for name, weight in fixed.items():
        assert torch.equal(p.G.get_parameter(name), weight), name

    theirs = literal_training(local_net, *given, then, [newest, rest], of_D)
    G = make(6).double()
    whole = Engine(G, parts=parts(G))
    whole.load(grown(G, whole.state(), nets["G"].state()))
    agree(play({"G": whole, "D": nets["D"]}, p.vgg, then, images=STEPS * BATCH), theirs)
    same_weights(G, p.weights)
    same_weights(p.D, p.d_weights)
    for name, weight in fixed.items():
        assert not torch.equal(G.get_parameter(name), weight), name
