"""Credit: examples worked by hand, slow loop twins, and the invariants of the definitions."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maporl_env.rewards import (
    HORIZONS,
    MAJORITIES,
    SHARES,
    influence_rewards,
    shaping_bonus,
    turn_rewards,
)

SCORES = [[1, 0], [0, 1], [1, 1]]  # integers, as an answer key gives them
CREDIT_RULES = list(itertools.product(HORIZONS, SHARES))


def close(actual: Any, expected: Any, tolerance: float = 1e-12) -> bool:
    return bool(np.max(np.abs(np.subtract(actual, expected)), initial=0.0) <= tolerance)


# --- Slow twins: the formulas as they are written, one cell at a time ----------------------------


def slow_turn_rewards(scores, horizon, share, gamma, valid):
    """Every cell on its own; turns without a valid score are skipped."""
    turns, agents = scores.shape
    rewards = np.zeros((turns, agents))
    for t, a in itertools.product(range(turns), range(agents)):
        if not valid[t, a]:
            continue

        def score_of(turn, a=a):
            """The paid score of a turn, or None where there is none."""
            voices = range(agents) if share == "team" else [a]
            known = [scores[turn, j] for j in voices if valid[turn, j]]
            return sum(known) / len(known) if known else None

        played = [turn for turn in range(turns) if score_of(turn) is not None]
        if horizon == "current":
            rewards[t, a] = score_of(t)
        elif horizon == "last":
            rewards[t, a] = score_of(played[-1])
        else:
            later = [turn for turn in played if turn > t]
            total = scores[t, a] + sum(gamma ** (turn - t) * score_of(turn) for turn in later)
            rewards[t, a] = total / (1 + sum(gamma ** (turn - t) for turn in later))
    return rewards


def slow_majority(correct, valid, turn, agent, majority):
    """True = right, False = wrong, None = tied or nobody."""
    voters = [j for j in range(correct.shape[1]) if valid[turn, j]]
    if majority == "others":
        voters = [j for j in voters if j != agent]
    right = sum(bool(correct[turn, j]) for j in voters)
    wrong = len(voters) - right
    return None if right == wrong else right > wrong


def slow_shaping_bonus(correct, alpha, beta, majority, valid):
    """The eight rows of the two tables, spelled out."""
    turns, agents = correct.shape
    bonus = np.zeros((turns, agents))
    for t, a in itertools.product(range(turns - 1), range(agents)):
        own = [bool(correct[u, a]) if valid[u, a] else None for u in (t, t + 1)]
        most = [slow_majority(correct, valid, u, a, majority) for u in (t, t + 1)]
        table_1 = {
            (True, False, True): -alpha[1],
            (True, False, False): -alpha[0],
            (False, True, False): +alpha[0],
            (False, True, True): +alpha[1],
        }
        table_2 = {
            (True, False, True): -beta[1],
            (True, False, False): -beta[0],
            (False, True, False): +beta[0],
            (False, True, True): +beta[1],
        }
        bonus[t + 1, a] += table_1.get((*own, most[0]), 0.0)
        bonus[t, a] += table_2.get((*most, own[0]), 0.0)
    return bonus


def random_case(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """Fractional scores, a mask with gaps, and a discount (often an end of its range)."""
    shape = (int(rng.integers(1, 6)), int(rng.integers(1, 6)))
    valid = rng.random(shape) < rng.choice([0.3, 0.8, 1.0])
    gamma = float(rng.choice([0.0, 0.3, 1.0, rng.random()]))
    return rng.random(shape), valid, gamma


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


SCORE_ARRAYS = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**32 - 1)).map(
    lambda shape: np.random.default_rng(shape[2]).random(shape[:2])
)
GAMMAS = st.sampled_from([0.0, 0.3, 1.0]) | st.floats(0, 1)


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


# --- Shaping -------------------------------------------------------------------------------------

ALPHA, BETA = (1.0, 20.0), (300.0, 4000.0)
R, W = True, False


@pytest.mark.parametrize(
    ("own", "majority", "paid"),
    [  # own answer t -> t+1, majority of others at t (and t+1): paid at (t+1, a)
        ((R, W), R, -20.0),  # alpha1
        ((R, W), W, -1.0),  # alpha0
        ((W, R), W, +1.0),
        ((W, R), R, +20.0),
        ((R, R), R, 0.0),
        ((R, R), W, 0.0),
        ((W, W), R, 0.0),
        ((W, W), W, 0.0),
    ],
)
def test_table_1_a_change_of_the_own_answer(own, majority, paid):
    correct = [[own[0], majority, majority], [own[1], majority, majority]]
    bonus = shaping_bonus(correct, ALPHA, BETA)
    assert bonus[1, 0] == paid
    assert bonus[0, 0] == 0.0  # the majority did not change


@pytest.mark.parametrize(
    ("majority", "own", "paid"),
    [  # majority of others t -> t+1, own answer at t (and t+1): paid at (t, a)
        ((R, W), R, -4000.0),  # beta1
        ((R, W), W, -300.0),  # beta0
        ((W, R), W, +300.0),
        ((W, R), R, +4000.0),
        ((R, R), R, 0.0),
        ((R, R), W, 0.0),
        ((W, W), R, 0.0),
        ((W, W), W, 0.0),
    ],
)
def test_table_2_a_change_of_the_majority(majority, own, paid):
    correct = [[own, majority[0], majority[0]], [own, majority[1], majority[1]]]
    bonus = shaping_bonus(correct, ALPHA, BETA)
    assert bonus[0, 0] == paid
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
