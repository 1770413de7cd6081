"""Edges of a photograph, by Canny or by a network: the input x of a pair whose target y is the photo."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor, nn

Detector = Callable[[Image.Image], Image.Image]

BORDER = 16
"""Pixels of its mirror image around a photo, for a network takes the end of a picture for an edge."""
STEP = 8
"""A network halves a picture three times."""


@cache
def detector(weights: str, sigma: float) -> Detector:
    """What draws the edges of a photo: black lines on white, 8-bit gray, of the photo's size.

    Args:
        weights: file of a PiDiNet or an LDC, as their authors give it; empty for Canny.
        sigma: blur before Canny, pixels; a network has none.

    A network takes memory for every pixel of the photo: PiDiNet 1.2 kB, LDC and the tiny PiDiNet about 0.5 kB.

    Raises:
        ValueError: the file holds no such weights, or scikit-image is not installed.
    """
    try:
        from skimage.feature import canny
    except ImportError as error:
        raise ValueError("photos: edges need scikit-image; run `pip install p2p[edges]`") from error
    return partial(_by_network, load_network(Path(weights))) if weights else partial(_by_canny, canny, sigma)


def _by_canny(canny: Callable[..., Any], sigma: float, photo: Image.Image) -> Image.Image:
    return _black_on_white(canny(np.asarray(photo.convert("L")) / 255, sigma=sigma))


def load_network(path: Path) -> "nn.Module":
    """The network whose weights a file holds: (N, 3, H, W) of RGB in [0, 1] to (N, 1, H, W) of probabilities.

    Raises:
        ValueError: it is not there, damaged, or of another network; names it, and the first weight that does not fit.
    """
    try:
        state = _weights(path)
        network = _network(state)
        if wrong := _misfit(state, network.state_dict()):
            raise ValueError(f"is no {type(network).__name__} that is known: {wrong}")
        network.load_state_dict(state)
        if not all(bool(weight.isfinite().all()) for weight in network.state_dict().values()):
            raise ValueError("holds numbers that are not finite")
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file; give the weights of PiDiNet or LDC") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}; give the weights of PiDiNet (carv4, sa, dil) or LDC (modelB4)") from error
    return network.eval()


def _weights(path: Path) -> dict[str, "Tensor"]:
    import torch

    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged or hostile file may make it raise anything
        raise ValueError("is damaged, or holds more than weights, which might be a program") from error
    state = held.get("state_dict", held) if isinstance(held, dict) else None
    if not isinstance(state, dict) or not all(isinstance(one, torch.Tensor) for one in state.values()):
        raise ValueError("holds no weights by name")
    return {str(name).removeprefix("module."): one for name, one in state.items()}


def _network(state: Mapping[str, "Tensor"]) -> "nn.Module":
    from shards.ldc import LDC
    from shards.pidinet import PiDiNet

    if "init_block.weight" in state:
        return PiDiNet(state["init_block.weight"].numel() // 27)  # three colours, 3x3
    if "block_cat.conv1.weight" in state:
        return LDC()
    raise ValueError("holds the weights of another network")


def _misfit(state: Mapping[str, "Tensor"], own: Mapping[str, "Tensor"]) -> str:
    """The first weight, by name, that is missing, strange or of another shape."""
    for name in sorted(state.keys() | own.keys()):
        if name not in own or name not in state:
            return f"{name} is {'missing' if name in own else 'not in it'}"
        if state[name].shape != own[name].shape:
            return f"{name} is {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
    return ""


def _by_network(network: "nn.Module", photo: Image.Image) -> Image.Image:
    from shards.thin import suppress, thin_lines

    pixels = np.asarray(photo.convert("RGB"), np.float32) / 255
    height, width = pixels.shape[:2]
    margins = [(BORDER, BORDER + -size % STEP) for size in (height, width)]
    edges = suppress(_probability(network, np.pad(pixels, [*margins, (0, 0)], mode="reflect")))
    return _black_on_white(thin_lines(edges[BORDER : BORDER + height, BORDER : BORDER + width]))


def _probability(network: "nn.Module", pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    import torch

    with _one_thread(), torch.inference_mode():
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        return np.asarray(network(image)[0, 0])


@contextmanager
def _one_thread() -> Iterator[None]:
    """The packer has a process for each core; and sums must not depend on how many there are."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _black_on_white(lines: NDArray[np.bool_]) -> Image.Image:
    return Image.fromarray(np.where(lines, 0, 255).astype(np.uint8))
