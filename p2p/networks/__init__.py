"""Networks: torch only. A dict is the registry; a constructor's keyword-only arguments are its settings."""

from typing import Any

from p2p.networks.encoder import Encoder
from p2p.networks.enhancer import LocalEnhancer
from p2p.networks.multiscale import MultiScale
from p2p.networks.patchgan import PatchGAN
from p2p.networks.resnet import ResNet
from p2p.networks.unet import UNet

NETWORKS: dict[str, dict[str, Any]] = {
    "G": {"unet": UNet, "global": ResNet, "local": LocalEnhancer},
    "D": {"patch": PatchGAN, "multiscale": MultiScale},
    "E": {"instance": Encoder},
}
"""Who plays -> what it may be, by name."""
