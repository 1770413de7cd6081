"""Metrics: how good generated pictures are, in numbers. A dict is the registry."""

from p2p.metrics.metric import Metric
from p2p.metrics.pairs import l1

__all__ = ["METRICS", "Metric", "l1"]

METRICS = {"L1": Metric(l1)}
"""By name; one of them says which generator is the best, see `validation.best`."""
