"""Pixels, labels and instances as numbers: from the reader's integers to floats in [-1, 1], and back."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from p2p.data.encoded import on_white


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Numbers below `classes`, `[N,1,H,W]` -> float32 `[N,classes,H,W]`, 1 in the plane of the number, else 0."""
    N, _, H, W = labels.shape
    planes = torch.zeros(N, H, W, classes, device=labels.device).permute(0, 3, 1, 2)  # NHWC in memory
    return planes.scatter_(1, labels.long(), 1.0)


def boundaries(instances: Tensor) -> Tensor:
    """`[N,1,H,W]` -> bool `[N,1,H,W]`: whether one of the four neighbours belongs to another instance (Wang et al.
    2018, section 3.3)."""
    edge = torch.zeros_like(instances, dtype=torch.bool)
    for across, along in ((edge, instances), (edge.mT, instances.mT)):
        change = along[..., 1:] != along[..., :-1]
        across[..., 1:] |= change
        across[..., :-1] |= change
    return edge


def painted(labels: Tensor) -> Tensor:
    """Numbers of classes, uint8 `[N,1,H,W]` -> a colour for each, uint8 `[N,3,H,W]`, for people: PASCAL VOC's map,
    whose colours of small numbers lie far apart; 0 is black."""
    numbers, colours = torch.arange(256), torch.zeros(256, 3, dtype=torch.long)
    for bit in range(8):
        colours[:, bit % 3] |= ((numbers >> bit) & 1) << (7 - bit // 3)
    return colours.to(labels.device, torch.uint8)[labels[:, 0].long()].permute(0, 3, 1, 2)


def rgb(picture: Tensor) -> Tensor:
    """uint8 `[1,H,W]` or `[3,H,W]` -> `[3,H,W]`."""
    return picture.expand(3, -1, -1) if len(picture) == 1 else picture


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
