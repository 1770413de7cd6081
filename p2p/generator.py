"""A trained G on its own: weights, what shapes it, and how it is to be used, in one safetensors file."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
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
from p2p.data.views import pixels, to_uint8
from p2p.engine import load_strict
from p2p.networks.encoder import pooled
from p2p.networks.network import least_side, multiple_of
from p2p.networks.norm import Statistics, grouped_norms, set_statistics
from p2p.spec import FILE, Spec, file_of
from p2p.strict import validated

MARGIN = 8
"""Pixels around a changed part in which it fades into what was there; even."""


class Generator:
    """G in its inference mode: the same picture for the same x, whatever else is in the batch.

    Args:
        net: in training or evaluation mode; it is put into evaluation mode for each call. With an encoder, an
            `nn.ModuleDict` of G and E.
        spec: what rebuilds it.
        inference: dropout and its seed, and which statistics its norms use.
    """

    def __init__(self, net: nn.Module, spec: Spec, inference: Inference) -> None:
        self.net, self.spec, self.inference = net, spec, inference
        self.multiple, self.least = multiple_of(net), least_side(net)

    @property
    def network(self) -> nn.Module:
        """G, without the encoder beside it."""
        return self.net.get_submodule("G") if self.spec.encoder else self.net

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
        with self._evaluating(statistics):
            made: Tensor = self.network(self._pad(seen), self.noise(len(seen)))
            return made.float()

    @property
    def encoder(self) -> Any:
        """E, where G was trained with one; see `p2p.networks.network.EncoderNetwork`."""
        return self.net.get_submodule("E") if self.spec.encoder else None

    @torch.inference_mode()
    def encode(self, y: Tensor, instances: Tensor) -> Tensor:
        """The features of real pictures: `y` float `[N,C,H,W]` as the view has it, `instances` `[N,1,H,W]` ->
        `[N,F,H,W]`."""
        assert self.encoder is not None
        H, W = y.shape[-2:]
        with self._evaluating(self.inference.statistics):
            maps = self.encoder.maps(self._pad(y.to(self.device)))[..., :H, :W]
        return pooled(maps.float(), instances.to(self.device))

    def of(self, batch: Mapping[str, Any]) -> Tensor:
        """Pictures of a batch of the reader, float `[N,C,H,W]` in [-1, 1]; features are those of its own y."""
        seen = self._encoded(batch)
        made = self(seen["x"], self.encode(seen["y"], seen["instances"]) if self.encoder else None)
        return self.spec.view.decode(made, seen["x"])

    def features_of(self, batch: Mapping[str, Any]) -> Tensor:
        """The features of the y of a batch of the reader, `[N,F,H,W]`."""
        seen = self._encoded(batch)
        return self.encode(seen["y"], seen["instances"])

    def _encoded(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A batch of the reader as the networks see it, on their device."""
        return self.spec.view.encode({name: v.to(self.device) for name, v in batch.items() if isinstance(v, Tensor)})

    def picture(self, image: Image.Image) -> Image.Image:
        """Translate one picture of any size and mode; transparent parts are taken for white.

        Raises:
            ValueError: G wants more than a picture: labels, instances or features.
        """
        if self.spec.view.classes or self.spec.members != {"x"}:
            raise ValueError("G wants label maps, instances or features; give them as tensors to G(x, features)")
        upright = ImageOps.exif_transpose(image)
        made = self.of({"x": pixels(upright, self.spec.pictures[0])[None]})
        return Image.fromarray(to_uint8(made)[0].permute(1, 2, 0).squeeze(-1).cpu().numpy())

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
        return -(-max(side, self.least) // self.multiple) * self.multiple

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
        norms = grouped_norms(self.net)
        if not norms:
            return
        for module in norms:
            module.measured = []
        training = self.net.training
        self.net.train()
        for batch in batches:
            seen = self._encoded(batch)
            x = seen["x"]
            if self.encoder:
                x = torch.cat([x, self.encoder(seen["y"], seen["instances"]).to(x.dtype)], 1)
            self.network(x, self.noise(len(x)))
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
        about = {"spec": self.spec.to_tree(), "inference": TypeAdapter(Inference).dump_python(self.inference)}
        weights = {name: t.detach().contiguous() for name, t in self.net.state_dict().items()}
        return to_safetensors(weights, metadata={"p2p": json.dumps(about)})


def load(path: str | Path, device: torch.device | str = "cpu", name: str = "") -> Generator:
    """Load a generator from its file, a checkpoint folder, or a run folder (the newest checkpoint). `name` chooses
    among several that a task keeps; empty: its first.

    Raises:
        ValueError: there is none, or it is damaged; names the file.
    """
    file = find(Path(path), name)
    try:
        with safe_open(file, "pt") as opened:
            about = json.loads((opened.metadata() or {})["p2p"])
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        spec = Spec.from_tree(about["spec"])
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


def _kept_as(file: Path) -> str:
    """What the task calls the generator of a file; empty where it cannot be read."""
    try:
        with safe_open(file, "pt") as opened:
            return str(json.loads((opened.metadata() or {})["p2p"])["spec"].get("kept_as", "G"))
    except Exception:  # `load` says what is wrong with it
        return ""


def find(path: Path, name: str = "") -> Path:
    """The generator file of a run folder, a checkpoint folder, or itself; see `load`.

    Raises:
        ValueError: there is none.
    """
    if path.is_dir() and (path / "checkpoints").is_dir():
        path = newest(path) or path
    if name and not path.is_dir():
        raise ValueError(f"{path}: is one generator, and {name} was asked for; give a run or checkpoint folder")
    file = path / file_of(name) if path.is_dir() else path
    if name and not file.is_file() and _kept_as(path / FILE) == name:
        return path / FILE
    if not file.is_file():
        others = ", ".join(sorted(p.name for p in path.glob("generator*.safetensors"))) if name else ""
        here = f"; there is {others}" if others else ""
        raise ValueError(f"{file}: no such file; give a run folder, a checkpoint folder or a {FILE}{here}")
    return file
