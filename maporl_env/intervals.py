"""95 % intervals: Student's t, values that come in clusters, shares of questions, the bootstrap."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

Z = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""
RESAMPLES = 10_000
"""Draws of a bootstrap interval."""
DRAWN_AT_ONCE = 2_000_000
"""The most questions that are drawn at once: bounds memory."""


def half_width_text(half_width: float | None) -> str:
    """Return e.g. " ± 0.025", or "" where there is no interval."""
    return "" if half_width is None else f" ± {half_width:.3f}"


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
        return f"{self.mean:.3f}{half_width_text(self.half_width)}"


@dataclass(frozen=True, slots=True)
class Share:
    """A mean over questions of values in [0, 1], with a 95 % interval that stays in [0, 1].

    Attributes:
        mean: of the values.
        low: lower end of the interval.
        high: upper end of it.
        interval: how it was made, "wilson" or "bootstrap".
    """

    mean: float
    low: float
    high: float
    interval: Literal["wilson", "bootstrap"]

    def __str__(self) -> str:
        """Return e.g. "0.912 [0.884, 0.934]"."""
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {name: getattr(self, name) for name in self.__slots__}


def share_of(values: Sequence[float], *, seed: int = 0) -> Share:
    """Return the mean of one value per question and its interval over questions.

    Wilson's where every value is 0 or 1, else the percentile interval of the bootstrap.

    Args:
        values: in [0, 1], at least one.
        seed: of the bootstrap.

    Raises:
        ValueError: no values, or one outside [0, 1].
    """
    x = np.asarray(values, dtype=np.float64)
    if not len(x) or not ((x >= 0) & (x <= 1)).all():
        raise ValueError(f"an interval needs values in [0, 1], at least one, not {list(values)}")
    mean = float(x.mean())
    if np.isin(x, (0.0, 1.0)).all():
        return Share(mean, *wilson(int(x.sum()), len(x)), "wilson")
    return Share(mean, *bootstrap(values, seed=seed), "bootstrap")


def wilson(right: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a probability after `right` of `count` trials succeeded.

    It holds all p from which right / count is at most z sqrt(p (1 - p) / count) away (Wilson,
    JASA 22, 1927).

    Raises:
        ValueError: no trial, or more successes than trials.
    """
    if not 0 <= right <= count or not count:
        raise ValueError(f"{right} of {count} trials is no share")
    share, weight = right / count, Z * Z / count
    middle = (share + weight / 2) / (1 + weight)
    width = Z / (1 + weight) * math.sqrt(share * (1 - share) / count + weight / (4 * count))
    low = 0.0 if right == 0 else max(middle - width, 0.0)
    return low, 1.0 if right == count else min(middle + width, 1.0)


def bootstrap(values: Sequence[float], *, seed: int) -> tuple[float, float]:
    """Return the 95 % percentile interval of a mean, `RESAMPLES` times drawn with replacement.

    Efron, Annals of Statistics 7, 1979.
    """
    x = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    rows = max(DRAWN_AT_ONCE // len(x), 1)
    sizes = [min(rows, RESAMPLES - start) for start in range(0, RESAMPLES, rows)]
    means = [x[rng.integers(len(x), size=(size, len(x)))].mean(1) for size in sizes]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return float(low), float(high)


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
