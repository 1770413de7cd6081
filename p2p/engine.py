"""An engine: one optimiser with its network, however it is distributed."""

import inspect
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from p2p import dist
from p2p.adam import Adam
from p2p.exact import FixedPoint
from p2p.watch import Stopwatch

BUCKETS: dict[str, Any] = {"bucket_cap_mb_list": [1, 25]}
"""DDP's usual buckets, MB. It would cut them in the second call of its own forward, which is never called here; without
them a network is one bucket, which waits for the end of the backward."""
HAS_BUCKETS = "bucket_cap_mb_list" in inspect.signature(DistributedDataParallel).parameters  # since torch 2.14

Precision = Literal["fp32", "bf16"]
Reduction = Literal["fast", "exact"]


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
        reduction: how gradients are summed over micro-batches and ranks. `exact`: in fixed point, so that the bits of
            the weights are the same for any number of ranks; see `p2p.exact`.
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
        reduction: Reduction = "fast",
    ) -> None:
        self.device = torch.device(device)
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.net = net.to(self.device).train()
        self.parameters = dict(net.named_parameters())
        self.base_lr, self.precision, self.recompute = lr, precision, recompute
        self._forward: Any = torch.compile(self.net) if compile else self.net
        self._distribute(lr, betas, reduction)
        self.busy = Stopwatch(self.device)
        # The first layer's gradient is the last of a backward, and is there before the ranks wait for each other.
        next(net.parameters()).register_post_accumulate_grad_hook(lambda p: self.busy.stop())

    def _distribute(self, lr: float, betas: tuple[float, float], reduction: Reduction) -> None:
        """Make the optimiser, and whatever sums gradients over ranks."""
        self.net.to(memory_format=self.format)
        self.ordered = {name: in_memory_order(p, p).detach() for name, p in self.parameters.items()}
        self.optimizer = Adam(self.ordered.values(), lr, betas)
        for tensor in self.ordered.values():
            dist.broadcast(tensor)
        self.exact = FixedPoint(self.parameters.values()) if reduction == "exact" else None
        self.ddp: Any = None
        if dist.joined() > 1 and not self.exact:
            self.ddp = DistributedDataParallel(self.net, **(BUCKETS if HAS_BUCKETS else {}))

    def __call__(self, *args: Any) -> Tensor:
        """Forward; the result is float32 (float64 for a float64 network)."""
        args = tuple(self._placed(arg) for arg in args)
        self.busy.start()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            if self.recompute and torch.is_grad_enabled():
                out = checkpoint(self._forward, *args, use_reentrant=False, preserve_rng_state=False)
            else:
                out = self._forward(*args)
        self.busy.stop()
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
        """Add the gradients of `loss`, this rank's share of the loss of a step; with the `last` one before the step
        they are summed over the ranks.

        The reducer is armed here and not, as DDP's own forward does it, with the forward: in a game of several
        networks a forward may lie turns before its backward. So there is one reduction a network and step,
        overlapped with this backward, and micro-batches before the last are added up without any traffic.
        """
        self.busy.start()
        if self.exact:
            loss.backward()
            self.exact.add()
            return
        if self.ddp is not None and last:
            self.ddp.reducer.prepare_for_backward([])
        (loss * dist.joined()).backward()  # DDP takes the mean over ranks

    def step(self, *, measure: bool = False) -> Tensor | None:
        """Update the weights and clear the gradients; returns the gradient's norm where it is asked for."""
        if self.exact:
            self.exact.reduce()
        norm = self._norm() if measure else None
        for name, parameter in self.parameters.items():
            grad, parameter.grad = parameter.grad, None
            self.ordered[name].grad = None if grad is None else in_memory_order(grad, parameter)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def _norm(self) -> Tensor:
        norms = [p.grad.norm() for p in self.parameters.values() if p.grad is not None]
        return torch.stack(norms).norm()

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
            return tensor.to(self.device, copy=True)
        return in_memory_order(torch.empty_like(parameter).copy_(tensor), parameter).detach()


def in_memory_order(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A view of `tensor` in the order in which `parameter` lies in memory, NHWC for channels_last. Fused Adam on the
    CPU copies whatever is not contiguous; on views it is four times as fast."""
    return tensor if parameter.is_contiguous() else tensor.permute(0, 2, 3, 1)


def as_parameter(tensor: Tensor, parameter: Tensor) -> Tensor:
    """The inverse of `in_memory_order`."""
    return tensor if parameter.is_contiguous() or not tensor.ndim else tensor.permute(0, 3, 1, 2)


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
