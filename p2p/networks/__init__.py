"""Networks: torch only. A dict is the registry; a constructor's signature is the schema of its settings."""

from p2p.networks.patchgan import PatchGAN
from p2p.networks.unet import UNet

NETWORKS = {"unet": UNet, "patch": PatchGAN}
