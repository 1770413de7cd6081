"""pix2pix: image translation with a conditional GAN (Isola et al. 2017), and pix2pixHD's terms (Wang et al. 2018)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from p2p.losses import GANS, GANName, Judged, feature_matching, gradient_penalty, perceptual, summed
from p2p.networks.vgg import LEAST, load_vgg, weights_file
from p2p.tasks.task import KeptGenerator, NetworkRole, Task, TaskInputs, Turn


@dataclass(kw_only=True)
class Pix2Pix(Task):
    """G* = arg min_G max_D L_cGAN(G, D) + lambda L_L1(G) (equation 4).

    The paper's variants: L1 `gan_weight: 0`; cGAN `l1: 0`; GAN `l1: 0, conditional: false`; L1+GAN
    `conditional: false`; L1+cGAN the defaults. `matching` and `perceptual` add pix2pixHD's terms to any of them.

    Raises:
        ValueError: nothing is left to minimise, a weight is negative, or feature matching has no D.
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
    matching: float = 0.0
    """Weight of feature matching, see `p2p.losses`; 0 leaves it out."""
    perceptual: float = 0.0
    """Weight of the VGG loss, see `p2p.losses`; 0 leaves it out."""
    vgg: Literal["vgg19", "vgg16"] = "vgg19"
    """The network of the perceptual loss, trained on ImageNet."""
    vgg_weights: str = ""
    """File of its weights; empty: where torchvision keeps them."""
    vgg_input: Literal["imagenet", "raw"] = "imagenet"
    """`imagenet`: normalised as VGG was trained; `raw`: in [-1, 1], as pix2pixHD's code has it."""
    features: int = 0
    """Features of each instance of y that an encoder E tells G (Wang et al. 2018, section 3.4); 0: no E."""
    first: Literal["D", "G"] = "D"
    """Who moves first. G after D meets the updated D; G before D the one that D's own losses are of."""

    def __post_init__(self) -> None:
        weights = self.l1, self.gan_weight, self.penalty, self.matching, self.perceptual
        if min(weights) < 0:
            raise ValueError("task: l1, gan_weight, penalty, matching and perceptual are weights, never negative")
        if not any((self.l1, self.gan_weight, self.perceptual)):
            raise ValueError("task: l1, gan_weight and perceptual are all 0; nothing is left to minimise")
        if self.matching and not self.gan_weight:
            raise ValueError("task.matching: compares maps of D, and gan_weight 0 leaves D out; set one of them")
        if self.features < 0:
            raise ValueError(f"task.features: {self.features} is no number of channels; use 3, or 0 for none")

    def networks(self, x: int, y: int) -> dict[str, NetworkRole]:
        """G, which sees x and the features of y; E, which makes these; D, where there is a GAN term."""
        roles = {"G": NetworkRole("G", x + self.features, y)}
        if self.features:
            roles["E"] = NetworkRole("E", y, self.features)
        if self.gan_weight:
            roles["D"] = NetworkRole("D", x * self.conditional + y, 1)
        return roles

    def shared(self) -> Sequence[Sequence[str]]:
        """E learns with G's optimiser (Wang et al. 2018, section 3.4)."""
        return [("G", "E")] if self.features else []

    def generators(self) -> dict[str, KeptGenerator]:
        """G, with the encoder that it needs."""
        return {"G": KeptGenerator("G", encoder="E" if self.features else "")}

    def frozen(self) -> dict[str, nn.Module]:
        """VGG, where the perceptual loss is asked for."""
        if not self.perceptual:
            return {}
        return {"VGG": load_vgg(self.vgg, self.vgg_input, weights_file(self.vgg, self.vgg_weights))}

    def check(self, inputs: TaskInputs) -> None:
        """Features need instance maps and k-means, VGG pictures of some size, wgan's penalty a D that sees each image
        alone."""
        crop = inputs.crop[0] if inputs.crop[0] == inputs.crop[1] else inputs.crop
        if self.features and "instances" not in inputs.members:
            raise ValueError(
                f"task.features: {inputs.folder} has no instance maps; pack it with them, or use features=0"
            )
        if self.features and not find_spec("sklearn"):
            raise ValueError(
                "task.features: are clustered by scikit-learn; pip install 'p2p[features]', or use features=0"
            )
        if self.perceptual and inputs.channels[1] not in (1, 3):
            raise ValueError(f"task.perceptual: VGG sees 1 or 3 channels, y has {inputs.channels[1]}; use perceptual=0")
        if self.perceptual and min(inputs.crop) < LEAST:
            raise ValueError(f"data.crop: VGG needs {LEAST} pixels, and {crop} is less; use more, or task.perceptual=0")
        if self.gan == "wgan" and inputs.groups.get("D", 1) != 1:
            raise ValueError("D.norm: mixes images, which wgan's penalty forbids; use instance, none or D.group=1")

    def waiting(self) -> frozenset[str]:
        """G's graphs, and E's within them, wait for D where it is updated first."""
        return frozenset(["G", "E"] if self.first == "D" else [])

    @property
    def members(self) -> frozenset[str]:
        """x and y, and with features the instances."""
        return frozenset(["x", "y", "instances"] if self.features else ["x", "y"])

    def turns(self, batch: Mapping[str, Any], nets: Mapping[str, Any]) -> Iterator[Turn]:
        """Play one batch, D and G in the order of `first`.

        `batch` has `x`, `y` float `[N,C,H,W]` in [-1, 1], `z` int64 `[N]` and, with features, `instances` integer
        `[N,1,H,W]`; `nets` the networks `G`, `D`, with features `E`, and `VGG` for the perceptual loss.
        """
        x = batch["x"]
        if self.features:
            x = torch.cat([x, nets["E"](batch["y"], batch["instances"])], 1)
        fake = nets["G"](x, batch["z"])
        if self.gan_weight and self.first == "D":
            yield self.judge(nets["D"], batch, fake.detach())
        yield nets["G"], *self.please(nets, batch, fake)
        if self.gan_weight and self.first == "G":
            yield self.judge(nets["D"], batch, fake.detach())

    def judge(self, D: Any, batch: Mapping[str, Any], fake: Tensor) -> Turn:
        """D's turn; its objective is halved, to slow it down against G (section 3.3)."""
        gan, x, y = GANS[self.gan], batch["x"], batch["y"]
        on_real, on_fake = D(self.seen(x, y)), D(self.seen(x, fake))
        losses = {"D/real": summed(gan.real, on_real) / 2, "D/fake": summed(gan.fake, on_fake) / 2}
        if self.gan == "wgan":
            slope = gradient_penalty(lambda y: mean_score(D(self.seen(x, y))), y, fake, batch["z"])
            losses["D/penalty"] = self.penalty * slope / 2
        return D, losses, {"D(real)": self.score(on_real), "D(fake)": self.score(on_fake)}

    def please(
        self, nets: Mapping[str, Any], batch: Mapping[str, Any], fake: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """G's losses, against a D whose weights are constants, with what D says now."""
        x, y = batch["x"], batch["y"]
        losses, report = {}, {}
        if self.gan_weight:
            judged = nets["D"].frozen(self.seen(x, fake))
            losses["G/gan"] = self.gan_weight * summed(GANS[self.gan].fool, judged)
            report["D(fake) after"] = self.score(judged)
        if self.matching:
            with torch.no_grad():
                real = nets["D"](self.seen(x, y))
            losses["G/matching"] = self.matching * feature_matching(judged, real)
        if self.perceptual:
            with torch.no_grad():
                known = nets["VGG"](y)
            losses["G/perceptual"] = self.perceptual * perceptual(nets["VGG"](fake), known)
        if self.l1:
            losses["G/l1"] = self.l1 * F.l1_loss(fake, y)
        return losses, report

    def seen(self, x: Tensor, y: Tensor) -> Tensor:
        """What D looks at."""
        return torch.cat([x, y], 1) if self.conditional else y

    def score(self, judged: Judged) -> Tensor:
        """D's verdict for the log: a probability for the vanilla GAN, the mean output for the others."""
        logits = [maps[-1].detach() for maps in judged]
        return torch.stack([(one.sigmoid() if self.gan == "vanilla" else one).mean() for one in logits]).mean()


@dataclass(kw_only=True)
class Pix2PixHD(Pix2Pix):
    """The same game with the terms, weights and order of Wang et al. 2018 (arXiv 1711.11585), equation 8: least
    squares at several scales, feature matching and VGG, no L1; G moves first. The authors have `vgg_input: raw`."""

    l1: float = 0.0
    gan: GANName = "lsgan"
    matching: float = 10.0
    perceptual: float = 10.0
    first: Literal["D", "G"] = "G"


def mean_score(judged: Judged) -> Tensor:
    """D of an image, `[N,1]`: the mean over the patches of each scale, added up."""
    return torch.stack([maps[-1].flatten(1).mean(1) for maps in judged]).sum(0)[:, None]
