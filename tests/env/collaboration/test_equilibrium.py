"""Exact solutions of the collaboration game."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from maporl_env.bridges.collaboration import LoneCollaboration
from maporl_env.collaboration_v0 import Rules, best_response, logit_equilibrium, outcome

pytestmark = pytest.mark.usefixtures("warnings_are_errors")


@pytest.mark.parametrize(("r_col", "r_ind", "r_syn"), [(0.2, 0.4, 1.0), (0, 0.3, 0.7), (-1, 1, 9)])
@pytest.mark.parametrize("p", np.linspace(0, 1, 11))
def test_observation_1(r_col: float, r_ind: float, r_syn: float, p: float) -> None:
    """Collaborate iff (r_syn - r_ind) p >= r_ind - r_col: T = 2, K = 2, synergy from next turn."""
    found = best_response(p, r_col=r_col, r_ind=r_ind, r_syn=r_syn)
    gain = (r_syn - r_ind) * p - (r_ind - r_col)
    assert found.policy[0, 0] == (0.5 if abs(gain) < 1e-9 else float(gain > 0))
    assert found.policy[1, 0] == found.policy[1, 1] == 0  # nothing left to be gained
    # Alone twice, or collaborate first and then be paid r_syn if the partner did too.
    assert found.values[0, 0] == pytest.approx(2 * r_ind + max(gain, 0))


def test_observation_1_does_not_hold_with_threshold_1() -> None:
    # There the partner alone brings synergy: r_col + r_syn against r_ind + p r_syn + (1-p) r_ind,
    # so collaborate iff (1 - p) (r_syn - r_ind) >= r_ind - r_col, here iff p <= 2/3.
    for p in (0.1, 0.3, 0.6, 0.7, 0.9):
        assert best_response(p, threshold=1).policy[0, 0] == (p <= 2 / 3)
    assert best_response(1 / 3, threshold=2).policy[0, 0] == 0.5  # the tie of Observation 1


@pytest.mark.parametrize(("r_col", "r_ind"), [(0.2, 0.4), (0.0, 0.25), (0.1, 0.15)])
def test_two_who_learn_together_switch_where_they_should(r_col: float, r_ind: float) -> None:
    """The joint solution of the two-turn game changes at r_syn = 3 r_ind - 2 r_col (here .8)."""
    switch = 3 * r_ind - 2 * r_col
    for tau in (0.0, 1e-4):
        for r_syn, expected in ((switch - 0.01, 0.0), (switch + 0.01, 1.0)):
            found = logit_equilibrium(r_col=r_col, r_ind=r_ind, r_syn=r_syn, tau=tau)
            assert found.policy[0, 0] == pytest.approx(expected, abs=1e-9)
    assert logit_equilibrium(r_col=r_col, r_ind=r_ind, r_syn=switch, tau=0).policy[0, 0] == 0.5


def test_the_last_turn_by_hand() -> None:
    found = logit_equilibrium(tau=0.1)
    # Without synergy the gap is .2 - .4: sigmoid(-2); value .1 log(e^2 + e^4). With it: a coin.
    assert found.policy[1, 0] == pytest.approx(1 / (1 + math.exp(2)))
    assert found.values[1, 0] == pytest.approx(0.1 * math.log(math.exp(2) + math.exp(4)))
    assert found.policy[1, 2] == 0.5
    assert found.values[1, 2] == pytest.approx(1 + 0.1 * math.log(2))
    assert (found.values[2] == 0).all()


def slow_values(rules: Rules, policy: Any, partner: Any, tau: float) -> float:
    """A slow twin: sum over every course of the game, weighted by its probability."""
    total = 0.0
    for course in itertools.product(range(4), repeat=rules.num_turns):
        chance, paid, count = 1.0, 0.0, 0
        for t, choice in enumerate(course):
            a, b = divmod(choice, 2)
            k = min(count, rules.threshold)
            p, q = policy[t][k], partner[t][k]
            chance *= (p if a else 1 - p) * (q if b else 1 - q)
            met = count + (a + b if rules.timing == "same" else 0) >= rules.threshold
            paid += rules.r_syn if met else (rules.r_col if a else rules.r_ind)
            paid -= tau * math.log(p if a else 1 - p) if tau and chance else 0.0
            count += a + b
        total += chance * paid
    return total


@pytest.mark.parametrize("timing", ["next", "same"])
@pytest.mark.parametrize("threshold", [1, 2, 3, 5])
@pytest.mark.parametrize("tau", [0.05, 0.3])
def test_no_policy_does_better_than_the_equilibrium(
    timing: str, threshold: int, tau: float
) -> None:
    options: dict[str, Any] = {"num_turns": 4, "threshold": threshold, "timing": timing}
    found = logit_equilibrium(tau=tau, **options)
    answer = best_response(found.policy, tau=tau, **options)
    assert answer.policy == pytest.approx(found.policy, abs=1e-9)
    assert answer.values == pytest.approx(found.values, abs=1e-9)
    value = slow_values(found.rules, found.policy, found.policy, tau)
    assert found.values[0, 0] == pytest.approx(value)
    rng = np.random.default_rng(threshold)
    for _ in range(5):
        other = np.clip(found.policy + rng.normal(0, 0.2, found.policy.shape), 0.01, 0.99)
        assert slow_values(found.rules, other, found.policy, tau) <= value + 1e-12


@pytest.mark.parametrize("r_syn", [0.5, 0.7, 0.9, 1.5])
@pytest.mark.parametrize("tau", [0.02, 0.1])
def test_the_equilibrium_is_the_one_that_growing_certainty_leads_to(
    r_syn: float, tau: float
) -> None:
    """From p = 1/2, where precision (1 / tau) is 0, the first turn is followed in small steps."""
    found = logit_equilibrium(tau=tau, r_syn=r_syn)
    none, one, both = found.values[1]
    # Alone against alone: .2 - .4 + V(1) - V(0). Each gap as in the table of the two-turn game.
    alone, together = one - none - 0.2, both - one - 0.2
    p = 0.5
    for precision in [*np.linspace(0, 1 / tau, 500), *[1 / tau] * 200]:
        gap = (1 - p) * alone + p * together
        p += 0.5 * (1 / (1 + math.exp(-gap * precision)) - p)
    assert found.policy[0, 0] == pytest.approx(p, abs=1e-9)


def test_exact_best_responses_beat_every_pure_policy() -> None:
    options: dict[str, Any] = {"num_turns": 2, "threshold": 3, "timing": "same"}
    for p in (0.2, 0.5, 0.8):
        found = best_response(p, **options)
        returns = [
            outcome(np.array(bits, float).reshape(2, 4), p, **options).expected_return
            for bits in itertools.product((0, 1), repeat=8)
        ]
        assert found.values[0, 0] == pytest.approx(max(returns))
        assert found.outcome.expected_return == pytest.approx(max(returns))


def test_alone_nobody_learns_to_collaborate_together_both_do() -> None:
    """The paper's figure: T = 10 and 20, partners of .5, .6, .7, tau .1; threshold 1.4 T."""
    for rules in ({"num_turns": 10, "threshold": 14}, {"num_turns": 20, "threshold": 28}):
        together = logit_equilibrium(**rules).outcome.rates
        assert together[0] > 0.98
        assert together.mean() > 0.8
        for p in (0.5, 0.6, 0.7):
            alone = best_response(p, tau=0.1, **rules).outcome.rates
            assert alone.max() < 0.15


def test_outcomes_are_those_of_play() -> None:
    rules: dict[str, Any] = {"num_turns": 5, "threshold": 4}
    found = best_response(0.4, tau=0.3, **rules)
    env = LoneCollaboration(0.4, **rules)
    rng = np.random.default_rng(0)
    returns, joined = [], np.zeros(5)
    for episode in range(3000):
        _, info = env.reset(seed=0 if episode == 0 else None)
        total, over = 0.0, False
        while not over:
            turn, count = int(info["turn"]), int(info["collaborations"])
            action = int(rng.random() < found.policy[turn, count])
            joined[turn] += action
            _, reward, over, _, info = env.step(action)
            total += reward
        returns.append(total)
    exact, error = found.outcome, float(np.std(returns)) / math.sqrt(len(returns))
    assert np.mean(returns) == pytest.approx(exact.expected_return, abs=4 * error)
    assert joined / len(returns) == pytest.approx(exact.rates, abs=4 * 0.5 / math.sqrt(3000))
    assert exact.reach.sum(axis=1) == pytest.approx(np.ones(6))


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: logit_equilibrium(tau=-1), "tau must be a finite number of at least 0"),
        (lambda: logit_equilibrium(tau=math.nan), "tau must be"),
        (lambda: logit_equilibrium(num_turns=0), "num_turns must be"),
        (lambda: best_response(1.1), "partner must hold probabilities"),
        (lambda: best_response([0.1, 0.2]), r"a number or of shape \(2, 3\), not \(2,\)"),
        (lambda: outcome(math.nan, 0.5), "policy must hold probabilities"),
        (lambda: LoneCollaboration(partner=2), "partner must hold probabilities"),
    ],
)
def test_wrong_questions(call: Callable[[], Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        call()
