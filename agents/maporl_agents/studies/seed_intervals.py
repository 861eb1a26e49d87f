"""Means over seeds with 95 % intervals of Student's t distribution; differences paired by seed.

Quantiles of t, and intervals over the questions of one run, are in `maporl_env.intervals`;
intervals over seeds and questions at once in `systems.two_way_intervals`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from maporl_env.intervals import half_width_text, t_cdf, t_quantile


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: of the values.
        half_width: of the 95 % interval; None for a single seed, which has none.
        values: one per seed.
    """

    mean: float
    half_width: float | None
    values: tuple[float, ...]

    @property
    def low(self) -> float:
        """Lower end of the interval; minus infinity where there is none."""
        return -math.inf if self.half_width is None else self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end of the interval; infinity where there is none."""
        return math.inf if self.half_width is None else self.mean + self.half_width

    def p_value(self, against: float = 0.0) -> float | None:
        """Return the two-sided p-value of Student's t test that the mean is `against`.

        None for a single value, whose interval is not one over seeds, and where all seeds gave one
        value: they are then one measurement.
        """
        if not self.half_width or len(self.values) < 2:
            return None
        freedom = len(self.values) - 1
        error = self.half_width / t_quantile(0.975, freedom)
        return 2 * (1 - t_cdf(abs(self.mean - against) / error, freedom))

    def __str__(self) -> str:
        """Return e.g. "+0.120 ± 0.031"."""
        return f"{self.mean:+.3f}{half_width_text(self.half_width)}"


def estimate(values: Sequence[float]) -> Estimate:
    """Return mean and 95 % interval over seeds; ValueError without any value."""
    if not values:
        raise ValueError("no values: an estimate needs the result of one seed at least")
    n = len(values)
    half = t_quantile(0.975, n - 1) * stdev(values) / math.sqrt(n) if n > 1 else None
    return Estimate(fmean(values), half, tuple(values))


def difference(first: Mapping[int, float], second: Mapping[int, float]) -> Estimate:
    """Return first minus second over the seeds that both have; ValueError if they share none."""
    shared = sorted(first.keys() & second.keys())
    if not shared:
        raise ValueError(f"no seed in common: {sorted(first)} and {sorted(second)}")
    return estimate([first[seed] - second[seed] for seed in shared])
