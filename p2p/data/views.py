"""What pixels mean: uint8 from the reader <-> float32 in [-1, 1] everywhere else."""

import torch
from torch import Tensor


def to_float(pixels: Tensor) -> Tensor:
    """uint8 `[N,C,H,W]` -> float32 in [-1, 1], on the device where the pixels are."""
    return pixels.to(torch.float32) / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """float `[..., C,H,W]` in [-1, 1] -> uint8, rounded to the nearest; what lies outside is clipped."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
