"""Shaping bonuses: the tables, episodes by hand, and the slow loop."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maporl_env.rewards import MAJORITIES, shaping_bonus

from .slow_rewards import SCORE_ARRAYS, close, random_case, slow_shaping_bonus

ALPHA, BETA = (1.0, 20.0), (300.0, 4000.0)
R, W = True, False


TABLE = pytest.mark.parametrize(
    ("changing", "steady", "index", "sign"),
    [  # what changes t -> t+1, what stays; which coefficient is paid, and its sign
        ((R, W), R, 1, -1),
        ((R, W), W, 0, -1),
        ((W, R), W, 0, +1),
        ((W, R), R, 1, +1),
        ((R, R), R, 0, 0),
        ((R, R), W, 0, 0),
        ((W, W), R, 0, 0),
        ((W, W), W, 0, 0),
    ],
)


@TABLE
def test_table_1_a_change_of_the_own_answer(changing, steady, index, sign):
    """The majority of the others is steady; paid at (t+1, a)."""
    correct = [[own, steady, steady] for own in changing]
    bonus = shaping_bonus(correct, ALPHA, BETA)
    assert bonus[1, 0] == sign * ALPHA[index]
    assert bonus[0, 0] == 0.0  # the majority did not change


@TABLE
def test_table_2_a_change_of_the_majority(changing, steady, index, sign):
    """The own answer is steady; paid at (t, a)."""
    correct = [[steady, majority, majority] for majority in changing]
    bonus = shaping_bonus(correct, ALPHA, BETA)
    assert bonus[0, 0] == sign * BETA[index]
    assert bonus[1, 0] == 0.0  # the own answer did not change


def test_an_exact_tie_pays_nothing():
    # agent 0 turns right, and so do the others as a group, but from or to a tie
    for others in ([(W, R), (R, R)], [(W, W), (W, R)]):
        correct = [[W, *others[0]], [R, *others[1]]]
        bonus = shaping_bonus(correct, ALPHA, BETA)
        assert bonus[0, 0] == 0.0
        assert bonus[1, 0] == (0.0 if others[0] == (W, R) else 1.0)


def test_a_whole_episode_by_hand():
    correct = [[W, R, R], [R, R, W], [R, W, W]]
    # majority of the others, turn by turn. Of agent 0: R, tie, W; of agent 1: tie, tie, tie
    # (W R, R W, R W); of agent 2: tie, R, tie.
    # agent 0: W -> R against R: +alpha1 at turn 1; no majority changes without a tie between
    # agent 2: R -> W from a tie: nothing; agent 1: R -> W from a tie: nothing
    assert shaping_bonus(correct, ALPHA, BETA).tolist() == [[0, 0, 0], [20, 0, 0], [0, 0, 0]]
    # all three: majority R, R, W. Turn 0 -> 1: agent 0 +alpha1 at 1, agent 2 -alpha1 at 1.
    # Turn 1 -> 2: agent 1 -alpha1 at 2; the majority falls: -beta1 at (1, 0) and (1, 1),
    # -beta0 at (1, 2).
    expected = [[0, 0, 0], [20 - 4000, -4000, -20 - 300], [0, -20, 0]]
    assert shaping_bonus(correct, ALPHA, BETA, majority="all").tolist() == expected


def test_one_agent():
    correct = [[W], [R], [W]]
    assert not shaping_bonus(correct, ALPHA, BETA).any()  # there are no others
    # the agent is the majority: W -> R pays alpha0 at 1 and beta0 at 0; R -> W takes both ones
    alone = shaping_bonus(correct, ALPHA, BETA, majority="all")
    assert alone.tolist() == [[300], [1 - 4000], [-20]]


@pytest.mark.parametrize("majority", MAJORITIES)
def test_nothing_is_paid_across_a_turn_that_was_not_played(majority):
    for turn in itertools.product([R, W], repeat=3):
        assert not shaping_bonus([turn], ALPHA, BETA, majority).any()


def test_no_weights_no_bonus():
    correct = np.random.default_rng(0).random((5, 4)) < 0.5
    bonus = shaping_bonus(correct)
    assert not bonus.any()
    assert not np.signbit(bonus).any()


def test_random_episodes_against_the_loop():
    rng = np.random.default_rng(1)
    for case in range(1_000):
        scores, valid, _ = random_case(rng)
        correct = scores < 0.5
        alpha, beta = rng.normal(size=(2, 2))
        majority = MAJORITIES[case % len(MAJORITIES)]
        expected = slow_shaping_bonus(correct, alpha, beta, majority, np.ones_like(valid))
        assert close(shaping_bonus(correct, alpha, beta, majority), expected, 1e-9)
        expected = slow_shaping_bonus(correct, alpha, beta, majority, valid)
        holes = np.where(valid, correct, np.nan)
        assert close(shaping_bonus(holes, alpha, beta, majority, valid=valid), expected, 1e-9)


@given(SCORE_ARRAYS, st.sampled_from(MAJORITIES))
def test_exchanging_right_and_wrong_exchanges_the_weights_and_the_sign(scores, majority):
    correct = scores < 0.5
    mirrored = shaping_bonus(~correct, ALPHA[::-1], BETA[::-1], majority)
    assert np.array_equal(shaping_bonus(correct, ALPHA, BETA, majority), -mirrored)
