"""Canny edges of a photograph: the input x of a pair whose target y is the photo."""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image


def load_canny() -> Callable[..., Any]:
    """scikit-image's detector; it is optional, and slow to import.

    Raises:
        ValueError: scikit-image is not installed.
    """
    try:
        from skimage.feature import canny
    except ImportError as error:
        raise ValueError("photos: edges need scikit-image; run `pip install p2p[edges]`") from error
    return canny


def draw_edges(photo: Image.Image, *, sigma: float) -> Image.Image:
    """Black lines on white, 8-bit gray, of the photo's size; `sigma` is the blur before, in pixels."""
    lines = load_canny()(np.asarray(photo.convert("L")) / 255, sigma=sigma)
    return Image.fromarray(np.where(lines, 0, 255).astype(np.uint8))
