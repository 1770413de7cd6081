"""How a network is called: on its device, in its precision, with or without its activations kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from p2p.watch import Stopwatch

Precision = Literal["fp32", "bf16"]


class Forward:
    """A network that can be called.

    Args:
        net: moved to `device`, and kept as `forward.net`.
        precision: bf16 wraps each forward in autocast; outputs, losses and weights stay float32.
        channels_last: memory format of inputs; an engine's weights have it, too.
        compile: run the forward through `torch.compile`.
        recompute: forget activations and compute them again for the backward, where the graphs of several micro-batches
            wait for their turn and would not fit otherwise.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        device: torch.device | str = "cpu",
        precision: Precision = "fp32",
        channels_last: bool = False,
        compile: bool = False,
        recompute: bool = False,
    ) -> None:
        self.device = torch.device(device)
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.net = net.to(self.device)
        self.precision, self.recompute = precision, recompute
        self._forward: Any = torch.compile(self.net) if compile else self.net
        self.busy = Stopwatch(self.device)

    @property
    def engine(self) -> Any:
        """The `p2p.engine.Engine` that updates the network; None where it does not learn."""
        return None

    def __call__(self, *args: Any) -> Any:
        """Forward; results, also in lists, are float32 (float64 of a float64 network)."""
        args = tuple(self._placed(arg) for arg in args)
        self.busy.start()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            if self.recompute and torch.is_grad_enabled():
                out = checkpoint(self._forward, *args, use_reentrant=False, preserve_rng_state=False)
            else:
                out = self._forward(*args)
        self.busy.stop()
        return _widened(out)

    def frozen(self, *args: Any) -> Any:
        """Forward with the weights as constants: gradients reach the input only, so nothing is left in D by G's
        turn, and nothing is reduced for it."""
        with constant(self.net):
            return self(*args)

    def _placed(self, arg: Any) -> Any:
        return arg.contiguous(memory_format=self.format) if isinstance(arg, Tensor) and arg.ndim == 4 else arg


@contextmanager
def constant(net: nn.Module) -> Iterator[None]:
    """The weights of a network are constants for what is computed meanwhile."""
    learning = [p for p in net.parameters() if p.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def _widened(out: Any) -> Any:
    if isinstance(out, list):
        return [_widened(one) for one in out]
    return out.float() if out.dtype == torch.bfloat16 else out
