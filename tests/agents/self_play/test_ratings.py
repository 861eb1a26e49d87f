"""Elo ratings against closed forms, and that they follow from the metrics of a run."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maporl_agents.self_play.ratings import Ratings, expected_score, ratings_of, updated

RATINGS = st.floats(-1000, 1000)


@pytest.mark.parametrize(
    ("ahead", "score"),
    [(0, 0.5), (400, 10 / 11), (-400, 1 / 11), (400 * math.log10(3), 0.75), (200, 0.7597)],
)
def test_expected_scores_as_elo_has_them(ahead: float, score: float) -> None:
    """10^(d / 400) to 1; 200 points ahead score .76, as in Elo's table."""
    assert expected_score(100 + ahead, 100) == pytest.approx(score, abs=5e-5)


@given(RATINGS, RATINGS)
def test_two_players_share_one_point(one: float, other: float) -> None:
    assert expected_score(one, other) + expected_score(other, one) == pytest.approx(1)


@pytest.mark.parametrize("chance", [0.1, 0.5, 0.75, 0.99])
def test_a_steady_score_ends_at_its_logit(chance: float) -> None:
    """The fixed point of R + K (S - E) is R_other + 400 log10(S / (1 - S))."""
    rating = 0.0
    for _ in range(5_000):
        rating = updated(rating, 50.0, chance, gain=100.0)
    assert rating == pytest.approx(50.0 + 400 * math.log10(chance / (1 - chance)), abs=1e-6)


def test_one_step_by_hand() -> None:
    """Even players, a score of .75: 32 * (.75 - .5) = 8 points."""
    assert updated(1500.0, 1500.0, 0.75, gain=32.0) == 1508.0


def test_ratings_follow_from_the_metrics() -> None:
    rows = [
        {"step": step, "self_play/opponent": opponent, "self_play/score": score}
        for step, opponent, score in [(1, 0, 1.0), (2, 0, 1.0), (3, 2, 0.5), (4, 0, 0.0)]
    ]
    ratings = ratings_of(rows, gain=40.0, every=2)
    by_hand = Ratings(40.0)
    by_hand.now = updated(updated(0.0, 0.0, 1.0, 40.0), 0.0, 1.0, 40.0)
    at_two = by_hand.now
    assert ratings.versions[2] == at_two > 30
    after_three = updated(at_two, at_two, 0.5, 40.0)
    assert after_three == at_two  # even against its own copy
    assert ratings.now == updated(after_three, 0.0, 0.0, 40.0) < at_two
    assert ratings.versions == {0: 0.0, 2: at_two, 4: ratings.now}
    assert ratings.best == at_two
    cut = ratings_of(rows[:3], gain=40.0, every=2)
    cut.played(0, 0.0)
    cut.joined(4)
    assert cut == ratings
