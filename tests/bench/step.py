"""The training step at 256 pixels, batch 4, against a plain one: `python -m tests.bench.step`.

The plain step is fp32 and eager and does what the known PyTorch port does: torch's batch norm and dropout, NCHW,
two D passes on pictures, one in G's turn with D frozen, foreach Adam.
"""

import argparse

import torch
import torch.nn.functional as F
from torch import nn

from p2p.engine import Engine
from p2p.loop import train
from p2p.networks import PatchGAN, UNet
from p2p.networks.norm import GroupedBatchNorm
from p2p.noise import Dropout
from p2p.tasks import Pix2Pix
from tests.bench import alternate, machine, median

BATCH, SIDE = 4, 256


class PlainDropout(nn.Dropout):
    def forward(self, x, z):
        return super().forward(x)


def plain(net: nn.Module) -> nn.Module:
    """The same network of torch's own layers."""
    for name, child in net.named_children():
        if isinstance(child, GroupedBatchNorm):
            setattr(net, name, nn.BatchNorm2d(len(child.running_mean)))
        elif isinstance(child, Dropout):
            setattr(net, name, PlainDropout(0.5))
        else:
            plain(child)
    return net


def plain_step(device):
    G, D = plain(UNet(dropout="port")).to(device), plain(PatchGAN()).to(device)
    opt_G, opt_D = (torch.optim.Adam(n.parameters(), 2e-4, (0.5, 0.999), foreach=True) for n in (G, D))
    bce = F.binary_cross_entropy_with_logits
    x, y = (torch.rand(BATCH, 3, SIDE, SIDE, device=device) * 2 - 1 for _ in "xy")

    def step():
        fake = G(x)
        D.requires_grad_(True)
        opt_D.zero_grad()
        on_fake = D(torch.cat([x, fake], 1).detach())[0][-1]
        on_real = D(torch.cat([x, y], 1))[0][-1]
        (0.5 * (bce(on_fake, torch.zeros_like(on_fake)) + bce(on_real, torch.ones_like(on_real)))).backward()
        opt_D.step()
        D.requires_grad_(False)
        opt_G.zero_grad()
        judged = D(torch.cat([x, fake], 1))[0][-1]
        (bce(judged, torch.ones_like(judged)) + 100 * F.l1_loss(fake, y)).backward()
        opt_G.step()
        return judged.detach().mean().item()

    return step


def our_step(device, compiled):
    kinds = {"precision": "bf16", "channels_last": True, "compile": compiled, "device": device}
    nets = {"G": Engine(UNet(group=BATCH), **kinds), "D": Engine(PatchGAN(group=BATCH), **kinds)}
    pixels = torch.randint(0, 256, (2, BATCH, 3, SIDE, SIDE), dtype=torch.uint8)
    batch = {"x": pixels[0], "y": pixels[1]}
    return lambda: train(Pix2Pix(), nets, [batch], total=BATCH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    runs = {"plain fp32": plain_step(device), "p2p bf16": our_step(device, compiled=False)}
    if args.compile:
        runs["p2p bf16 compiled"] = our_step(device, compiled=True)
    print(f"training step, {SIDE} pixels, batch {BATCH}, U-Net 256 and PatchGAN 70, on {machine()}")
    seconds = alternate(runs, args.rounds)
    for name, values in seconds.items():
        ratios = [a / b for a, b in zip(seconds["plain fp32"], values, strict=True)]
        print(f"{name:20} {BATCH / median(values):6.2f} images/s   {median(ratios):.2f} times plain")


if __name__ == "__main__":
    main()
