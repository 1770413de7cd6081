"""What G is told of the instances of a picture: the features of its photograph, or clusters, drawn or chosen."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from p2p.data import keyed
from p2p.features import Centres, Instances, find
from p2p.generator import Generator

CLUSTER = 31
"""What a random number is for; see `p2p.data.augment` for the others."""


def sampled(found: Instances, centres: Centres, *, seed: int, key: str) -> Tensor:
    """A cluster for each instance of a picture, each of its class as likely as the others: a function of the seed, the
    picture's `key` and the instance's number alone.

    Returns:
        Feature maps `[1,F,H,W]`; 0 in classes without clusters.
    """
    name = int.from_bytes(hashlib.sha256(key.encode(errors="surrogatepass")).digest()[:8])
    return _spread(found, centres, keyed.key(seed, CLUSTER, name, found.ids.cpu().numpy()))


def chosen(found: Instances, centres: Centres, number: int | Mapping[int, int]) -> Tensor:
    """For each instance the cluster of this number, or of the number that its class has here (0 if none), modulo how
    many its class has; returns as `sampled`."""
    of_class = number if isinstance(number, Mapping) else dict.fromkeys(centres, number)
    return _spread(found, centres, np.array([of_class.get(c, 0) for c in found.classes.tolist()], np.uint64))


def _spread(found: Instances, centres: Centres, numbers: np.ndarray) -> Tensor:
    """Feature maps of a cluster for each instance, by number."""
    zeros = torch.zeros(next(iter(centres.values())).shape[1])
    each = zip(found.classes.tolist(), numbers.tolist(), strict=True)
    values = [centres[c][number % len(centres[c])] if c in centres else zeros for c, number in each]
    return found.spread(torch.stack(values).to(found.rows.device))


def edit(features: Tensor, instances: Tensor, instance: int, value: Tensor) -> Tensor:
    """`features` `[N,F,H,W]` with `value` `[F]` in one instance of `instances` `[N,1,H,W]`, and nothing else changed.

    Raises:
        ValueError: there is no such instance.
    """
    mine = instances == instance
    if not mine.any():
        raise ValueError(f"there is no instance {instance}")
    return torch.where(mine, value.to(features).view(1, -1, 1, 1), features)


@dataclass
class Teller:
    """Tells G the features of one picture after the other.

    Args:
        generator: with an encoder.
        centres: see `p2p.features.read`; may be empty where all is `real` and nothing is edited.
        how: `real`, of the target; `sampled`; the number of a cluster, see `chosen`; None: `real` where there is a
            target, else `sampled`.
        seed: of `sampled`.
        edits: instances that get the cluster of this number of their class, modulo how many it has.
    """

    generator: Generator
    centres: Centres
    how: str | int | None = None
    seed: int = 0
    edits: Mapping[int, int] = field(default_factory=dict)
    unknown: set[int] = field(default_factory=set, init=False)
    """Classes met that have no clusters; their features are 0."""
    edited: set[int] = field(default_factory=set, init=False)
    """Instances of `edits` that were met."""

    def describe(self) -> str:
        """Where the features come from, in words."""
        drawn = f"sampled, seed {self.seed}"
        known = {"real": "of the target", "sampled": drawn, None: f"of the target where there is one, else {drawn}"}
        what = f"cluster {self.how} of each class" if isinstance(self.how, int) else known[self.how]
        return ", ".join([what, *(f"instance {i} cluster {number}" for i, number in self.edits.items())])

    def __call__(self, key: str, members: Mapping[str, Tensor]) -> Tensor:
        """Members of a picture, as `ShardSet.read` has them -> features `[1,F,H,W]` where the generator is; where some
        are edited, those before and after, `[2,F,H,W]`."""
        batch = {name: member[None].to(self.generator.device) for name, member in members.items()}
        found = find(self.generator.spec.view, batch)
        before = after = self._whole(key, batch, found)
        for instance, number in self.edits.items():
            if (found.ids == instance).any():
                after = self._edited(after, batch["instances"], found, instance, number)
        return before if after is before else torch.cat([before, after])

    def _whole(self, key: str, batch: Mapping[str, Tensor], found: Instances) -> Tensor:
        if self.how == "real" or (self.how is None and "y" in batch):
            return self.generator.features_of(batch)
        self.unknown |= set(found.classes.tolist()) - self.centres.keys()
        if isinstance(self.how, int):
            return chosen(found, self.centres, self.how)
        return sampled(found, self.centres, seed=self.seed, key=key)

    def _edited(self, features: Tensor, instances: Tensor, found: Instances, instance: int, number: int) -> Tensor:
        self.edited.add(instance)
        its_class = int(found.classes[found.ids == instance][0])
        if its_class not in self.centres:
            self.unknown.add(its_class)
            return edit(features, instances, instance, torch.zeros(features.shape[1]))
        clusters = self.centres[its_class]
        return edit(features, instances, instance, clusters[number % len(clusters)])
