"""Losses are functions that return numbers; nothing here calls backward."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from p2p.noise import uniform

GANName = Literal["vanilla", "lsgan", "hinge", "wgan"]
Logits = Callable[[Tensor], Tensor]
Judged = list[list[Tensor]]
"""What D answers, see `p2p.networks.patchgan`: for each scale its feature maps, and last the logits."""
DEPTHS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1)
"""Weights of the perceptual loss, from the shallowest map to the deepest."""
_INTERPOLATION = 0  # salt of the penalty's random numbers; dropout layers count from 1


class GAN(NamedTuple):
    """A GAN objective as three functions from logits of any shape to a mean that is to be made small."""

    real: Logits
    """D on real pictures."""
    fake: Logits
    """D on generated pictures."""
    fool: Logits
    """G on the logits of its own pictures."""


GANS: dict[GANName, GAN] = {
    # Goodfellow et al. 2014; G maximises log D(G(x)) (Isola et al. 2017, section 3.3).
    "vanilla": GAN(lambda d: F.softplus(-d).mean(), lambda d: F.softplus(d).mean(), lambda d: F.softplus(-d).mean()),
    # Mao et al. 2017, equation 9 with a = 0, b = c = 1, without its factors 1/2.
    "lsgan": GAN(lambda d: (d - 1).square().mean(), lambda d: d.square().mean(), lambda d: (d - 1).square().mean()),
    # Lim and Ye 2017.
    "hinge": GAN(lambda d: F.relu(1 - d).mean(), lambda d: F.relu(1 + d).mean(), lambda d: -d.mean()),
    # Arjovsky et al. 2017; needs `gradient_penalty`.
    "wgan": GAN(lambda d: -d.mean(), lambda d: d.mean(), lambda d: -d.mean()),
}


def summed(loss: Logits, judged: Judged) -> Tensor:
    """A GAN's loss over the logits of each scale, added up (Wang et al. 2018, equation 2)."""
    return torch.stack([loss(maps[-1]) for maps in judged]).sum()


def feature_matching(fake: Judged, real: Judged) -> Tensor:
    """Mean |difference| of each of D's feature maps but the logits, over scales and layers (Wang et al. 2018,
    equation 3), with the weights of the authors' code: 1 / scales x 4 / layers."""
    scales = []
    for ours, theirs in zip(fake, real, strict=True):
        layers = [F.l1_loss(a, b.detach()) for a, b in zip(ours[:-1], theirs[:-1], strict=True)]
        scales.append(torch.stack(layers).sum() * (4 / len(layers)))
    return torch.stack(scales).sum() / len(scales)


def perceptual(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Mean |difference| of the five feature maps of `p2p.networks.vgg.VGG`, weighted (Johnson et al. 2016; the weights
    are those of pix2pixHD's code)."""
    pairs = zip(DEPTHS, fake, real, strict=True)
    return torch.stack([weight * F.l1_loss(a, b.detach()) for weight, a, b in pairs]).sum()


def gradient_penalty(D: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, z: Tensor) -> Tensor:
    """(|gradient of D at a random point between real and fake|_2 - 1)^2, the mean over the images
    (Gulrajani et al. 2017, equation 3). D of an image is the mean over its patches, as in the WGAN loss.

    Args:
        D: images to logits, differentiable twice.
        real, fake: `[N,C,H,W]`; no gradient goes to whoever made them.
        z: int64 `[N]`, keys of the points.
    """
    at = uniform(z, _INTERPOLATION)[:, None, None, None].to(real.dtype)
    between = (real.detach() * at + fake.detach() * (1 - at)).requires_grad_()
    value = D(between).flatten(1).mean(1).sum()
    (slope,) = torch.autograd.grad(value, between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()
