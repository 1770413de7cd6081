"""LDC, an edge detector (Soria et al. 2022, Lightweight Dense CNN for Edge Detection): dense blocks, four maps."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MEAN = (103.939, 116.779, 123.68)
"""Of ImageNet, BGR in [0, 255]."""


def _narrow(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    side = nn.Sequential()
    side.add_module("conv", nn.Conv2d(inputs, outputs, 1, stride=stride))
    side.add_module("bn", nn.BatchNorm2d(outputs))
    return side


def _double(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    block = nn.Sequential()
    block.add_module("conv1", nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1))
    block.add_module("bn1", nn.BatchNorm2d(outputs))
    block.add_module("relu", nn.ReLU())
    block.add_module("conv2", nn.Conv2d(outputs, outputs, 3, padding=1))
    block.add_module("bn2", nn.BatchNorm2d(outputs))
    return block


def _dense_layer(inputs: int, outputs: int) -> nn.Sequential:
    # the first pads by two and the second not at all: the size stays
    layer = nn.Sequential()
    layer.add_module("relu0", nn.ReLU())
    layer.add_module("conv1", nn.Conv2d(inputs, outputs, 3, padding=2))
    layer.add_module("norm1", nn.BatchNorm2d(outputs))
    layer.add_module("relu1", nn.ReLU())
    layer.add_module("conv2", nn.Conv2d(outputs, outputs, 3))
    layer.add_module("norm2", nn.BatchNorm2d(outputs))
    return layer


class Dense(nn.Module):
    """Layers of which each gives the mean of what it computes and of one side input."""

    def __init__(self, layers: int, inputs: int, outputs: int) -> None:
        super().__init__()
        for number in range(1, layers + 1):
            self.add_module(f"denselayer{number}", _dense_layer(inputs if number == 1 else outputs, outputs))

    def forward(self, x: Tensor, side: Tensor) -> Tensor:
        for layer in self.children():
            x = (layer(x) + side) / 2
        return x


class Enlarge(nn.Module):
    """One map of full size from one that was halved `times` times."""

    def __init__(self, inputs: int, times: int) -> None:
        super().__init__()
        kernel = 2**times
        self.features = nn.Sequential()
        for left in reversed(range(times)):
            outputs = 16 if left else 1
            up = nn.ConvTranspose2d(outputs, outputs, kernel, stride=2, padding=kernel // 2 - 1)
            self.features.extend([nn.Conv2d(inputs, outputs, 1), nn.ReLU(), up])
            inputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)


class Fuse(nn.Module):
    """The mean of the maps, weighed anew at every place."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(maps, 32, 3, padding=1)
        self.norm_layer1 = nn.GroupNorm(4, 32)
        self.conv3 = nn.Conv2d(32, maps, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        weights = self.conv3(self.norm_layer1(self.conv1(maps)).relu()).softmax(1)
        return (maps * weights).sum(1, keepdim=True)


class LDC(nn.Module):
    """The network of the authors' `modelB4`, names of the weights as in their files."""

    def __init__(self) -> None:
        super().__init__()
        self.block_1, self.block_2 = _double(3, 16, stride=2), _double(16, 32, stride=1)
        self.dblock_3, self.dblock_4 = Dense(2, 32, 64), Dense(3, 64, 96)
        self.side_1, self.side_2 = _narrow(16, 32, stride=2), _narrow(32, 64, stride=2)
        self.pre_dense_2 = _narrow(32, 64, stride=2)
        self.pre_dense_3, self.pre_dense_4 = _narrow(32, 64, stride=1), _narrow(64, 96, stride=1)
        self.up_block_1, self.up_block_2 = Enlarge(16, 1), Enlarge(32, 1)
        self.up_block_3, self.up_block_4 = Enlarge(64, 2), Enlarge(96, 3)
        self.block_cat = Fuse(4)

    def forward(self, image: Tensor) -> Tensor:
        """Probability of an edge, (N, 1, H, W), for RGB in [0, 1], (N, 3, H, W), height and width multiples of 8."""
        x = 255 * image.flip(1) - torch.tensor(MEAN).view(-1, 1, 1)
        first = self.block_1(x).relu()
        second = self.block_2(first)
        small = _pool(second)
        entry = small + self.side_1(first)
        third = self.dblock_3(entry, self.pre_dense_3(small))
        smaller = _pool(third)
        side = self.pre_dense_4(smaller + self.pre_dense_2(small))
        fourth = self.dblock_4(smaller + self.side_2(entry), side)
        ups = (self.up_block_1, self.up_block_2, self.up_block_3, self.up_block_4)
        maps = [up(x) for up, x in zip(ups, (first, second, third, fourth), strict=True)]
        return self.block_cat(torch.cat(maps, dim=1)).sigmoid()


def _pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2, padding=1)
