"""The training step against a slow, literal transcription of the paper's update, in float64."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from p2p.engine import Engine
from p2p.loop import train
from p2p.networks import PatchGAN, UNet
from p2p.networks.norm import init_normal
from p2p.tasks import Pix2Pix

STEPS = 6


def literal_norm(h, state, prefix, norm):
    """Batch norm over the whole batch, or instance norm, written out from mean and variance."""
    axes = (0, 2, 3) if norm == "batch" else (2, 3)
    mean = h.mean(axes, keepdim=True)
    var = ((h - mean) ** 2).mean(axes, keepdim=True)
    h = (h - mean) / torch.sqrt(var + 1e-5)
    if norm == "batch":
        h = h * state[prefix + "weight"].view(1, -1, 1, 1) + state[prefix + "bias"].view(1, -1, 1, 1)
    return h


def literal_unet(state, x, depth, norm):
    """Appendix 6.1.1: encoder C, decoder C with skips, tanh; dropout off."""
    skips = []
    h = x
    for k in range(depth):
        if k > 0:
            h = torch.where(h > 0, h, 0.2 * h)
        h = F.conv2d(h, state[f"down.{k}.conv.weight"], None, 2, 1)
        if 0 < k < depth - 1:
            h = literal_norm(h, state, f"down.{k}.norm.", norm)
        skips.append(h)
    for k in range(depth):
        if k > 0:
            h = torch.cat([skips[depth - 1 - k], h], 1)
        h = torch.clamp(h, min=0)
        bias = state.get(f"up.{k}.conv.bias")
        h = F.conv_transpose2d(h, state[f"up.{k}.conv.weight"], bias, 2, 1)
        if k < depth - 1:
            h = literal_norm(h, state, f"up.{k}.norm.", norm)
    return (torch.exp(h) - torch.exp(-h)) / (torch.exp(h) + torch.exp(-h))


def literal_patchgan(state, xy, norm):
    """Appendix 6.1.2 with two strided convolutions (34 pixels): C64-C128-C256 and the map to one channel."""
    h = F.conv2d(xy, state["convs.0.weight"], state["convs.0.bias"], 2, 1)
    h = torch.where(h > 0, h, 0.2 * h)
    for k, stride in ((1, 2), (2, 1)):
        h = F.conv2d(h, state[f"convs.{k}.weight"], None, stride, 1)
        h = literal_norm(h, state, f"norms.{k}.", norm)
        h = torch.where(h > 0, h, 0.2 * h)
    return F.conv2d(h, state["last.weight"], state["last.bias"], 1, 1)


def literal_gan(logits, real, gan):
    """Cross-entropy against ones or zeros, or squared distance to them."""
    if gan == "lsgan":
        return ((logits - (1.0 if real else 0.0)) ** 2).mean()
    p = 1 / (1 + torch.exp(-logits))
    return -(torch.log(p) if real else torch.log(1 - p)).mean()


class LiteralAdam:
    """Kingma and Ba 2015, algorithm 1."""

    def __init__(self, params, lr=2e-4, beta1=0.5, beta2=0.999):
        self.params, self.lr, self.beta1, self.beta2, self.t = params, lr, beta1, beta2, 0
        self.m = {k: torch.zeros_like(p) for k, p in params.items()}
        self.v = {k: torch.zeros_like(p) for k, p in params.items()}

    def step(self, grads):
        self.t += 1
        for (name, p), g in zip(self.params.items(), grads, strict=True):
            self.m[name] = self.beta1 * self.m[name] + (1 - self.beta1) * g
            self.v[name] = self.beta2 * self.v[name] + (1 - self.beta2) * g * g
            m_hat = self.m[name] / (1 - self.beta1**self.t)
            v_hat = self.v[name] / (1 - self.beta2**self.t)
            p.data -= self.lr * m_hat / (torch.sqrt(v_hat) + 1e-8)


def literal_training(G, D, batches, depth, norm, gan):
    """D on real and fake, its loss halved, D's update; then G against the updated D with lambda 100, G's update."""
    opt_G, opt_D = LiteralAdam(G), LiteralAdam(D)
    history = []
    for x, y in batches:
        fake = literal_unet(G, x, depth, norm)
        d_fake = 0.5 * literal_gan(literal_patchgan(D, torch.cat([x, fake.detach()], 1), norm), False, gan)
        d_real = 0.5 * literal_gan(literal_patchgan(D, torch.cat([x, y], 1), norm), True, gan)
        opt_D.step(torch.autograd.grad(d_fake + d_real, list(D.values())))
        g_gan = literal_gan(literal_patchgan(D, torch.cat([x, fake], 1), norm), True, gan)
        g_l1 = 100 * (y - fake).abs().mean()
        opt_G.step(torch.autograd.grad(g_gan + g_l1, list(G.values())))
        step = {"D/fake": d_fake, "D/real": d_real, "G/gan": g_gan, "G/l1": g_l1}
        history.append({name: value.item() for name, value in step.items()})
    return history


def parameters(net):
    return {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}


@pytest.mark.parametrize(
    ("gan", "norm", "batch"), list(itertools.product(["vanilla", "lsgan"], ["batch", "instance"], [1, 2]))
)
def test_six_steps_agree_with_the_paper_written_out(gan, norm, batch):
    torch.manual_seed(5)
    generator = torch.Generator().manual_seed(1)
    G = UNet(3, 3, size=16, width=8, dropout="none", norm=norm, group=batch).double()
    D = PatchGAN(6, field=34, width=8, norm=norm, group=batch).double()
    for net in (G, D):
        init_normal(net, generator)
    batches = [tuple(torch.rand(batch, 3, 32, 32, dtype=torch.float64) * 2 - 1 for _ in "xy") for _ in range(STEPS)]
    expected = literal_training(parameters(G), parameters(D), batches, depth=4, norm=norm, gan=gan)

    seen = []
    nets = {"G": Engine(G), "D": Engine(D)}
    train(
        Pix2Pix(gan=gan),
        nets,
        [{"x": x, "y": y, "z": None} for x, y in batches],
        total=STEPS * batch,
        log=lambda images, figures: seen.append(figures),
        log_every=1,
    )
    assert len(seen) == STEPS
    for ours, theirs in zip(seen, expected, strict=True):
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name
