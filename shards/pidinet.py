"""PiDiNet, an edge detector (Su et al. 2021, arXiv 2108.07009): convolutions of pixel differences, four scales."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DILATED = {60: 24, 30: 12, 20: 8}
"""Channels of the dilated convolutions by those of the first scale: the whole network, the small one, the tiny one."""
BLOCKS = (3, 4, 4, 4)
"""Blocks of each scale; a scale has half the height and width of the one before."""
DILATIONS = (5, 7, 9, 11)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, RGB in [0, 1]."""

CLOCKWISE = (0, 1, 2, 5, 8, 7, 6, 3)
"""The neighbours of the middle of a 3x3 kernel, row by row."""


def central(weight: Tensor) -> Tensor:
    """Kernel, (O, I, 3, 3), of the differences between each neighbour and the middle."""
    kernel = weight.clone()
    kernel[..., 1, 1] -= weight.sum((2, 3))
    return kernel


def angular(weight: Tensor) -> Tensor:
    """Kernel, (O, I, 3, 3), of the differences between each neighbour and the next one clockwise."""
    ring = weight.flatten(2)[..., CLOCKWISE]
    kernel = weight.new_zeros(weight.shape)  # its numbers stand in a row, so that the next line writes into it
    kernel.flatten(2)[..., CLOCKWISE] = ring - ring.roll(1, dims=2)
    return kernel


def radial(weight: Tensor) -> Tensor:
    """Kernel, (O, I, 5, 5), of the differences between a pixel two steps away and the one between.

    The eight directions have the numbers 1 to 8, row by row; number 0 of `weight`, (O, I, 3, 3), has no meaning.
    """
    flat = weight.flatten(2)
    ring = torch.cat([flat[..., 1:5], torch.zeros_like(flat[..., :1]), flat[..., 5:]], dim=2).view_as(weight)
    kernel = weight.new_zeros(*weight.shape[:2], 5, 5)
    kernel[..., ::2, ::2] = ring
    kernel[..., 1:4, 1:4] -= ring
    return kernel


KERNELS: tuple[Callable[[Tensor], Tensor], ...] = (central, angular, radial, torch.clone)
"""Of the layers, round and round (configuration carv4); the last is a plain convolution."""


class PixelDifference(nn.Conv2d):
    """A convolution of pixel differences, done as the plain convolution that it equals."""

    def __init__(self, layer: int, inputs: int, outputs: int, groups: int = 1) -> None:
        super().__init__(inputs, outputs, 3, groups=groups, bias=False)
        self.kernel = KERNELS[layer % len(KERNELS)]

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel(self.weight)
        return F.conv2d(x, kernel, padding=kernel.shape[-1] // 2, groups=self.groups)


class Block(nn.Module):
    """Depthwise differences, then a 1x1 convolution, added to the input; the first of a scale halves the size."""

    def __init__(self, layer: int, inputs: int, outputs: int, halve: bool) -> None:
        super().__init__()
        self.conv1 = PixelDifference(layer, inputs, inputs, groups=inputs)
        self.conv2 = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if halve else None

    def forward(self, x: Tensor) -> Tensor:
        if self.shortcut is None:
            return x + self.conv2(self.conv1(x).relu())
        x = F.max_pool2d(x, 2)
        return self.shortcut(x) + self.conv2(self.conv1(x).relu())


class Dilated(nn.Module):
    """The sum of four dilated convolutions (CDCM)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 1)
        for number, dilation in enumerate(DILATIONS, start=1):
            conv = nn.Conv2d(outputs, outputs, 3, padding=dilation, dilation=dilation, bias=False)
            self.add_module(f"conv2_{number}", conv)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.children()
        x = first(x.relu())
        return torch.stack([conv(x) for conv in others]).sum(0)


class Attention(nn.Module):
    """Weighs every place by a number in (0, 1) (CSAM)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 4, 1)
        self.conv2 = nn.Conv2d(4, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv2(self.conv1(x.relu())).sigmoid()


class Reduce(nn.Module):
    """One edge map out of many channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class PiDiNet(nn.Module):
    """The network with spatial attention and dilated convolutions; names of the weights as in the authors' files.

    Args:
        width: channels of the first scale, one of `DILATED`.

    Raises:
        ValueError: it is none of these.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        if width not in DILATED:
            raise ValueError(f"{width} channels; PiDiNet has {', '.join(map(str, DILATED))}")
        self.init_block = PixelDifference(0, 3, width)
        channels = (width, 2 * width, 4 * width, 4 * width)
        inputs, layer = width, 1
        self.scales: list[list[str]] = []
        for scale, (outputs, blocks) in enumerate(zip(channels, BLOCKS, strict=True), start=1):
            self.scales.append([f"block{scale}_{number}" for number in range(1, blocks + 1)])
            for name in self.scales[-1]:
                self.add_module(name, Block(layer, inputs, outputs, halve=scale > 1 and name.endswith("_1")))
                inputs, layer = outputs, layer + 1
        self.dilations = nn.ModuleList(Dilated(outputs, DILATED[width]) for outputs in channels)
        self.attentions = nn.ModuleList(Attention(DILATED[width]) for _ in channels)
        self.conv_reduces = nn.ModuleList(Reduce(DILATED[width]) for _ in channels)
        self.classifier = nn.Conv2d(len(channels), 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Probability of an edge, (N, 1, H, W), for RGB in [0, 1], (N, 3, H, W), height and width at least 8."""
        x = self.init_block((image - _column(MEAN)) / _column(STD))
        maps = []
        for names, dilation, attention, reduce in zip(
            self.scales, self.dilations, self.attentions, self.conv_reduces, strict=True
        ):
            for name in names:
                x = self.get_submodule(name)(x)
            edges = reduce(attention(dilation(x)))
            maps.append(F.interpolate(edges, image.shape[2:], mode="bilinear"))
        return self.classifier(torch.cat(maps, dim=1)).sigmoid()


def _column(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1)
