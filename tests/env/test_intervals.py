"""Clustered intervals and quantiles of Student's t, with the working beside each number."""

from __future__ import annotations

import math

import numpy as np
import pytest

from maporl_env.intervals import (
    Mean,
    Z,
    bootstrap,
    clustered_mean,
    share_of,
    t_cdf,
    t_quantile,
    wilson,
)


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


# --- Shares of questions -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [
        # Newcombe (Statistics in Medicine 17, 1998), Table I, method 3: Wilson's, to four places
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_as_printed(right: int, count: int, low: float, high: float) -> None:
    assert wilson(right, count) == pytest.approx((low, high), abs=5e-5)
    mirrored = wilson(count - right, count)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_wilson_ends_are_the_roots_of_the_score_test() -> None:
    for right, count in ((3, 10), (70, 71), (250, 500)):
        for end in wilson(right, count):
            error = (end * (1 - end) / count) ** 0.5
            assert abs(right / count - end) == pytest.approx(Z * error, rel=1e-9)
    with pytest.raises(ValueError, match="3 of 2 trials"):
        wilson(3, 2)
    with pytest.raises(ValueError, match="0 of 0 trials"):
        wilson(0, 0)


def test_the_bootstrap_of_many_is_the_normal_interval() -> None:
    """400 values of known spread: the ends are within a twentieth of mean +- 1.96 s / sqrt(n)."""
    values = np.tile([0.0, 0.25, 0.5, 1.0], 100)
    low, high = bootstrap(values, seed=1)
    half = Z * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=half / 20)
    assert high == pytest.approx(values.mean() + half, abs=half / 20)
    assert (low, high) == bootstrap(values, seed=1) != bootstrap(values, seed=2)


def test_a_share_says_how_its_interval_was_made() -> None:
    assert share_of([1, 0, 1]).interval == "wilson"
    assert share_of([0.5, 0, 1]).interval == "bootstrap"
    whole = share_of([1.0] * 50)
    assert (whole.mean, whole.high) == (1.0, 1.0)
    assert 0.9 < whole.low < 1  # not the certainty that a bootstrap would claim
    assert str(share_of([1, 1, 0, 0])) == "0.500 [0.150, 0.850]"
    for wrong in ([], [1.5], [float("nan")]):
        with pytest.raises(ValueError, match=r"in \[0, 1\]"):
            share_of(wrong)


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [
        (1, 12.7062047),
        (2, 4.3026527),
        (3, 3.1824463),
        (4, 2.7764451),
        (9, 2.2621572),
        (30, 2.0422725),
    ],
)
def test_t_quantiles_of_the_printed_tables(freedom: int, quantile: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(quantile, abs=5e-8)


def test_t_closed_forms() -> None:
    """One degree is Cauchy: tan(pi (p - 1/2)). Two: F(t) = 1/2 + t / (2 sqrt(2 + t^2))."""
    assert t_quantile(0.975, 1) == pytest.approx(math.tan(math.pi * 0.475))
    for t in (-3.0, -0.5, 0.0, 1.0, 4.0):
        assert t_cdf(t, 1) == pytest.approx(0.5 + math.atan(t) / math.pi)
        assert t_cdf(t, 2) == pytest.approx(0.5 + t / (2 * math.sqrt(2 + t * t)))
    assert t_quantile(0.975, 5000) == pytest.approx(1.96, abs=1e-3)  # towards the normal


@pytest.mark.parametrize(("probability", "freedom"), [(0.4, 3), (1.0, 3), (0.9, 0)])
def test_no_such_quantile(probability: float, freedom: int) -> None:
    with pytest.raises(ValueError, match="no t quantile"):
        t_quantile(probability, freedom)
