"""The learning rate as a factor of images seen."""

from collections.abc import Callable
from functools import partial

Factor = Callable[[float], float]


def constant(epoch: float, full: float, decay: float) -> float:
    """The paper's code: the full rate to the end."""
    return 1.0


def linear(epoch: float, full: float, decay: float) -> float:
    """The full rate for `full` epochs, then linearly to 0 over `decay`, from image to image."""
    return 1.0 if epoch < full else max(0.0, 1 - (epoch - full) / decay) if decay else 0.0


def port(epoch: float, full: float, decay: float) -> float:
    """The PyTorch port's, held for each epoch e = 1, 2, ...: 1 - max(0, e - full) / (decay + 1)."""
    e = int(epoch) + 1
    return 1 - max(0.0, e - full) / (decay + 1)


def hd(epoch: float, full: float, decay: float) -> float:
    """pix2pixHD's code, held for each epoch e = 1, 2, ...: 1 - max(0, e - full - 1) / decay."""
    e = int(epoch) + 1
    return max(0.0, 1 - max(0.0, e - full - 1) / decay) if decay else 1.0


SCHEDULES = {"constant": constant, "linear": linear, "port": port, "hd": hd}


def factor(name: str, full: float, decay: float, epoch_images: int) -> Factor:
    """Factor of images seen, for a run of `full + decay` epochs.

    Raises:
        ValueError: the settings contradict each other.
    """
    if name == "constant" and decay:
        raise ValueError(f"schedule.decay: {decay} epochs, but schedule.name is constant; use linear, port or decay 0")
    if full + decay <= 0:
        raise ValueError("schedule.epochs: the run has no length; give more than 0")
    shape = partial(SCHEDULES[name], full=full, decay=decay)
    return lambda images: shape(images / epoch_images)
