"""Adam whose update of a weight does not depend on the tensor that the weight lies in."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LANES = 16
"""float32 numbers in the widest CPU register."""


class Adam(torch.optim.Adam):
    """PyTorch's fused Adam, with the same bits for any cut of the weights into tensors.

    The CPU kernel takes what is left beyond a multiple of its register by a path of its own, which rounds otherwise
    now and then. ZeRO cuts the weights elsewhere than we do, so those few are moved into a whole register here.
    """

    def __init__(self, params: Any, lr: float, betas: tuple[float, float]) -> None:
        super().__init__(params, lr=lr, betas=betas, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every weight that has a gradient."""
        weights = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        if any(p.device.type != "cpu" for p, _ in weights):
            super().step(closure)
            return
        for p, group in weights:
            update(p, self.moments(p), group)

    def moments(self, p: Tensor) -> dict[str, Tensor]:
        """The state of a weight, zeros where it was never updated."""
        if not self.state[p]:
            self.state[p] |= {
                "step": torch.zeros((), device=p.device),
                "exp_avg": torch.zeros_like(p),
                "exp_avg_sq": torch.zeros_like(p),
            }
        return self.state[p]


def update(p: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    """One step of a contiguous weight on the CPU."""
    assert p.grad is not None
    state["step"] += 1
    flat = [t.view(-1) for t in (p.detach(), p.grad, state["exp_avg"], state["exp_avg_sq"])]
    whole = p.numel() - p.numel() % LANES
    fused([t[:whole] for t in flat], state["step"], group)
    if whole < p.numel():
        rest = [F.pad(t[whole:], (0, LANES - p.numel() % LANES)) for t in flat]
        fused(rest, state["step"], group)
        for old, new in zip(flat, rest, strict=True):
            old[whole:] = new[: p.numel() - whole]


def fused(flat: list[Tensor], step: Tensor, group: dict[str, Any]) -> None:
    """PyTorch's kernel on `[weight, gradient, first moment, second moment]`."""
    beta1, beta2 = group["betas"]
    p, grad, m, v = ([t] for t in flat)
    torch._fused_adam_(
        p, grad, m, v, [], [step], lr=group["lr"], beta1=beta1, beta2=beta2, eps=group["eps"],
        weight_decay=0.0, amsgrad=False, maximize=False,
    )  # fmt: skip
