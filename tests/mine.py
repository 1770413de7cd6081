"""A script as a user would write it, outside of p2p: a generator, a view, a metric and a task of its own.

`tests/test_extending.py` runs it, and `docs/extending.md` shows its parts.
"""

import sys
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import nn

import p2p
from launch import train, translate
from p2p import dist
from p2p.losses import GANS
from p2p.noise import uniform


class Small(nn.Module):
    """A generator of three convolutions."""

    size = 2

    def __init__(self, c_in: int, c_out: int, *, width: int = 8) -> None:
        super().__init__()
        self.down = nn.Conv2d(c_in, width, 4, 2, 1)
        self.same = nn.Conv2d(width, width, 3, 1, 1)
        self.up = nn.ConvTranspose2d(width, c_out, 4, 2, 1)

    def forward(self, x, z):
        return torch.tanh(self.up(F.relu(self.same(F.relu(self.down(x))))))


p2p.NETWORKS["G"]["small"] = Small


@dataclass(frozen=True, kw_only=True)
class Chroma(p2p.View):
    """x is the luma of a picture, 1 channel, y the two chroma channels of another."""

    backwards: bool = False

    def channels(self, x, y):
        return (2, 1) if self.backwards else (1, 2)

    def encode(self, batch):
        parts = {name: ycc(v) if v.dtype == torch.uint8 else v for name, v in batch.items() if name in "xy"}
        of_x, of_y = (slice(1, 3), slice(0, 1)) if self.backwards else (slice(0, 1), slice(1, 3))
        return {**batch, **{name: part[:, of_x if name == "x" else of_y] for name, part in parts.items()}}

    def decode(self, y, x):
        if self.backwards:
            return y.clamp(-1, 1)
        luma, (blue, red) = x[:, 0], y.unbind(1)
        green = luma - 0.344 * blue - 0.714 * red
        return torch.stack([luma + 1.402 * red, green, luma + 1.772 * blue], 1).clamp(-1, 1)

    def target(self, batch):
        return ycc(batch["y"])[:, :1] if self.backwards else super().target(batch)

    def reversed(self):
        return replace(self, backwards=True)


def ycc(pixels):
    """uint8 RGB `[N,3,H,W]` -> luma and chroma in [-1, 1], `[N,3,H,W]`."""
    red, green, blue = (pixels.float() / 127.5 - 1).unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return torch.stack([luma, (blue - luma) / 1.772, (red - luma) / 1.402], 1)


p2p.VIEWS["chroma"] = Chroma


def psnr(fake, real):
    return -10 * (fake - real).square().double().flatten(1).mean(1).div(4).clamp(min=1e-10).log10()


p2p.METRICS["PSNR"] = p2p.Metric(psnr, better="higher")


@dataclass(kw_only=True)
class Cycle(p2p.Task):
    """Two generators, G: x -> y and H: y -> x, that undo each other; D judges the y of G, new and remembered."""

    cycle: float = 10.0
    remembered: int = 6
    pool: torch.Tensor | None = field(default=None, init=False)
    offered: list = field(default_factory=list, init=False)
    answers: dict = field(default_factory=dict, init=False)

    def networks(self, x, y):
        return {
            "G": p2p.NetworkRole("G", x, y),
            "H": p2p.NetworkRole("G", y, x),
            "D": p2p.NetworkRole("D", y, 1),
        }

    def shared(self):
        return [("G", "H")]

    def generators(self):
        return {"G": p2p.KeptGenerator("G"), "H": p2p.KeptGenerator("H", reverse=True)}

    def turns(self, batch, nets):
        x, y, z = batch["x"], batch["y"], batch["z"]
        fake = nets["G"](x, z)
        logits = nets["D"].frozen(fake)[0][-1]
        losses = {
            "G/gan": GANS["lsgan"].fool(logits),
            "G/cycle": self.cycle * (F.l1_loss(nets["H"](fake, z), x) + F.l1_loss(nets["G"](nets["H"](y, z), z), y)),
        }
        self.offered.append((z, fake.detach()))
        yield nets["G"], losses, {}
        old = self.drawn(z)  # every micro-batch has offered its fakes by now
        on_real, on_fake = nets["D"](y)[0][-1], nets["D"](old)[0][-1]
        yield nets["D"], {"D/real": GANS["lsgan"].real(on_real), "D/fake": GANS["lsgan"].fake(on_fake)}, {}

    def drawn(self, z):
        """For each fake it, or a remembered one. All ranks' fakes are taken in, in the order of their positions, and
        what is drawn follows from the keys: so neither ranks nor micro-batches change anything."""
        if self.offered:
            keys, fakes = (dist.all_rows(torch.cat(part)) for part in zip(*self.offered, strict=True))
            self.offered.clear()
            self.answers = {int(key): self.exchanged(key, fake[None]) for key, fake in zip(keys, fakes, strict=True)}
        return torch.cat([self.answers[int(key)] for key in z])

    def exchanged(self, key, fake):
        if self.pool is None or len(self.pool) < self.remembered:
            self.pool = fake if self.pool is None else torch.cat([self.pool, fake])
            return fake
        kept, place = uniform(key[None], 101, (2,))[0].tolist()
        if kept < 0.5:
            return fake
        old = self.pool[int(place * self.remembered)].clone()[None]
        self.pool[int(place * self.remembered)] = fake[0]
        return old

    def state(self):
        return {} if self.pool is None else {"pool": self.pool}

    def load(self, state):
        pool = state.get("pool")
        if pool is not None and len(pool) > self.remembered:
            raise ValueError(f"task.remembered: {self.remembered} pictures, and there are {len(pool)}")
        self.pool = pool


p2p.TASKS["cycle"] = Cycle


if __name__ == "__main__":
    command, *argv = sys.argv[1:]
    train.leave(train.main(argv) if command == "train" else translate.main(argv))
