"""A trained G on its own: weights, what shapes it, and how it is to be used, in one safetensors file."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
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
from p2p.data.views import View, pixels, to_float, to_uint8
from p2p.engine import load_strict
from p2p.networks.encoder import Encoder, Told, pooled
from p2p.networks.norm import GroupedBatchNorm, Statistics, set_statistics
from p2p.spec import Spec
from p2p.strict import validated

FILE = "generator.safetensors"
MARGIN = 8
"""Pixels around a changed part in which it fades into what was there; even."""


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
    def __call__(self, x: Tensor, features: Tensor | None = None) -> Tensor:
        """`x` float `[N,C,H,W]` as the view has it, pictures in [-1, 1], any H and W; `features` `[N,F,H,W]` where G
        was trained with an encoder -> y `[N,C',H,W]` on the CPU or wherever G is.

        Sides that are no multiple of what the network needs are padded by their last row and column, and y is cut
        back to H x W.

        Raises:
            ValueError: features are missing, or there are none to be used.
        """
        if (features is None) == (self.encoder is not None):
            raise ValueError("G was trained with features, and got none" if self.encoder else "G knows no features")
        H, W = x.shape[-2:]
        seen = x.to(self.device)
        if features is not None:
            seen = torch.cat([seen, features.to(seen)], 1)
        return self._make(seen, self.inference.statistics)[..., :H, :W]

    @torch.inference_mode()
    def changed(self, x: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """One picture `x` `[1,C,H,W]` with features `after`, where only some differ from `before`, both `[1,F,H,W]`:
        the new one where they differ, the one before elsewhere, and within `MARGIN` pixels something between. Norms
        that measure the picture measure the one before for both, so that they fit together."""
        H, W = x.shape[-2:]
        seen = torch.cat([x.to(self.device).expand(2, -1, -1, -1), torch.cat([before, after]).to(self.device)], 1)
        statistics: Statistics = "running" if self.inference.statistics == "running" else "first"
        old, new = self._make(seen, statistics)[..., :H, :W].split(1)
        mask = F.pad((before != after).any(1, keepdim=True).to(old), (MARGIN,) * 4, mode="replicate")
        soft = F.avg_pool2d(F.max_pool2d(mask, MARGIN + 1, 1), MARGIN + 1, 1)
        return torch.lerp(old, new, soft)

    def _make(self, seen: Tensor, statistics: Statistics) -> Tensor:
        G = self.net.G if isinstance(self.net, Told) else self.net
        with self._evaluating(statistics):
            made: Tensor = G(self._pad(seen), self.noise(len(seen)))
            return made.float()

    @property
    def encoder(self) -> Encoder | None:
        """E, where G was trained with one."""
        return self.net.E if isinstance(self.net, Told) else None

    @torch.inference_mode()
    def encode(self, y: Tensor, instances: Tensor) -> Tensor:
        """The features of real pictures: `y` float `[N,C,H,W]` in [-1, 1], `instances` `[N,1,H,W]` -> `[N,F,H,W]`."""
        assert self.encoder is not None
        H, W = y.shape[-2:]
        with self._evaluating(self.inference.statistics):
            maps = self.encoder.maps(self._pad(y.to(self.device)))[..., :H, :W]
        return pooled(maps.float(), instances.to(self.device))

    def of(self, batch: Mapping[str, Any]) -> Tensor:
        """Translate a batch of the reader; features are those of its own y."""
        seen = self.spec.view({name: v.to(self.device) for name, v in batch.items() if isinstance(v, Tensor)})
        return self(seen["x"], self.encode(seen["y"], seen["instances"]) if self.encoder else None)

    def picture(self, image: Image.Image) -> Image.Image:
        """Translate one picture of any size and mode; transparent parts are taken for white.

        Raises:
            ValueError: G wants more than a picture: labels, instances or features.
        """
        if self.spec.view != View() or self.encoder:
            raise ValueError("G wants label maps, instances or features; give them as tensors to G(x, features)")
        upright = ImageOps.exif_transpose(image)
        y = self(to_float(pixels(upright, self.spec.pictures[0])[None]))
        return Image.fromarray(to_uint8(y)[0].permute(1, 2, 0).squeeze(-1).cpu().numpy())

    @contextmanager
    def _evaluating(self, statistics: Statistics) -> Iterator[None]:
        training = self.net.training
        set_statistics(self.net.eval(), statistics)
        try:
            yield
        finally:
            self.net.train(training)

    def _pad(self, x: Tensor) -> Tensor:
        H, W = x.shape[-2:]
        right, below = self.padded(W) - W, self.padded(H) - H
        return F.pad(x, (0, right, 0, below), mode="replicate") if right or below else x

    def padded(self, side: int) -> int:
        """The side that the network gets for a picture of `side` pixels."""
        multiple = int(getattr(self.net, "size", 1))
        return max(-(-side // multiple) * multiple, int(getattr(self.net, "least", 1)))

    def noise(self, count: int) -> Tensor | None:
        """Keys of z: the same for every picture, so that a picture depends on nothing but itself and the seed."""
        if not self.inference.dropout:
            return None
        return torch.full((count,), self.inference.seed, dtype=torch.int64, device=self.device)

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Measure the running averages of every norm over `batches` of the reader: the mean of the statistics that its
        groups have in training mode. Needed for `inference.statistics` "running"; changes no weight. `sync` norms
        have gathered theirs in training."""
        norms = [m for m in self.net.modules() if isinstance(m, GroupedBatchNorm)]
        if not norms:
            return
        for module in norms:
            module.measured = []
        training = self.net.training
        self.net.train()
        for batch in batches:
            seen = self.spec.view({name: v.to(self.device) for name, v in batch.items() if isinstance(v, Tensor)})
            told = (seen["y"], seen["instances"]) if self.encoder else ()
            self.net(seen["x"], self.noise(len(seen["x"])), *told)
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
        if any(len(net.channels) != 2 for net in (spec, spec.encoder) if net):
            raise ValueError(f"spec.channels: {spec.channels} are not those in and out")
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
