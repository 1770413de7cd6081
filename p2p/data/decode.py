"""Encoded members of a sample as tensors, decoded without a copy of their bytes."""

from collections.abc import Sequence

import simplejpeg
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image, decode_jpeg

from p2p.data.encoded import decode_ids

PNG, JPEG = b"\x89PNG", b"\xff\xd8"
CPU = torch.device("cpu")


def picture(data: bytearray | memoryview, channels: int, device: torch.device = CPU) -> Tensor:
    """uint8 `[channels,H,W]` on `device`, by whose own decoder where it has one: JPEG on a GPU.

    Raises:
        RuntimeError: it is no picture.
        ValueError: it has more than 8 bits a channel.
    """
    mode = ImageReadMode.GRAY if channels == 1 else ImageReadMode.RGB
    raw = torch.frombuffer(data, dtype=torch.uint8)
    if device.type == "cuda" and data[:2] == JPEG:
        return decode_jpeg(raw, mode, device=device)
    pixels = decode_image(raw, mode)
    if pixels.dtype != torch.uint8:
        raise ValueError("more than 8 bits a channel are not supported; convert it to 8 bits")
    return pixels.to(device)


def jpegs(encoded: Sequence[bytearray | memoryview], shape: tuple[int, int, int]) -> Tensor:
    """JPEG pictures of one `[H,W,C]` -> uint8 `[N,H,W,C]`, each decoded to its place: nothing is copied.

    Raises:
        ValueError: one is no JPEG, or of another size; its pixels would be those of `picture`.
    """
    pixels = torch.empty(len(encoded), *shape, dtype=torch.uint8)
    colours = "GRAY" if shape[2] == 1 else "RGB"
    for data, place in zip(encoded, pixels.numpy(), strict=True):
        if simplejpeg.decode_jpeg(data, colours, buffer=place).shape != shape:
            raise ValueError(f"a picture is not of {shape[0]}x{shape[1]} pixels")
    return pixels


def numbers(data: bytearray | memoryview) -> Tensor:
    """int32 `[1,H,W]` of a map of instances.

    Raises:
        RuntimeError, ValueError: it is none.
    """
    if data[:4] == PNG:
        return decode_image(torch.frombuffer(data, dtype=torch.uint8), ImageReadMode.UNCHANGED).to(torch.int32)
    return torch.from_numpy(decode_ids(bytes(data)))[None]
