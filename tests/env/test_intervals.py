"""Clustered intervals, with the working beside each number."""

from __future__ import annotations

import math

import numpy as np
import pytest

from maporl_env.intervals import Mean, clustered_mean, t_quantile


def test_a_cluster_each_is_the_usual_interval() -> None:
    """Of 0 and 1: variance over n - 1 is 1/2, standard error sqrt(1/2 / 2) = 1/2, t(1) = 12.706."""
    found = clustered_mean([0.0, 1.0], ["a", "b"])
    assert found.mean == 0.5
    assert found.half_width == pytest.approx(12.7062047 / 2)


def test_copies_in_a_cluster_are_worth_one() -> None:
    """Sums per cluster -1 and 1: s^2 = 2/1 * 2 / 4^2 = 1/4, as without the copies."""
    once, twice = [0.0, 1.0], [0.0, 0.0, 1.0, 1.0]
    assert clustered_mean(twice, ["a", "a", "b", "b"]) == clustered_mean(once, ["a", "b"])


def test_unequal_clusters() -> None:
    """Of 1, 1, 0, 0 with the first three in one: mean 1/2, sums 1/2 and -1/2.

    s^2 = 2/1 * (1/4 + 1/4) / 16 = 1/16.
    """
    found = clustered_mean([1.0, 1.0, 0.0, 0.0], [1, 1, 1, 2])
    assert found.half_width == pytest.approx(12.7062047 / 4)


def test_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    values, clusters = rng.random(200).tolist(), rng.integers(17, size=200).tolist()
    mean = sum(values) / 200
    total = 0.0
    for cluster in set(clusters):
        inside = [x - mean for x, own in zip(values, clusters, strict=True) if own == cluster]
        total += sum(inside) ** 2
    spread = math.sqrt(len(set(clusters)) / (len(set(clusters)) - 1) * total) / 200
    found = clustered_mean(values, clusters)
    assert found.mean == pytest.approx(mean)
    assert found.half_width == pytest.approx(t_quantile(0.975, len(set(clusters)) - 1) * spread)


def test_it_covers_what_clusters_share() -> None:
    """Values that are their cluster's luck: 95 % of the intervals hold 0; the naive ones do not."""
    rng = np.random.default_rng(1)
    held = naive = 0
    for _ in range(400):
        luck = np.repeat(rng.standard_normal(30), 10)
        clustered = clustered_mean(luck.tolist(), np.repeat(np.arange(30), 10).tolist())
        alone = clustered_mean(luck.tolist(), range(300))
        held += abs(clustered.mean) <= (clustered.half_width or 0)
        naive += abs(alone.mean) <= (alone.half_width or 0)
    assert 0.95 - 4 * math.sqrt(0.95 * 0.05 / 400) < held / 400 <= 1  # four standard errors
    assert naive / 400 < 0.7


def test_one_cluster_has_no_interval() -> None:
    assert clustered_mean([0.0, 1.0], ["a", "a"]) == Mean(0.5, None)
    assert str(Mean(0.5, None)) == "0.500"
    assert str(Mean(0.5, 0.025)) == "0.500 ± 0.025"


@pytest.mark.parametrize(("values", "clusters"), [([], []), ([1.0], []), ([1.0], [1, 2])])
def test_values_need_clusters(values: list[float], clusters: list[int]) -> None:
    with pytest.raises(ValueError, match="one each"):
        clustered_mean(values, clusters)
