"""Views: what the numbers of a batch mean, and what those that G made mean. A dict is the registry."""

from collections.abc import Callable

from p2p.data.views.pixels import boundaries, one_hot, painted, pixels, rgb, to_float, to_uint8
from p2p.data.views.view import View

__all__ = [
    "VIEWS",
    "View",
    "boundaries",
    "one_hot",
    "painted",
    "pixels",
    "rgb",
    "to_float",
    "to_uint8",
    "view_class",
]

VIEWS: dict[str, Callable[..., View]] = {"pixels": View}
"""By name; a class, called with the classes of the shards (0: pictures) and whether x shall have boundaries, then with
its settings."""


def view_class(name: str) -> Callable[..., View]:
    """The constructor of a view.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in VIEWS:
        raise ValueError(f"view.name: no view '{name}'; there is {', '.join(VIEWS)}")
    return VIEWS[name]
