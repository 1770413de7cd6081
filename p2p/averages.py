"""Exponential averages of the weights of generators, whose half-life is counted in images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from p2p import checkpoint
from p2p.engine import Engine
from p2p.experiment import Experiment


class Averages:
    """An average of each optimiser that updates a generator; none where `ema.half_life` is 0. It begins as the engine's
    weights are now."""

    def __init__(self, experiment: Experiment, engines: Mapping[str, Engine]) -> None:
        self.optimizers, self.engines = experiment.optimizers, engines
        self.models: dict[str, AveragedModel] = {}
        half_life, batch = experiment.config.ema.half_life, experiment.config.data.batch
        if half_life:
            average = get_ema_multi_avg_fn(0.5 ** (batch / half_life))
            for name in experiment.generator_optimizers:
                self.models[name] = AveragedModel(engines[name].net, multi_avg_fn=average)

    def update(self) -> None:
        """Take in the weights after a step."""
        for name, model in self.models.items():
            model.update_parameters(self.engines[name].net)

    def network(self, name: str) -> nn.Module:
        """A network with its averaged weights, or with its own where there is no average of it."""
        optimizer, names = next((o, names) for o, names in self.optimizers.items() if name in names)
        net = self.models[optimizer].module if optimizer in self.models else self.engines[optimizer].net
        return net.get_submodule(name) if len(names) > 1 else net

    def state(self) -> dict[str, dict[str, Tensor]]:
        """What goes into a checkpoint, by name of the file: `ema`, of a further optimiser `ema_NAME`."""
        return {file: model.state_dict() for file, model in self._files().items()}

    def load(self, path: Path, state: Mapping[str, Any]) -> None:
        """Go on with what a checkpoint holds; where it holds none, or that of a smaller network, an average begins
        anew."""
        for file, model in self._files().items():
            if f"{file}.safetensors" in state["files"]:
                stored = checkpoint.read_tensors(path, file, state)
                own = {name: tensor.shape for name, tensor in model.state_dict().items()}
                if own == {name: tensor.shape for name, tensor in stored.items()}:
                    model.load_state_dict(stored)

    def _files(self) -> dict[str, AveragedModel]:
        return {f"ema_{name}" if at else "ema": model for at, (name, model) in enumerate(self.models.items())}
