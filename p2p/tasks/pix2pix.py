"""pix2pix: image translation with a conditional GAN and L1 (Isola et al. 2017)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from p2p.losses import GANS, GANName, gradient_penalty

Turn = tuple[Any, dict[str, Tensor], dict[str, Tensor]]
"""Who plays, its losses (their sum is minimised), and figures that are only logged."""


@dataclass(frozen=True, kw_only=True)
class Pix2Pix:
    """G* = arg min_G max_D L_cGAN(G, D) + lambda L_L1(G) (equation 4).

    The paper's variants: L1 `gan_weight: 0`; cGAN `l1: 0`; GAN `l1: 0, conditional: false`; L1+GAN
    `conditional: false`; L1+cGAN the defaults.

    Raises:
        ValueError: nothing is left to minimise, or a weight is negative.
    """

    l1: float = 100.0
    """Lambda, weight of the mean |y - G(x, z)|; 0 leaves it out."""
    gan_weight: float = 1.0
    """Weight of the GAN term in G's objective; 0 leaves it and D out."""
    gan: GANName = "vanilla"
    conditional: bool = True
    """D sees x beside y."""
    penalty: float = 10.0
    """Weight of the gradient penalty, for `wgan` only."""

    def __post_init__(self) -> None:
        if min(self.l1, self.gan_weight, self.penalty) < 0:
            raise ValueError("task: l1, gan_weight and penalty are weights and cannot be negative")
        if not self.l1 and not self.gan_weight:
            raise ValueError("task: l1 and gan_weight are both 0; nothing is left to minimise")

    def channels(self, x: int, y: int) -> dict[str, tuple[int, ...]]:
        """Channels of the networks that the task needs, for pictures of `x` and `y` channels."""
        G, D = (x, y), (x * self.conditional + y,)
        return {"G": G, "D": D} if self.gan_weight else {"G": G}

    def turns(self, batch: Mapping[str, Any], nets: Mapping[str, Any]) -> Iterator[Turn]:
        """Play one batch: D first, then G against the updated D.

        `batch` has `x`, `y` float `[N,C,H,W]` in [-1, 1] and `z` int64 `[N]`; `nets` the engines `G` and `D`.
        """
        G, x, y = nets["G"], batch["x"], batch["y"]
        fake = G(x, batch["z"])
        if self.gan_weight:
            yield self.judge(nets["D"], x, y, fake.detach(), batch["z"])
        losses, report = self.fool(nets["D"], x, fake) if self.gan_weight else ({}, {})
        if self.l1:
            losses["G/l1"] = self.l1 * F.l1_loss(fake, y)
        yield G, losses, report

    def judge(self, D: Any, x: Tensor, y: Tensor, fake: Tensor, z: Tensor) -> Turn:
        """D's turn; its objective is halved, to slow it down against G (section 3.3)."""
        gan = GANS[self.gan]
        on_real, on_fake = D(self.seen(x, y)), D(self.seen(x, fake))
        losses = {"D/real": gan.real(on_real) / 2, "D/fake": gan.fake(on_fake) / 2}
        if self.gan == "wgan":
            slope = gradient_penalty(lambda y: D(self.seen(x, y)), y, fake, z)
            losses["D/penalty"] = self.penalty * slope / 2
        return D, losses, {"D(real)": self.score(on_real), "D(fake)": self.score(on_fake)}

    def fool(self, D: Any, x: Tensor, fake: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """G's adversarial loss against a D whose weights are constants, with what D says now."""
        judged = D.frozen(self.seen(x, fake))
        return {"G/gan": self.gan_weight * GANS[self.gan].fool(judged)}, {"D(fake) after": self.score(judged)}

    def seen(self, x: Tensor, y: Tensor) -> Tensor:
        """What D looks at."""
        return torch.cat([x, y], 1) if self.conditional else y

    def score(self, logits: Tensor) -> Tensor:
        """D's verdict for the log: a probability for the vanilla GAN, the mean output for the others."""
        logits = logits.detach()
        return (logits.sigmoid() if self.gan == "vanilla" else logits).mean()
