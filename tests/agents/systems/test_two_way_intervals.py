"""Closed forms: the interval over seeds and questions."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from maporl_agents.systems.two_way_intervals import mean_squares, paired, two_way
from maporl_env.intervals import clustered_mean, t_quantile


def test_seeds_that_agree_leave_the_interval_over_questions() -> None:
    row = [0.0, 1.0, 1.0, 0.0, 1.0]
    found = two_way([row] * 3)
    over_questions = clustered_mean(row, range(5))
    assert found.mean == pytest.approx(over_questions.mean)
    assert found.half_width == pytest.approx(over_questions.half_width)
    assert found.freedom == 4


def test_questions_that_agree_leave_the_interval_over_seeds() -> None:
    means = [0.2, 0.5, 0.3]
    found = two_way([[mean] * 7 for mean in means])
    over_seeds = clustered_mean(means, range(3))
    assert found.half_width == pytest.approx(over_seeds.half_width)
    assert found.freedom == 2


def test_sums_of_a_seed_and_a_question_have_the_sum_of_both_variances() -> None:
    seeds, questions = np.array([0.0, 0.1, 0.5]), np.array([0.0, 0.3, 0.2, 0.7])
    found = two_way((seeds[:, None] + questions[None]).tolist())
    assert found.variance == pytest.approx(seeds.var(ddof=1) / 3 + questions.var(ddof=1) / 4)


def test_the_mean_squares_are_unbiased_for_the_variance_of_the_mean() -> None:
    """Every table of 2 seeds and 2 questions whose effects are drawn from {0, 1}: exactly."""
    total, means, count = Fraction(0), [], 0
    for effects in itertools.product((0, 1), repeat=8):
        a, b, e = effects[:2], effects[2:4], effects[4:]
        y = [[a[s] + b[q] + e[2 * s + q] for q in range(2)] for s in range(2)]
        squares = mean_squares(y)
        total += Fraction(squares.seeds + squares.questions - squares.rest) / 4
        means.append(Fraction(sum(map(sum, y)), 4))
        count += 1
    variance = sum((one - sum(means) / count) ** 2 for one in means) / count
    assert (
        total / count
        == variance
        == Fraction(1, 4) * (Fraction(1, 2) + Fraction(1, 2) + Fraction(1, 4))
    )


def test_without_any_difference_there_is_no_width() -> None:
    found = two_way([[1.0, 1.0], [1.0, 1.0]])
    assert (found.half_width, found.p) == (0.0, 0.0)
    assert two_way([[0.0, 0.0], [0.0, 0.0]]).p == 1.0


def test_one_seed_is_measured_over_questions_and_one_cell_not_at_all() -> None:
    found = two_way([[0.0, 1.0, 1.0]])
    assert found.half_width == pytest.approx(clustered_mean([0.0, 1.0, 1.0], range(3)).half_width)
    assert two_way([[0.5]]).half_width is None


@pytest.mark.parametrize("results", [[], [[]], [[1.0], [1.0, 0.0]]])
def test_results_must_be_a_table(results: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="equally many questions"):
        two_way(results)


def test_p_is_below_five_percent_exactly_where_the_interval_leaves_out_zero() -> None:
    rng = np.random.default_rng(0)
    for shift in np.linspace(0, 1.2, 25):
        y = shift + rng.standard_normal((3, 1)) * 0.2 + rng.standard_normal((3, 20))
        found = two_way(y.tolist())
        assert found.half_width is not None
        assert found.p is not None
        assert (found.p < 0.05) == (abs(found.mean) > found.half_width)


def test_pairs_take_out_how_hard_questions_are() -> None:
    hard = [[0.0, 1.0, 0.0, 1.0]] * 3
    better = [[one + 0.25 for one in row] for row in hard]
    gap = paired(better, hard)
    assert (gap.mean, gap.variance) == (0.25, 0.0)


def test_coverage_over_new_seeds_and_new_questions() -> None:
    rng = np.random.default_rng(1)
    count, hits = 400, 0
    for _ in range(count):
        y = (
            0.1 * rng.standard_normal((5, 1))
            + 0.3 * rng.standard_normal((1, 30))
            + 0.4 * rng.standard_normal((5, 30))
        )
        found = two_way(y.tolist())
        hits += abs(found.mean) <= (found.half_width or 0)
    assert 0.91 <= hits / count <= 0.99
    assert t_quantile(0.975, 4) == pytest.approx(2.776445, abs=1e-6)
