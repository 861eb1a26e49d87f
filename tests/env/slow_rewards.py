"""Slow twins of the reward formulas, one cell at a time, and random episodes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from hypothesis import strategies as st

from maporl_env.rewards import HORIZONS, SHARES

SCORES = [[1, 0], [0, 1], [1, 1]]  # integers, as an answer key gives them
CREDIT_RULES = list(itertools.product(HORIZONS, SHARES))


def close(actual: Any, expected: Any, tolerance: float = 1e-12) -> bool:
    return bool(np.max(np.abs(np.subtract(actual, expected)), initial=0.0) <= tolerance)


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


SCORE_ARRAYS = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**32 - 1)).map(
    lambda shape: np.random.default_rng(shape[2]).random(shape[:2])
)
GAMMAS = st.sampled_from([0.0, 0.3, 1.0]) | st.floats(0, 1)
