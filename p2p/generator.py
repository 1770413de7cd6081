"""A trained G on its own: weights, what shapes it, and how it is to be used, in one safetensors file."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from pydantic import TypeAdapter
from safetensors import safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from p2p.checkpoint import newest
from p2p.config import Inference
from p2p.data.views import pixels, to_float, to_uint8
from p2p.engine import load_strict
from p2p.networks import NETWORKS
from p2p.networks.norm import GroupedBatchNorm, set_statistics
from p2p.strict import checked, validated

FILE = "generator.safetensors"


@dataclass(frozen=True)
class Spec:
    """What rebuilds a network, and what it was trained on."""

    name: str
    """Of the network, see `p2p.networks.NETWORKS`."""
    settings: Mapping[str, Any]
    """Keyword arguments of its constructor."""
    channels: tuple[int, ...]
    """In and, for a generator, out: of x and of y."""
    crop: int
    """Side of the pictures, pixels."""
    resized: bool = False
    """They were resized to this side or, with jitter, a little more; not cut out as they were."""
    reverse: bool = False
    """Trained y -> x, where the shards say x -> y."""

    def build(self, where: str = "G") -> nn.Module:
        """The network with its first weights; `where` it plays, G or D.

        Raises:
            ValueError: the name or a setting is unknown, or a value is none that the network takes.
        """
        networks = NETWORKS[where]
        if self.name not in networks:
            raise ValueError(f"{where}.name: no network '{self.name}'; there is {', '.join(networks)}")
        network = networks[self.name]
        settings = checked(network, dict(self.settings), where)
        try:
            return network(*self.channels, **settings)
        except ValueError as error:
            raise ValueError(f"{where}.{error}") from error


class Generator:
    """G in its inference mode: the same picture for the same x, whatever else is in the batch.

    Args:
        net: in training or evaluation mode; it is put into evaluation mode for each call.
        spec: what rebuilds it.
        inference: dropout and its seed, and which statistics its norms use.
    """

    def __init__(self, net: nn.Module, spec: Spec, inference: Inference) -> None:
        self.net, self.spec, self.inference = net, spec, inference

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        """`x` float `[N,C,H,W]` in [-1, 1], any H and W -> y `[N,C',H,W]` on the CPU or wherever G is.

        Sides that are no multiple of what the network needs are padded by their last row and column, and y is cut
        back to H x W.
        """
        H, W = x.shape[-2:]
        padded = F.pad(x.to(self.device), (0, self.padded(W) - W, 0, self.padded(H) - H), mode="replicate")
        training = self.net.training
        set_statistics(self.net.eval(), self.inference.statistics)
        try:
            return self.net(padded, self.noise(len(x)))[..., :H, :W].float()
        finally:
            self.net.train(training)

    def picture(self, image: Image.Image) -> Image.Image:
        """Translate one picture of any size and mode; transparent parts are taken for white."""
        upright = ImageOps.exif_transpose(image)
        y = self(to_float(pixels(upright, self.spec.channels[0])[None]))
        return Image.fromarray(to_uint8(y)[0].permute(1, 2, 0).squeeze(-1).cpu().numpy())

    def padded(self, side: int) -> int:
        """The side that the network gets for a picture of `side` pixels."""
        multiple = int(getattr(self.net, "size", 1))
        return -(-side // multiple) * multiple

    def noise(self, count: int) -> Tensor | None:
        """Keys of z: the same for every picture, so that a picture depends on nothing but itself and the seed."""
        if not self.inference.dropout:
            return None
        return torch.full((count,), self.inference.seed, dtype=torch.int64, device=self.device)

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Measure the running averages of every norm over `batches` of x: the mean of the statistics that its
        groups have in training mode. Needed for `inference.statistics` "running"; changes no weight. `sync` norms
        have gathered theirs in training."""
        norms = [m for m in self.net.modules() if isinstance(m, GroupedBatchNorm)]
        if not norms:
            return
        for module in norms:
            module.measured = []
        training = self.net.training
        self.net.train()
        for x in batches:
            self.net(x.to(self.device), self.noise(len(x)))
        self.net.train(training)
        for module in norms:
            means, variances = zip(*module.measured or [], strict=True)
            module.running_mean.copy_(torch.stack(means).mean(0))
            module.running_var.copy_(torch.stack(variances).mean(0))
            module.measured = None

    def save(self, path: str | Path) -> None:
        """Write one safetensors file; everything but the weights is JSON in its header."""
        Path(path).write_bytes(self.to_bytes())

    def to_bytes(self) -> bytes:
        """What `save` writes."""
        about = {"spec": asdict(self.spec), "inference": TypeAdapter(Inference).dump_python(self.inference)}
        weights = {name: t.detach().contiguous() for name, t in self.net.state_dict().items()}
        return to_safetensors(weights, metadata={"p2p": json.dumps(about)})


def load(path: str | Path, device: torch.device | str = "cpu") -> Generator:
    """Load a generator from its file, a checkpoint folder, or a run folder (the newest checkpoint).

    Raises:
        ValueError: there is none, or it is damaged; names the file.
    """
    file = find(Path(path))
    try:
        with safe_open(file, "pt") as opened:
            about = json.loads((opened.metadata() or {})["p2p"])
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        spec = validated(Spec, about["spec"])
        inference = validated(Inference, about["inference"])
        if len(spec.channels) != 2:
            raise ValueError(f"spec.channels: {spec.channels} are not those of x and y")
        with torch.device("meta"):  # shapes alone, so that a header cannot ask for memory
            net = spec.build()
        load_strict(net, weights)
    except Exception as error:  # a damaged or hostile header may raise anything
        what = f"no {error} in its header" if isinstance(error, KeyError) else str(error).replace("\n", "; ")
        raise ValueError(f"{file}: no usable generator ({what}); it was cut short, or is none of ours") from error
    return Generator(net.to(device).eval(), spec, inference)


def find(path: Path) -> Path:
    """The generator file of a run folder, a checkpoint folder, or itself.

    Raises:
        ValueError: there is none.
    """
    if path.is_dir() and (path / "checkpoints").is_dir():
        path = newest(path) or path
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"{file}: no such file; give a run folder, a checkpoint folder or a {FILE}")
    return file
