"""What pixels mean: uint8 from the reader <-> float32 in [-1, 1] everywhere else."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from p2p.data.encoded import on_white


def to_float(pixels: Tensor) -> Tensor:
    """uint8 `[N,C,H,W]` -> float32 in [-1, 1], on the device where the pixels are."""
    return pixels.to(torch.float32) / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """float `[..., C,H,W]` in [-1, 1] -> uint8, rounded to the nearest; what lies outside is clipped."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def pixels(image: Image.Image, channels: int) -> Tensor:
    """A picture of any 8-bit mode -> uint8 `[channels,H,W]`, 1 (gray) or 3 (RGB); on white where transparent, as
    the packer has it."""
    values = np.array(on_white(image).convert("L" if channels == 1 else "RGB"))
    return torch.from_numpy(values).reshape(image.height, image.width, channels).permute(2, 0, 1).contiguous()
