"""An engine whose optimiser is sharded over the ranks by DeepSpeed's ZeRO; the mathematics stay ours."""

import logging
import warnings
from collections.abc import Mapping
from contextlib import ExitStack, redirect_stdout
from io import StringIO
from typing import Any, Literal

import torch
from torch import Tensor, nn

from p2p import dist
from p2p.adam import Adam
from p2p.engine import Engine, Reduction, load_strict

Stage = Literal[0, 1, 2]
MOMENTS = "exp_avg", "exp_avg_sq"


class ZeRO(Engine):
    """An `Engine` that DeepSpeed distributes (Rajbhandari et al. 2020, arXiv 1910.02054).

    DeepSpeed shards Adam's state (stage 1) and the gradients (stage 2). Precision, learning rate, averages and
    checkpoints are the same as everywhere, so that changing the engine changes memory and speed only; a checkpoint
    holds whole tensors by name, so that any engine on any number of ranks goes on with it.

    Args:
        stage: 0 shards nothing, 1 Adam's state, 2 the gradients too.
        offload: keep Adam's state, and compute its step, on the CPU; stages 1 and 2.
        settings: see `Engine`.
    """

    def __init__(self, net: nn.Module, *, stage: Stage = 1, offload: bool = False, **settings: Any) -> None:
        self.stage, self.offload = stage, offload
        self.open = ExitStack()
        super().__init__(net, **settings)

    def _distribute(self, lr: float, betas: tuple[float, float], reduction: Reduction) -> None:
        import deepspeed  # brings a compiler on a CPU: only for those who use it

        assert reduction == "fast"
        self.exact = self.ddp = None
        self.of = {name: at for at, names in enumerate(self.groups) for name in names}
        self.optimizer = Adam([{"params": [self.parameters[n] for n in names]} for names in self.groups], lr, betas)
        config = settings(self.stage, self.offload)
        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", message=".*all_gather_into_tensor", category=FutureWarning)
        with redirect_stdout(StringIO()):  # its notices
            self.zero, *_ = deepspeed.initialize(
                model=self.net, optimizer=self.optimizer, config=config, dist_init_required=False
            )

    def backward(self, loss: Tensor, *, last: bool = True) -> None:
        """As `Engine.backward`. Micro-batches before the last stay on their rank, in stage 2 too."""
        self.busy.start()
        if self.offload and isinstance(self.net, nn.ModuleDict):
            # The copy on the CPU keeps the gradients of the last turn of a network that this one leaves out.
            loss = loss + sum((weight * 0).sum() for weight in self.parameters.values())
        if self.stage == 0:
            self.zero.set_gradient_accumulation_boundary(last)
        elif not last and not self.zero.inside_no_sync_ctxt:
            self.open.enter_context(self.zero.coalesce_grad_reduction())
        self.zero.backward(loss * dist.joined())
        if last:
            self.open.close()

    def step(self, *, measure: bool = False) -> Tensor | None:
        """As `Engine.step`."""
        if not self.stage:  # the others take what is missing for 0 themselves
            for parameter in self.parameters.values():
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        norm = self._norm() if measure and not self.stage else None
        self.zero.step()
        return torch.as_tensor(self.zero.get_global_grad_norm()) if measure and self.stage else norm

    def state(self) -> dict[str, Tensor]:
        """As `Engine.state`; every rank must ask."""
        weights = {f"net/{name}": tensor for name, tensor in self.net.state_dict().items()}
        moments: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            moments[f"adam/{name}/step"] = self._adam(name)["step"]
            moments |= {f"adam/{name}/{key}": self._gathered(name, parameter, key) for key in MOMENTS}
        return weights | moments | self.resting

    def load(self, state: Mapping[str, Tensor]) -> None:
        """As `Engine.load`."""
        load_strict(self.net, {name[4:]: t for name, t in state.items() if name.startswith("net/")})
        if self.stage:
            self.zero.optimizer.refresh_fp32_params()
        for name, parameter in self.parameters.items():
            adam = self._adam(name)
            if f"adam/{name}/step" in state:
                adam["step"].copy_(state[f"adam/{name}/step"])
                for key in MOMENTS:
                    for mine, whole in self._fragment(parameter, adam[key], state[f"adam/{name}/{key}"]):
                        mine.copy_(whole)
        self.rest(state)

    def _adam(self, name: str) -> dict[str, Tensor]:
        """Adam's state of the tensor that holds a parameter, or of this rank's shard of its group."""
        shards = self.zero.optimizer.single_partition_of_fp32_groups if self.stage else []
        return self.optimizer.moments(shards[self.of[name]] if self.stage else self.parameters[name])

    def _gathered(self, name: str, parameter: nn.Parameter, key: str) -> Tensor:
        """A moment, put together from the shards."""
        moments = self._adam(name)[key]
        if not self.stage:
            return moments
        whole = torch.zeros_like(parameter, memory_format=torch.contiguous_format)
        for mine, place in self._fragment(parameter, moments, whole):
            place.copy_(mine)
        return dist.total(whole)

    def _fragment(self, parameter: nn.Parameter, shard: Tensor, whole: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Where a parameter lies in this rank's shard, and in itself; nowhere where others hold all of it."""
        if not self.stage:
            return [(shard, whole)]
        mapping = parameter._hp_mapping  # type: ignore[attr-defined]
        if mapping is None:
            return []
        ours, own = mapping.hp_fragment_address, mapping.lp_fragment_address
        return [(shard.narrow(0, ours.start, ours.numel), whole.flatten().narrow(0, own.start, own.numel))]


def settings(stage: Stage, offload: bool) -> dict[str, Any]:
    """What DeepSpeed is told: to shard, and nothing else."""
    # One part of the gradients to each owner; by default all of them go to everybody, half as much again.
    zero: dict[str, Any] = {"stage": stage, "use_multi_rank_bucket_allreduce": False}
    if offload:
        zero["offload_optimizer"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": zero,
        "gradient_clipping": 0.0,  # its default of 1.0 would scale G's gradients, whose loss weighs 100
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
