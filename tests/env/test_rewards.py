"""Influence-aware rewards: examples by hand, the slow loop, and the invariants."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maporl_env.rewards import SHARES, influence_rewards, shaping_bonus, turn_rewards

from .slow_rewards import (
    CREDIT_RULES,
    GAMMAS,
    SCORE_ARRAYS,
    SCORES,
    close,
    random_case,
    slow_turn_rewards,
)

# --- Influence-aware reward ----------------------------------------------------------------------


def test_the_worked_example():
    # R(0,0) = (1 + 0.3 * 0.5 + 0.09 * 1) / 1.39     R(1,0) = (0 + 0.3 * 1) / 1.3
    # R(0,1) = (0 + 0.3 * 0.5 + 0.09 * 1) / 1.39     R(1,1) = (1 + 0.3 * 1) / 1.3
    expected = [[1.24 / 1.39, 0.24 / 1.39], [0.3 / 1.3, 1.0], [1.0, 1.0]]
    rewards = influence_rewards(SCORES, 0.3)
    assert close(rewards, expected)
    assert close(rewards[:2, 0], [0.8921, 0.2308], 5e-5)
    assert close(rewards[0, 1], 0.1727, 5e-5)


def test_the_ends_of_gamma():
    assert close(influence_rewards(SCORES, 0), SCORES)  # 0^0 = 1: the own score alone
    # gamma 1: (1 + 0.5 + 1) / 3, (0 + 0.5 + 1) / 3; then (0 + 1) / 2, (1 + 1) / 2
    assert close(influence_rewards(SCORES, 1), [[2.5 / 3, 0.5], [0.5, 1], [1, 1]])


def test_an_early_end_is_only_a_shorter_array():
    # two turns played: (1 + 0.3 * 0.5) / 1.3, (0 + 0.3 * 0.5) / 1.3; the last turn is the own score
    assert close(influence_rewards(SCORES[:2], 0.3), [[1.15 / 1.3, 0.15 / 1.3], [0, 1]])
    assert close(influence_rewards(SCORES[:1], 0.3), [[1, 0]])


def test_six_credit_rules_by_hand():
    scores = [[1.0, 0.5], [0.0, 0.25]]  # team means 0.75 and 0.125; gamma 0.5
    table = {
        ("discounted", "team"): [[1.0625 / 1.5, 0.5625 / 1.5], [0, 0.25]],
        ("discounted", "own"): [[1 / 1.5, 0.625 / 1.5], [0, 0.25]],
        ("last", "team"): [[0.125, 0.125], [0.125, 0.125]],
        ("last", "own"): [[0, 0.25], [0, 0.25]],
        ("current", "team"): [[0.75, 0.75], [0.125, 0.125]],
        ("current", "own"): scores,
    }
    assert list(table) == CREDIT_RULES
    for (horizon, share), expected in table.items():
        assert close(turn_rewards(scores, horizon=horizon, share=share, gamma=0.5), expected)


def test_the_default_rule_is_the_definition_at_gamma_0_3():
    assert np.array_equal(turn_rewards(SCORES), influence_rewards(SCORES, 0.3))


def test_random_fractional_scores_against_the_loop():
    rng = np.random.default_rng(0)
    for case in range(1_000):
        scores, valid, gamma = random_case(rng)
        everything = np.ones_like(valid)
        expected = slow_turn_rewards(scores, "discounted", "team", gamma, everything)
        assert close(influence_rewards(scores, gamma), expected, 1e-9)
        horizon, share = CREDIT_RULES[case % len(CREDIT_RULES)]
        options = {"horizon": horizon, "share": share, "gamma": gamma}
        expected = slow_turn_rewards(scores, valid=everything, **options)
        assert close(turn_rewards(scores, **options), expected, 1e-9)
        expected = slow_turn_rewards(scores, valid=valid, **options)
        holes = np.where(valid, scores, np.nan)
        assert close(turn_rewards(holes, valid=valid, **options), expected, 1e-9)


def test_a_masked_score_by_hand():
    nan = float("nan")
    scores = [[1.0, nan], [nan, nan], [nan, 0.5]]
    valid = [[True, False], [False, False], [False, True]]
    # turn 1 has no score: its discount 0.5 leaves both sums, that of turn 2 is 0.25, its mean 0.5
    assert close(
        turn_rewards(scores, gamma=0.5, valid=valid), [[1.125 / 1.25, 0], [0, 0], [0, 0.5]]
    )
    last_own = turn_rewards(scores, horizon="last", share="own", valid=valid)
    assert close(last_own, [[1, 0], [0, 0], [0, 0.5]])


@given(SCORE_ARRAYS, GAMMAS)
def test_the_last_turn_is_paid_its_own_score(scores, gamma):
    for share in SHARES:
        rewards = turn_rewards(scores, share=share, gamma=gamma)
        assert np.array_equal(rewards[-1], scores[-1])


@settings(max_examples=40)
@given(st.floats(0, 1), st.integers(1, 5), st.integers(1, 5), GAMMAS)
def test_constant_scores_are_their_own_reward(score, turns, agents, gamma):
    for horizon, share in CREDIT_RULES:
        rewards = turn_rewards(
            np.full((turns, agents), score), horizon=horizon, share=share, gamma=gamma
        )
        assert close(rewards, score)


@settings(max_examples=40)
@given(SCORE_ARRAYS, GAMMAS, st.randoms(use_true_random=False))
def test_permuting_agents_permutes_rewards(scores, gamma, rng):
    order = rng.sample(range(scores.shape[1]), scores.shape[1])
    for horizon, share in CREDIT_RULES:
        options = {"horizon": horizon, "share": share, "gamma": gamma}
        permuted = turn_rewards(scores[:, order], **options)
        assert close(permuted, turn_rewards(scores, **options)[:, order])


@settings(max_examples=40)
@given(SCORE_ARRAYS, GAMMAS)
def test_rewards_are_linear_so_minus_one_and_zero_are_ordinary_scores(scores, gamma):
    for horizon, share in CREDIT_RULES:
        options = {"horizon": horizon, "share": share, "gamma": gamma}
        rewards = turn_rewards(scores, **options)
        assert close(turn_rewards(scores - 1, **options), rewards - 1)
        assert close(turn_rewards(-3 * scores, **options), -3 * rewards)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int64, np.float16, np.float32, float])
def test_every_number_type_gives_the_same_float64(dtype):
    scores = np.array(SCORES, dtype=dtype)
    before = scores.copy()
    for rewards in (influence_rewards(scores, 0.3), shaping_bonus(scores, (0.1, 0.2), (0.3, 0.4))):
        assert rewards.dtype == np.float64
        rewards += 1  # the result is the caller's own
    assert close(influence_rewards(scores, 0.3), influence_rewards(SCORES, 0.3))
    assert np.array_equal(scores, before)


@pytest.mark.parametrize("agents", [1, 3])
def test_no_turn_played(agents):
    nothing = np.zeros((0, agents))
    for rewards in (
        influence_rewards(nothing, 0.3),
        *(turn_rewards(nothing, horizon=horizon, share=share) for horizon, share in CREDIT_RULES),
        shaping_bonus(nothing, (1, 2), (3, 4)),
    ):
        assert rewards.shape == (0, agents)
        assert rewards.dtype == np.float64


# --- Refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scores",
    [[1, 0], 1.0, [[[1.0]]], [[]], [[1, 0], [1]], [["1", "0"]], [[None, 1.0]], [[1j, 0]]],
)
def test_a_wrong_shape_or_type_is_refused(scores):
    for call in (turn_rewards, shaping_bonus):
        with pytest.raises(ValueError, match=r"shape|dtype"):
            call(scores)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_not_finite_is_refused_unless_masked(bad):
    with pytest.raises(ValueError, match=r"scores must be finite.*valid"):
        turn_rewards([[1.0, bad]])
    with pytest.raises(ValueError, match=r"correct must be finite"):
        shaping_bonus([[1.0, bad]])
    assert turn_rewards([[1.0, bad]], valid=[[True, False]]).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("gamma", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_discount_outside_its_range_is_refused(gamma):
    with pytest.raises(ValueError, match=r"gamma must lie in \[0, 1\]"):
        influence_rewards(SCORES, gamma)


def test_unknown_options_are_refused_with_the_valid_ones():
    with pytest.raises(ValueError, match=r"horizon 'lst'.*discounted, last, current"):
        turn_rewards(SCORES, horizon="lst")
    with pytest.raises(ValueError, match=r"share 'mine'.*team, own"):
        turn_rewards(SCORES, share="mine")
    with pytest.raises(ValueError, match=r"majority 'most'.*others, all"):
        shaping_bonus(SCORES, majority="most")


@pytest.mark.parametrize("weights", [(1,), (1, 2, 3), (), (1, float("nan")), (float("inf"), 0)])
def test_weights_are_two_finite_numbers(weights):
    with pytest.raises(ValueError, match=r"alpha must be two finite numbers"):
        shaping_bonus(SCORES, alpha=weights)
    with pytest.raises(ValueError, match=r"beta must be two finite numbers"):
        shaping_bonus(SCORES, beta=weights)


@pytest.mark.parametrize("correct", [[[0.5, 1]], [[2, 0]], [[-1, 1]]])
def test_correctness_is_zero_or_one(correct):
    with pytest.raises(ValueError, match=r"exactly 0 or 1"):
        shaping_bonus(correct)


@pytest.mark.parametrize("valid", [[[True, False]], [[1, 0], [1, 1], [1, 1]], True])
def test_a_mask_of_another_shape_or_type_is_refused(valid):
    with pytest.raises(ValueError, match=r"valid must be booleans of shape \(3, 2\)"):
        turn_rewards(SCORES, valid=valid)
