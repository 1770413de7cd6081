"""An engine: one optimiser with its network, however it is distributed."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.distributed as td
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

Precision = Literal["fp32", "bf16"]


class Engine:
    """A network that can be called, trained and stored; alone or, in a process group, under DDP.

    Args:
        net: moved to `device`, and kept as `engine.net`.
        lr, betas: of Adam (Isola et al. 2017, section 3.3).
        precision: bf16 wraps each forward in autocast; outputs, losses and weights stay float32.
        channels_last: memory format of weights and inputs.
        compile: run the forward through `torch.compile`.
        recompute: forget activations and compute them again for the backward. With micro-batches the graphs of
            several forwards wait for their turn, and would not fit otherwise.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        device: torch.device | str = "cpu",
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        precision: Precision = "fp32",
        channels_last: bool = False,
        compile: bool = False,
        recompute: bool = False,
    ) -> None:
        self.device = torch.device(device)
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.net = net.to(self.device).to(memory_format=self.format).train()
        self.parameters = dict(net.named_parameters())
        self.ordered = {name: in_memory_order(p, p).detach() for name, p in self.parameters.items()}
        self.base_lr = lr
        self.optimizer = torch.optim.Adam(self.ordered.values(), lr=lr, betas=betas, fused=True)
        self.precision, self.recompute = precision, recompute
        self._forward: Any = torch.compile(self.net) if compile else self.net
        self.ddp = DistributedDataParallel(self.net) if _in_group() else None

    def __call__(self, *args: Any) -> Tensor:
        """Forward; the result is float32 (float64 for a float64 network)."""
        args = tuple(self._placed(arg) for arg in args)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            if self.recompute and torch.is_grad_enabled():
                out = checkpoint(self._forward, *args, use_reentrant=False, preserve_rng_state=False)
            else:
                out = self._forward(*args)
        return out.float() if out.dtype == torch.bfloat16 else out

    def frozen(self, *args: Any) -> Tensor:
        """Forward with the weights as constants: gradients reach the input only, so nothing is left in D by G's
        turn, and nothing is reduced for it."""
        learning = [p for p in self.net.parameters() if p.requires_grad]
        for parameter in learning:
            parameter.requires_grad_(False)
        try:
            return self(*args)
        finally:
            for parameter in learning:
                parameter.requires_grad_(True)

    def backward(self, loss: Tensor, *, last: bool = True) -> None:
        """Add the gradients of `loss`; with the `last` one before a step they are averaged over the ranks.

        The reducer is armed here and not, as DDP's own forward does it, with the forward: in a game of several
        networks a forward may lie turns before its backward. So there is one reduction a network and step,
        overlapped with this backward, and micro-batches before the last are added up without any traffic.
        """
        if self.ddp is not None and last:
            self.ddp.reducer.prepare_for_backward([])
        loss.backward()

    def step(self) -> None:
        """Update the weights and clear the gradients."""
        for name, parameter in self.parameters.items():
            grad, parameter.grad = parameter.grad, None
            self.ordered[name].grad = None if grad is None else in_memory_order(grad, parameter)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    @property
    def lr(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def set_lr(self, factor: float) -> None:
        """Learning rate as a factor of the base rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.base_lr * factor

    def state(self) -> dict[str, Tensor]:
        """Weights as `net/NAME` and Adam's moments as `adam/NAME/KEY`; independent of the number of ranks."""
        weights = {f"net/{name}": tensor for name, tensor in self.net.state_dict().items()}
        moments = {
            f"adam/{name}/{key}": as_parameter(tensor, parameter)
            for name, parameter in self.parameters.items()
            for key, tensor in self.optimizer.state[self.ordered[name]].items()
        }
        return weights | moments

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned.

        Raises:
            ValueError: it belongs to another network; names the first tensor that does not fit.
        """
        load_strict(self.net, {name[4:]: t for name, t in state.items() if name.startswith("net/")})
        for name, parameter in self.parameters.items():
            prefix = f"adam/{name}/"
            moments = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
            self.optimizer.state[self.ordered[name]] = {key: self._like(t, parameter) for key, t in moments.items()}

    def _placed(self, arg: Any) -> Any:
        return arg.contiguous(memory_format=self.format) if isinstance(arg, Tensor) and arg.ndim == 4 else arg

    def _like(self, tensor: Tensor, parameter: Tensor) -> Tensor:
        if not tensor.ndim:
            return tensor.to(self.device)
        return in_memory_order(torch.empty_like(parameter).copy_(tensor), parameter).detach()


def in_memory_order(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A view of `tensor` in the order in which `parameter` lies in memory, NHWC for channels_last. Fused Adam on the
    CPU copies whatever is not contiguous; on views it is four times as fast."""
    return tensor if parameter.is_contiguous() else tensor.permute(0, 2, 3, 1)


def as_parameter(tensor: Tensor, parameter: Tensor) -> Tensor:
    """The inverse of `in_memory_order`."""
    return tensor if parameter.is_contiguous() or not tensor.ndim else tensor.permute(0, 3, 1, 2)


def _in_group() -> bool:
    return td.is_initialized() and td.get_world_size() > 1


def load_strict(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load weights that must all be there and all fit.

    Raises:
        ValueError: names the first that does not.
    """
    own = net.state_dict()
    for name in sorted(own.keys() | state.keys()):
        ours, theirs = (tuple(s[name].shape) if name in s else "missing" for s in (own, state))
        if ours != theirs:
            raise ValueError(f"weights of another network: {name} is {theirs} in the file, {ours} in the network")
    net.load_state_dict(dict(state), assign=next(net.parameters()).is_meta)
