"""Means with 95 % intervals: Student's t, and values that come in clusters."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over questions.

    Attributes:
        mean: of the values.
        half_width: of its 95 % interval; None for a single cluster, which has none.
    """

    mean: float
    half_width: float | None

    def __str__(self) -> str:
        """Return e.g. "0.912 ± 0.025"."""
        spread = "" if self.half_width is None else f" ± {self.half_width:.3f}"
        return f"{self.mean:.3f}{spread}"


def clustered_mean(values: Sequence[float], clusters: Sequence[Hashable]) -> Mean:
    """Return the mean of values and its 95 % interval, values of a cluster being no independent.

        s^2 = G / (G - 1) * sum_g (sum_{i in g} (x_i - mean))^2 / N^2,  half width t(G - 1) * s

    the cluster-robust variance of a mean (Liang and Zeger, Biometrika 73, 1986, with the factor for
    few clusters); with one value per cluster it is the usual variance over N.

    Args:
        values: N >= 1 of them.
        clusters: the cluster of each, G different ones.

    Raises:
        ValueError: no values, or another number of clusters.
    """
    if not values or len(values) != len(clusters):
        raise ValueError(
            f"{len(values)} values with {len(clusters)} clusters: one each, at least 1"
        )
    x = np.asarray(values, dtype=np.float64)
    mean = float(x.mean())
    numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    count = len(numbers)
    if count == 1:
        return Mean(mean, None)
    sums = np.bincount([numbers[cluster] for cluster in clusters], weights=x - mean)
    spread = math.sqrt(count / (count - 1) * float(sums @ sums)) / len(x)
    return Mean(mean, t_quantile(0.975, count - 1) * spread)


@lru_cache
def t_quantile(probability: float, freedom: int) -> float:
    """Return the quantile of Student's t distribution, to 1e-12 relative, by bisection.

    Args:
        probability: in [0.5, 1).
        freedom: degrees of freedom, at least 1.
    """
    if not (0.5 <= probability < 1 and freedom >= 1):
        raise ValueError(f"no t quantile of {probability} with {freedom} degrees of freedom")
    low, high = 0.0, 1.0
    while t_cdf(high, freedom) < probability:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, freedom) < probability else (low, middle)
    return (low + high) / 2


def t_cdf(t: float, freedom: int) -> float:
    """Return P(T <= t) of Student's t distribution (Abramowitz and Stegun 26.7.3, 26.7.4)."""
    angle = math.atan2(t, math.sqrt(freedom))
    cosine = math.cos(angle)
    term, total = (cosine, 0.0) if freedom % 2 else (1.0, 0.0)
    for k in range(1 + freedom % 2, freedom, 2):
        total += term
        term *= cosine**2 * k / (k + 1)
    total *= math.sin(angle)
    inside = 2 / math.pi * (angle + total) if freedom % 2 else total
    return (1 + inside) / 2
