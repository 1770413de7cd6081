"""Instance features (Wang et al. 2018, section 3.4): gathered over a training set, clustered for each class, kept."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from p2p.data.augment import Augment
from p2p.data.dataset import DataSet
from p2p.data.epochs import Sequential
from p2p.data.reader import Batch, Holes, Stream
from p2p.data.views import View
from p2p.generator import Generator
from p2p.networks.encoder import instance_means, instance_rows
from p2p.spec import Spec
from p2p.strict import settings, validated

FILE = "clusters.json"
"""Beside the generator's file."""
CLUSTERS = 10
LARGE = 0.5
"""Least area of an instance that k-means sees, in 1/32 of the picture."""
CROWD = 1000
"""Cityscapes' rule: an instance is 1000 times its class and a number; what is less is a class without instances."""
PIXELS = 2**20
"""Of the pictures that are encoded at once, about."""
UNREADABLE = 1000
"""One in so many samples may be."""

Centres = dict[int, Tensor]
"""Of each class its clusters, float32 `[k,F]` in [-1, 1], that of the most instances first."""


class Instances(NamedTuple):
    """The n instances of `[N,1,H,W]`, picture by picture."""

    rows: Tensor
    """int64 `[N,H,W]`: which instance a pixel belongs to, 0 to n - 1."""
    ids: Tensor
    """int64 `[n]`: its number in its picture."""
    classes: Tensor
    """int64 `[n]`."""
    areas: Tensor
    """int64 `[n]`, pixels."""

    def spread(self, values: Tensor) -> Tensor:
        """`[n,F]` -> at each pixel those of its instance, `[N,F,H,W]`."""
        return values[self.rows].permute(0, 3, 1, 2)


class Gathered(NamedTuple):
    """The m instances of a class in a training set."""

    features: np.ndarray
    """float32 `[m,F]`: the mean of each."""
    areas: np.ndarray
    """float64 `[m]`: of each, in 1/32 of its picture."""


def find(view: View, batch: Mapping[str, Any]) -> Instances:
    """The instances of a batch of the reader. The class of one is that of most of its pixels; where x is no label map
    it is the instance's number, from 1000 on the thousands of it, as in Cityscapes."""
    instances = batch["instances"]
    rows, count = instance_rows(instances)
    used = torch.bincount(rows, minlength=count).nonzero().flatten()
    dense = torch.zeros(count, dtype=torch.int64, device=rows.device)
    dense[used] = torch.arange(len(used), device=rows.device)
    rows = dense[rows]
    ids = torch.zeros(len(used), dtype=torch.int64, device=rows.device)
    ids[rows] = instances.flatten().long()
    classes = torch.where(ids < CROWD, ids, ids // CROWD)
    if view.classes:
        votes = torch.bincount(rows * view.classes + batch["x"].flatten(), minlength=len(used) * view.classes)
        classes = votes.view(len(used), view.classes).argmax(1)
    N, _, H, W = instances.shape
    return Instances(rows.view(N, H, W), ids, classes, torch.bincount(rows, minlength=len(used)))


def every(
    spec: Spec, shards: DataSet, report: Callable[[str], None] = lambda line: None, *, threads: int = 2
) -> Iterable[Batch]:
    """Each sample of a set once, as validation would have it; `report` is told of unreadable ones.

    Raises:
        ValueError: more than one in a thousand cannot be read.
    """
    count, batch = sum(shards.counts), at_once(spec)
    augment = Augment(spec.crop if spec.resized else 0, spec.crop, mirror=False, train=False, masks=spec.view.masks)
    holes = Holes(count // UNREADABLE, report)
    return Stream(shards, Sequential(shards.counts), augment, holes, batch, threads=threads).batches(0, count)


def at_once(spec: Spec) -> int:
    """Pictures in a batch of `every`."""
    height, width = spec.size
    return max(1, PIXELS // (height * width))


def collect(generator: Generator, batches: Iterable[Mapping[str, Any]]) -> dict[int, Gathered]:
    """What the encoder makes of each instance of the reader's `batches`, by class.

    Raises:
        ValueError: the generator has no encoder, or there is no instance.
    """
    if generator.encoder is None:
        raise ValueError("this G was trained without features of instances; there is nothing to cluster")
    seen = [_gather(generator, batch) for batch in batches if len(batch["x"])]
    if not seen:
        raise ValueError("no pictures were given; instances cannot be clustered")
    classes, features, areas = (np.concatenate(part) for part in zip(*seen, strict=True))
    of_class = {int(c): classes == c for c in np.unique(classes)}
    return {c: Gathered(features[mine], areas[mine]) for c, mine in of_class.items()}


def _gather(generator: Generator, batch: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each instance its class, mean feature and area."""
    tensors = {name: v.to(generator.device) for name, v in batch.items() if isinstance(v, Tensor)}
    found = find(generator.spec.view, tensors)
    H, W = found.rows.shape[1:]
    pooled = generator.features_of(tensors)
    means = instance_means(pooled, found.rows.flatten(), len(found.ids)).T
    areas = found.areas.double() / max(H * W // 32, 1)
    return found.classes.cpu().numpy(), means.float().cpu().numpy(), areas.cpu().numpy()


def fit(gathered: Mapping[int, Gathered], clusters: int = CLUSTERS) -> Centres:
    """K-means for each class, of its instances that cover more than 1/64 of their picture; where a class has none of
    these, of its `clusters` largest. No class gets more clusters than it has different features.

    Raises:
        ValueError: scikit-learn is not installed.
    """
    k_means, centres = kmeans(), {}
    for number, of_class in gathered.items():
        values = of_class.features[large(of_class.areas, clusters)]
        k = min(clusters, len(np.unique(values, axis=0)))
        means = k_means(k, n_init=10, random_state=0).fit(values)
        order = np.argsort(-np.bincount(means.labels_, minlength=k), kind="stable")
        centres[number] = torch.from_numpy(means.cluster_centers_[order]).float().clamp(-1, 1)
    return centres


def kmeans() -> Any:
    """scikit-learn's KMeans.

    Raises:
        ValueError: it is not installed.
    """
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise ValueError("clusters of features need scikit-learn; run: pip install 'p2p[features]'") from error
    return KMeans


def large(areas: np.ndarray, clusters: int) -> np.ndarray:
    """Indices of the instances of a class that k-means sees, see `fit`."""
    found = np.flatnonzero(areas > LARGE)
    return found if len(found) else np.sort(np.argsort(-areas, kind="stable")[:clusters])


def write(folder: Path, centres: Centres, clusters: int = CLUSTERS) -> Path:
    """Write `folder/clusters.json`; `clusters` is what was asked for."""
    classes = {str(number): values.tolist() for number, values in sorted(centres.items())}
    features = next(iter(centres.values())).shape[1]
    path = folder / FILE
    aside = path.with_name(f".{FILE}.tmp")
    aside.write_text(json.dumps({"clusters": clusters, "features": features, "classes": classes}))
    os.replace(aside, path)
    return path


@settings
class _Stored:
    """The schema of the file."""

    clusters: Annotated[int, Field(ge=1)]
    features: Annotated[int, Field(ge=1)]
    classes: Annotated[
        dict[
            Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,9})$")],
            Annotated[list[list[Annotated[float, Field(ge=-1, le=1)]]], Field(min_length=1)],
        ],
        Field(min_length=1),
    ]


def read(folder: Path, features: int) -> Centres:
    """The clusters that lie beside a generator of so many `features`.

    Raises:
        ValueError: there are none, or the file is damaged or of another generator; names it.
    """
    path = folder / FILE
    if not path.is_file():
        raise ValueError(f"{path}: no such file; finish the training, or run python -m launch.cluster {folder}")
    try:
        stored = validated(_Stored, json.loads(path.read_text()))
        if any(len(values) != features for rows in stored.classes.values() for values in rows):
            raise ValueError(f"a cluster has not the {features} features of this generator")
        return {int(number): torch.tensor(rows) for number, rows in stored.classes.items()}
    except Exception as error:  # a damaged or hostile file may raise anything
        what = str(error).replace("\n", "; ")
        raise ValueError(f"{path}: no usable clusters ({what}); run python -m launch.cluster {folder}") from error
