"""Networks: torch only. A dict is the registry; a constructor's keyword-only arguments are its settings."""

from typing import Any

from p2p.networks.patchgan import PatchGAN
from p2p.networks.unet import UNet

NETWORKS: dict[str, dict[str, Any]] = {"G": {"unet": UNet}, "D": {"patch": PatchGAN}}
"""Who plays -> what it may be, by name."""
