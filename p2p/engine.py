"""An engine: one optimiser with its network, however it is distributed."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from p2p import dist
from p2p.adam import Adam
from p2p.exact import FixedPoint
from p2p.forward import Forward

BUCKETS: dict[str, Any] = {"bucket_cap_mb_list": [1, 25]}
"""DDP's usual buckets, MB. It would cut them in the second call of its own forward, which is never called here; without
them a network is one bucket, which waits for the end of the backward."""
HAS_BUCKETS = "bucket_cap_mb_list" in inspect.signature(DistributedDataParallel).parameters  # since torch 2.14

Reduction = Literal["fast", "exact"]


class Engine(Forward):
    """A network that can be called, trained and stored; alone or, in a process group, under DDP.

    Its weights that need no gradient are constants. Those of one part, that is of one list of beginnings of names in
    `parts`, are a parameter group of Adam: they learn, and have learnt, together.

    Args:
        net: put into training mode. An `nn.ModuleDict` holds several networks that share the optimiser; each is called
            by itself, see `networks`.
        lr, betas: of Adam (Isola et al. 2017, section 3.3).
        parts: see above; what is in none is a group of its own.
        reduction: how gradients are summed over micro-batches and ranks. `exact`: in fixed point, so that the bits of
            the weights are the same for any number of ranks; see `p2p.exact`.
        settings: see `Forward`.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        parts: Sequence[tuple[str, ...]] = (),
        reduction: Reduction = "fast",
        **settings: Any,
    ) -> None:
        super().__init__(net.train(), **settings)
        self.settings = settings
        self.parameters = {name: p for name, p in net.named_parameters() if p.requires_grad}
        self.groups = grouped(list(self.parameters), parts)
        self.resting: dict[str, Tensor] = {}
        """Adam's moments of weights that do not learn now, as `state` has them."""
        self.base_lr = lr
        self._distribute(lr, betas, reduction)
        # The first layer's gradient is the last of a backward, and is there before the ranks wait for each other.
        busy = self.busy  # not self: no collector sees a hook, and the engine would never end
        next(iter(self.parameters.values())).register_post_accumulate_grad_hook(lambda p: busy.stop())

    def _distribute(self, lr: float, betas: tuple[float, float], reduction: Reduction) -> None:
        """Make the optimiser, and whatever sums gradients over ranks."""
        self.net.to(memory_format=self.format)
        self.ordered = {name: in_memory_order(p, p).detach() for name, p in self.parameters.items()}
        self.optimizer = Adam([{"params": [self.ordered[n] for n in names]} for names in self.groups], lr, betas)
        for parameter in self.net.parameters():
            dist.broadcast(in_memory_order(parameter, parameter).detach())
        self.exact = FixedPoint(self.parameters.values()) if reduction == "exact" else None
        self.ddp: Any = None
        if dist.joined() > 1 and not self.exact:
            # A turn may leave out one of several networks; DDP would wait for its gradients for ever.
            several = isinstance(self.net, nn.ModuleDict)
            self.ddp = DistributedDataParallel(
                self.net, find_unused_parameters=several, **(BUCKETS if HAS_BUCKETS else {})
            )

    @property
    def engine(self) -> "Engine":
        """Itself."""
        return self

    def networks(self) -> "dict[str, SharedNetwork]":
        """The networks of an `nn.ModuleDict` by name, each to be called as this engine's settings say."""
        assert isinstance(self.net, nn.ModuleDict)
        return {name: SharedNetwork(self, net) for name, net in self.net.items()}

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
            self.ddp.reducer.prepare_for_backward([loss] if isinstance(self.net, nn.ModuleDict) else [])
        (loss * dist.joined()).backward()  # DDP takes the mean over ranks

    def step(self, *, measure: bool = False) -> Tensor | None:
        """Update the weights and clear the gradients; returns the gradient's norm where it is asked for. A weight that
        no loss of the turn depends on has the gradient 0.

        Raises:
            ValueError: on several ranks, a network that is alone with its optimiser has such a weight.
        """
        if self.exact:
            self.exact.reduce()
        missing = [name for name, parameter in self.parameters.items() if parameter.grad is None]
        if missing and self.ddp is not None and not isinstance(self.net, nn.ModuleDict):
            # DDP was still waiting for it when the backward ended, and has reduced less than it should.
            raise ValueError(
                f"{type(self.net).__name__}: no loss of the turn depends on its weight {missing[0]}, which several"
                " ranks cannot sum up; leave the weight out, or have each turn use it"
            )
        for name in missing:
            self.parameters[name].grad = torch.zeros_like(self.parameters[name])
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
        return weights | moments | self.resting

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
        self.rest(state)

    def rest(self, state: Mapping[str, Tensor]) -> None:
        """Keep the moments in `state` of weights that do not learn now."""
        still = {name for name, p in self.net.named_parameters() if not p.requires_grad}
        self.resting = {n: t.cpu() for n, t in state.items() if n.startswith("adam/") and parameter_of(n) in still}

    def _like(self, tensor: Tensor, parameter: Tensor) -> Tensor:
        if not tensor.ndim:
            return tensor.to(self.device, copy=True)
        return in_memory_order(torch.empty_like(parameter).copy_(tensor), parameter).detach()


class SharedNetwork(Forward):
    """One of several networks that an engine updates together."""

    def __init__(self, engine: Engine, net: nn.Module) -> None:
        super().__init__(net, **engine.settings)
        self.busy = engine.busy
        self._engine = engine

    @property
    def engine(self) -> Engine:
        """What updates it, and the others."""
        return self._engine


def engines_of(nets: Mapping[str, Forward]) -> dict[str, Engine]:
    """The engines of networks, each once, called as its first network."""
    found: dict[str, Engine] = {}
    for name, net in nets.items():
        if net.engine is not None and all(net.engine is not engine for engine in found.values()):
            found[name] = net.engine
    return found


def grouped(names: Sequence[str], parts: Sequence[tuple[str, ...]]) -> list[list[str]]:
    """The names of each part that has any, and of none, in order."""
    of = [next((at for at, part in enumerate(parts) if name.startswith(part)), -1) for name in names]
    return [[name for name, at in zip(names, of, strict=True) if at == number] for number in sorted(set(of))]


def parameter_of(name: str) -> str:
    """Of `net/NAME` and `adam/NAME/KEY`: NAME."""
    kind, _, rest = name.partition("/")
    return rest if kind == "net" else rest.rpartition("/")[0]


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
