"""Lines one pixel wide out of a detector's edge map, as it was done for the authors' edges of shoes and handbags."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.feature import hessian_matrix
from skimage.morphology import remove_small_objects, thin
from skimage.transform import warp

THRESHOLD = 25 / 255
FEWEST = 5
"""Pixels of a line; shorter ones are dropped."""
SIGMA = 2.0
"""Blur before the direction of an edge is taken, pixels."""
TOLERANCE = 1.01
"""An edge stays unless a neighbour across it is stronger by more than this; so the top of a flat ridge stays."""


def suppress(edges: NDArray[np.float32]) -> NDArray[Any]:
    """The probabilities, (H, W), where they are greatest across their edge, else 0."""
    rr, rc, cc = hessian_matrix(edges, SIGMA, mode="nearest", order="rc", use_gaussian_derivatives=True)
    # the surface bends most across a ridge, down at its top and up beside it: the axis of the greatest absolute value
    sign = np.sign(rr + cc)
    angle = np.arctan2(2 * sign * rc, sign * (rr - cc)) / 2
    step = np.stack([np.cos(angle), np.sin(angle)])
    here = np.indices(edges.shape)
    ahead, behind = (warp(edges, here + side * step, order=1, mode="edge") for side in (1, -1))
    return np.where(TOLERANCE * edges >= np.maximum(ahead, behind), edges, 0)


def thin_lines(edges: NDArray[Any]) -> NDArray[np.bool_]:
    """Where the lines are, (H, W), of suppressed probabilities."""
    return remove_small_objects(thin(edges >= THRESHOLD), max_size=FEWEST - 1, connectivity=2)
