"""Exact solutions of the collaboration game by backward induction.

The state is (turn, collaborations so far); counts from the threshold on are one state, so a policy
is an array of shape (T, K + 1): the probability of collaborating in turn t at count k.

If the partner collaborates with probability q, collaborating is worth more than acting alone by

    gap(q) = (1 - q) * [Q(1, 0) - Q(0, 0)] + q * [Q(1, 1) - Q(0, 1)]
    Q(a, b) = payment + V(t + 1, count + a + b)        a: own action, b: the partner's

and an agent whose reward also has tau times the entropy of its policy collaborates with probability
sigmoid(gap / tau), the logit response. Without entropy (tau = 0) that is the best response.

Source: Park et al., "MAPoRL" (arXiv 2502.18439), section 2; McKelvey and Palfrey, "Quantal Response
Equilibria for Extensive Form Games" (1998).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maporl_env.collaboration.game import ALONE, COLLABORATE, Rules
from maporl_env.similar_names import make

Floats = NDArray[np.float64]
Function = TypeVar("Function", bound=Callable[..., Any])

DEFAULT_TAU = 0.1
BISECTIONS = 60  # halvings of [0, 1]: beyond the precision of a float
TIE = 1e-12  # a smaller gap, relative to what is compared, is rounding


@dataclass(frozen=True, slots=True)
class Outcome:
    """Statistics of the game between two policies.

    Attributes:
        reach: (T + 1, K + 1), probability of each count before turn t; the last row: at the end.
        rates: (T,), probability that the first agent collaborates in turn t.
        expected_return: sum of the first agent's expected payments, without entropy.
    """

    reach: Floats
    rates: Floats
    expected_return: float


@dataclass(frozen=True, slots=True)
class Solution:
    """A policy that answers its partner's.

    Attributes:
        rules: of the game.
        tau: weight of the entropy.
        policy: (T, K + 1), probability of collaborating.
        partner: (T, K + 1), the partner's; in an equilibrium the same array.
        values: (T + 1, K + 1), expected payments from turn t on plus tau times the entropies of
            the agent's own policy; the last row is 0.
    """

    rules: Rules
    tau: float
    policy: Floats
    partner: Floats
    values: Floats

    @property
    def outcome(self) -> Outcome:
        """The outcome of this policy against its partner's."""
        return _outcome(self.rules, self.policy, self.partner)


def _shows_rules(function: Function) -> Function:
    """Let `help` show the options of :class:`Rules` where a function takes them."""
    own = list(inspect.signature(function).parameters.values())
    before = [p for p in own if p.kind is Parameter.POSITIONAL_OR_KEYWORD]
    after = [p for p in own if p.kind is Parameter.KEYWORD_ONLY]
    shown = [*before, *inspect.signature(Rules).parameters.values(), *after]
    function.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    return function


@_shows_rules
def logit_equilibrium(*args: Any, tau: float = DEFAULT_TAU, **options: Any) -> Solution:
    """Return the symmetric logit (entropy-regularised) equilibrium.

    In each state, from the last turn back, the common probability p solves p = sigmoid(gap(p)/tau).
    Where there are several solutions it is the one on the principal branch: the one that p = 1/2
    at infinite tau leads to as tau falls, and for tau -> 0 the risk-dominant equilibrium. `gap` is
    affine, so that branch stays on the side of 1/2 that gap(1/2) points to, where the solution is
    unique: h(p) = sigmoid(gap(p)/tau) - p falls there if gap falls, and is concave (convex below
    1/2) if it rises. Bisection finds it.

    Args:
        args: see `options`.
        tau: weight of the entropy, >= 0; at 0 only payments count.
        options: those of :class:`Rules`.

    Raises:
        TypeError: an unknown option.
        ValueError: an impossible one.
    """
    rules = make(Rules, *args, **options)
    return _solve(rules, _tau(tau), None)


@_shows_rules
def best_response(partner: ArrayLike, *args: Any, tau: float = 0.0, **options: Any) -> Solution:
    """Return the (logit) best response to a fixed partner.

    Args:
        partner: the probability that it collaborates, a number or (T, K + 1).
        args: see `options`.
        tau: weight of the entropy, >= 0; at 0 the policy is 0, 1, or 1/2 where both are as good.
        options: those of :class:`Rules`.

    Raises:
        TypeError: an unknown option.
        ValueError: an impossible one, or a partner that is no policy.
    """
    rules = make(Rules, *args, **options)
    return _solve(rules, _tau(tau), read_policy("partner", partner, rules))


@_shows_rules
def outcome(policy: ArrayLike, partner: ArrayLike, *args: Any, **options: Any) -> Outcome:
    """Return the exact outcome of a policy against its partner's.

    Args:
        policy: of the first agent, a number or (T, K + 1).
        partner: of the second, likewise.
        args: see `options`.
        options: those of :class:`Rules`.

    Raises:
        TypeError: an unknown option.
        ValueError: an impossible one, or something that is no policy.
    """
    rules = make(Rules, *args, **options)
    return _outcome(
        rules, read_policy("policy", policy, rules), read_policy("partner", partner, rules)
    )


# -- backward: values and policies -------------------------------------------------------------


def _solve(rules: Rules, tau: float, fixed: Floats | None) -> Solution:
    """Go back from the last turn; `fixed` is the partner's policy, None for one's own."""
    shape = (rules.num_turns, rules.threshold + 1)
    policy, values = np.zeros(shape), np.zeros((shape[0] + 1, shape[1]))
    for t in reversed(range(rules.num_turns)):
        worth = _worth(rules, values[t + 1])
        alone, slope = _gap(worth)
        p = policy[t]
        p[:] = (
            _fixed_point(alone, slope, tau)
            if fixed is None
            else _response(alone + slope * fixed[t], tau)
        )
        q = p if fixed is None else fixed[t]
        expected = (1 - q) * worth[:, ALONE] + q * worth[:, COLLABORATE]
        values[t] = (1 - p) * expected[ALONE] + p * expected[COLLABORATE] + tau * _entropy(p)
    return Solution(rules, tau, policy, policy if fixed is None else fixed, values)


def _worth(rules: Rules, later: Floats) -> Floats:
    """Return Q(a, b, count), (2, 2, K + 1): own action, partner's action, count before."""
    return np.array(
        [
            [
                [
                    rules.payment(count, a + b, a) + later[rules.after(count, a + b)]
                    for count in range(rules.threshold + 1)
                ]
                for b in (ALONE, COLLABORATE)
            ]
            for a in (ALONE, COLLABORATE)
        ]
    )


def _gap(worth: Floats) -> tuple[Floats, Floats]:
    """Return gap(0) and the slope of gap(q), (K + 1,) each, with rounding errors made zeros."""
    gaps = worth[COLLABORATE] - worth[ALONE]
    gaps[np.abs(gaps) < TIE * np.abs(worth).max()] = 0.0
    return gaps[ALONE], gaps[COLLABORATE] - gaps[ALONE]


def _fixed_point(alone: Floats, slope: Floats, tau: float) -> Floats:
    """Return p = sigmoid((alone + slope * p) / tau) on the principal branch."""
    middle = alone + slope / 2
    middle[np.abs(middle) < TIE * (1 + np.abs(alone))] = 0.0
    low, high = np.where(middle > 0, 0.5, 0.0), np.where(middle < 0, 0.5, 1.0)
    for _ in range(BISECTIONS):
        p = (low + high) / 2
        below = _response(alone + slope * p, tau) > p
        low, high = np.where(below, p, low), np.where(below, high, p)
    return np.where(middle == 0, 0.5, np.where(middle > 0, high, low))  # exact at 0 and 1


def _response(gap: Floats, tau: float) -> Floats:
    """Return sigmoid(gap / tau); its limit for tau = 0."""
    if tau == 0:
        return (1 + np.sign(gap)) / 2
    return (1 + np.tanh(gap / (2 * tau))) / 2


def _entropy(p: Floats) -> Floats:
    inner = np.clip(p, np.finfo(np.float64).tiny, 1.0)
    rest = np.clip(1 - p, np.finfo(np.float64).tiny, 1.0)
    entropy: Floats = -(p * np.log(inner) + (1 - p) * np.log(rest))
    return entropy


# -- forward: what comes of it -----------------------------------------------------------------


def _outcome(rules: Rules, policy: Floats, partner: Floats) -> Outcome:
    reach = np.zeros((rules.num_turns + 1, rules.threshold + 1))
    reach[0, 0] = 1.0
    total = 0.0
    for t in range(rules.num_turns):
        for a, own in ((ALONE, 1 - policy[t]), (COLLABORATE, policy[t])):
            for b, other in ((ALONE, 1 - partner[t]), (COLLABORATE, partner[t])):
                for count, chance in enumerate(reach[t] * own * other):
                    reach[t + 1, rules.after(count, a + b)] += chance
                    total += chance * rules.payment(count, a + b, a)
    return Outcome(reach, (reach[:-1] * policy).sum(axis=1), float(total))


# -- checks ------------------------------------------------------------------------------------


def _tau(tau: float) -> float:
    if not 0.0 <= tau < np.inf:
        raise ValueError(f"tau must be a finite number of at least 0, not {tau!r}")
    return float(tau)


def read_policy(name: str, given: ArrayLike, rules: Rules) -> Floats:
    """Return a policy, a number or (T, K + 1), as a new (T, K + 1); ValueError if it is none."""
    shape = (rules.num_turns, rules.threshold + 1)
    policy = np.asarray(given, dtype=np.float64)
    if policy.shape not in ((), shape):
        raise ValueError(f"{name} must be a number or of shape {shape}, not {policy.shape}")
    if not ((policy >= 0) & (policy <= 1)).all():
        raise ValueError(f"{name} must hold probabilities of collaborating, in [0, 1]")
    return np.broadcast_to(policy, shape).copy()
