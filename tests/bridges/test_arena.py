"""What is asked of the libraries tells those that learnt from those that learnt half."""

from __future__ import annotations

import numpy as np
import pytest
from arena import RULES, Act, assert_learnt, random_returns, returns

from maporl_env.collaboration_v0 import outcome


def collaborating(chance: float) -> Act:
    """Both agents collaborate with this probability, whatever they see."""
    rng = np.random.default_rng(1)
    return lambda seen: (rng.random(seen.shape[:2]) < chance).astype(int)


def test_games_pay_what_theory_says() -> None:
    """Four standard errors of the mean over 400 games."""
    for chance, played in ((0.5, random_returns()), (0.8, returns(collaborating(0.8)))):
        exact = outcome(chance, chance, **RULES).expected_return
        assert abs(played.mean() - exact) < 4 * played.std() / len(played) ** 0.5


def test_those_who_always_collaborate_have_learnt() -> None:
    assert_learnt("always", collaborating(1.0))  # 2 * .2 + 3 * 1 = 3.4


@pytest.mark.parametrize("chance", [0.5, 0.0, 0.8])
def test_half_learnt_is_not_learnt(chance: float) -> None:
    """At .8 the team beats chance by far more than three errors, and stays far below the best."""
    with pytest.raises(AssertionError):
        assert_learnt("half", collaborating(chance))
    if chance == 0.8:
        assert_learnt("half", collaborating(chance), to_the_end=False)
