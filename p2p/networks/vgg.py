"""VGG, which knows pictures from ImageNet: the ruler of the perceptual loss."""

from pathlib import Path
from typing import Literal
from zipfile import is_zipfile

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import VGG16_Weights, VGG19_Weights
from torchvision.models.vgg import cfgs, make_layers

Name = Literal["vgg19", "vgg16"]
Input = Literal["imagenet", "raw"]
LAYERS = {"vgg19": "E", "vgg16": "D"}
"""Their columns in table 1 of Simonyan and Zisserman 2015."""
URLS = {"vgg19": VGG19_Weights.IMAGENET1K_V1.url, "vgg16": VGG16_Weights.IMAGENET1K_V1.url}
LEAST = 16
"""Pixels a side that are halved four times."""
ENDS = {"vgg19": (2, 7, 12, 21, 30), "vgg16": (2, 7, 12, 19, 26)}
"""Where relu1_1, relu2_1, ..., relu5_1 are done (Simonyan and Zisserman 2015)."""


class VGG(nn.Module):
    """Maps after the first ReLU of each of the five blocks; it does not learn.

    Args:
        name: of the network.
        input: `imagenet` brings pictures to the mean and deviation that VGG was trained with; `raw` leaves them in
            [-1, 1], as pix2pixHD's code does.
    """

    def __init__(self, name: Name = "vgg19", input: Input = "imagenet") -> None:
        super().__init__()
        self.ends, self.input = ENDS[name], input
        self.features = make_layers(cfgs[LAYERS[name]])[: self.ends[-1]]
        for module in self.features:
            if isinstance(module, nn.ReLU):
                module.inplace = False  # the map before it would be lost for the backward
        self.requires_grad_(False).eval()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)

    def forward(self, y: Tensor) -> list[Tensor]:
        """`[N,3,H,W]` or `[N,1,H,W]` in [-1, 1], at least 16 pixels a side -> five maps, each half the size."""
        maps = y.expand(-1, 3, -1, -1)
        if self.input == "imagenet":
            maps = ((maps + 1) / 2 - self.mean) / self.std
        found = []
        for at, layer in enumerate(self.features, start=1):
            maps = layer(maps)
            if at in self.ends:
                found.append(maps)
        return found


def weights_file(name: Name, given: str) -> Path:
    """Where the weights lie: the given file, or torchvision's own in its cache.

    Raises:
        ValueError: there is none; says where to put it.
    """
    url = URLS[name]
    file = Path(given).expanduser() if given else Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if not file.is_file():
        raise ValueError(
            f"task.vgg_weights: {file} is no file; put {url} there, name another file, or train without it"
            " by task.perceptual=0"
        )
    return file


def load_vgg(name: Name, input: Input, file: Path) -> VGG:
    """VGG with the weights of a file in torchvision's layout, of which only those of the used convolutions are read.

    Raises:
        ValueError: it is no such file; names it, and the first tensor that does not fit.
    """
    try:
        if file.suffix == ".safetensors":
            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zipfile(file))
        net = VGG(name, input)
        for key, own in net.state_dict().items():
            if key not in state or state[key].shape != own.shape:
                found = tuple(state[key].shape) if key in state else "missing"
                raise ValueError(f"{key} is {found}, and {tuple(own.shape)} in {name}")
            own.copy_(state[key])
    except Exception as error:  # torch and safetensors raise whatever a damaged file makes them raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"task.vgg_weights: {file} holds no weights of {name} ({reason}); download it again"
        ) from error
    return net
