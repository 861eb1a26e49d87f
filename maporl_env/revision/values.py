"""Values of ordered subsets of agents: what the first i actions of a turn are worth.

With agents that act in order and share a reward, Q_i(s, a_1..a_i) is the expected discounted return
when the first i agents act so, the others by the policies mu, and all by mu from the next state on
(arXiv 2405.14314, section 4). Then

    V(s) = Q_0(s)
    local advantage  A_i(s, a_1..a_i) = Q_i(s, a_1..a_i) - Q_{i-1}(s, a_1..a_{i-1})
    joint advantage  A(s, a_1..a_n) = Q_n(s, a_1..a_n) - V(s) = sum over i of A_i

Where a joint action WAIT changes nothing and pays 0, Q_n(s, WAIT) = gamma V(s), so that A needs no
V: A = Q_n - Q_n(s, WAIT) / gamma.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

State = Any
"""What a critic knows of the situation before a turn; hashable where the critic is a table."""
Action = Any
"""What one agent does in a turn, None for an agent that did not act; hashable likewise."""


class Step(NamedTuple):
    """One turn of an episode.

    Attributes:
        state: before the turn.
        actions: of all agents, in their order.
        reward: that all of them share.
    """

    state: State
    actions: tuple[Action, ...]
    reward: float


def discounted_returns(rewards: ArrayLike, gamma: float) -> NDArray[np.float64]:
    """Return the discounted return from each turn on, (T,), from T rewards.

    Raises:
        ValueError: `gamma` outside [0, 1], or rewards that are not finite numbers in a row.
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must lie in [0, 1], not {gamma}")
    values = np.array(rewards, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError("rewards must be finite numbers, one per turn")
    for t in range(len(values) - 2, -1, -1):
        values[t] += gamma * values[t + 1]
    return values


class SubsetCritic(ABC):
    """Q of ordered subsets of agents, and the advantages that follow from it."""

    @abstractmethod
    def q(self, state: State, actions: Sequence[Action] = ()) -> float | None:
        """Return Q of the first agents' actions, V(s) for none; None for what is not known."""

    def local_advantage(self, state: State, actions: Sequence[Action]) -> float | None:
        """Return the advantage of the last of some actions, given those before; None if unknown."""
        if not actions:
            raise ValueError("a local advantage is that of the last action: give at least one")
        return self._difference(state, actions, actions[:-1])

    def joint_advantage(self, state: State, actions: Sequence[Action]) -> float | None:
        """Return the advantage of all actions together; None if it is not known."""
        return self._difference(state, actions, ())

    def _difference(
        self, state: State, actions: Sequence[Action], fewer: Sequence[Action]
    ) -> float | None:
        after, before = self.q(state, actions), self.q(state, fewer)
        return None if after is None or before is None else after - before


@dataclass
class SubsetValues(SubsetCritic):
    """Tabular Q of ordered subsets: Monte-Carlo means of the returns of episodes played by mu.

    Attributes:
        gamma: discount of a turn, in [0, 1].
    """

    gamma: float = 1.0
    _sums: dict[tuple[State, tuple[Action, ...]], tuple[float, int]] = field(
        default_factory=dict, repr=False
    )

    def add(self, episode: Sequence[Step]) -> None:
        """Learn from one episode; ValueError for a reward that is not finite."""
        returns = discounted_returns([step.reward for step in episode], self.gamma)
        for step, value in zip(episode, returns.tolist(), strict=True):
            for count in range(len(step.actions) + 1):
                key = step.state, step.actions[:count]
                total, seen = self._sums.get(key, (0.0, 0))
                self._sums[key] = total + value, seen + 1

    def q(self, state: State, actions: Sequence[Action] = ()) -> float | None:
        """Return Q of the first agents' actions, V(s) for none; None for what was never seen."""
        total, seen = self._sums.get((state, tuple(actions)), (0.0, 0))
        return total / seen if seen else None


def subset_values(
    q: ArrayLike, policies: Sequence[ArrayLike]
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Return exact Q and local advantages of every ordered subset in a game of one turn.

    Args:
        q: (n_1, ..., n_A) value of each joint action.
        policies: of agent i, (n_1, ..., n_i): the chance of its action given those before it.

    Returns:
        values: A + 1 arrays; the i-th is Q of the first i actions, of shape (n_1, ..., n_i).
        advantages: A arrays; the i-th is A_i of the same shape as Q of i actions.

    Raises:
        ValueError: shapes that do not fit, or chances that do not add up to 1.
    """
    whole = np.asarray(q, dtype=np.float64)
    chances = [np.asarray(policy, dtype=np.float64) for policy in policies]
    if whole.ndim != len(chances) or any(
        policy.shape != whole.shape[: place + 1] for place, policy in enumerate(chances)
    ):
        raise ValueError(
            f"a game of shape {whole.shape} needs a policy of shape {whole.shape[:1]}, then "
            f"one per further agent, not {[policy.shape for policy in chances]}"
        )
    if not all(np.allclose(policy.sum(-1), 1.0) for policy in chances):
        raise ValueError("the chances of an agent's actions must add up to 1")
    values = [whole]
    for policy in reversed(chances):
        values.insert(0, (values[0] * policy).sum(-1))
    advantages = [after - before[..., None] for before, after in pairwise(values)]
    return values, advantages


def tilted(
    policy: ArrayLike, advantage: ArrayLike, beta: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mu exp(A / beta) / Z over the last axis, and Z: the optimum near mu.

    The product of the agents' own optima is *not* the joint optimum: the normaliser Z of a later
    agent depends on the actions before it. Weighting the earlier agents by it restores equality.

    Raises:
        ValueError: `beta` is not above 0.
    """
    if not beta > 0:
        raise ValueError(f"beta must be above 0, not {beta}")
    weights = np.asarray(policy, dtype=np.float64) * np.exp(np.asarray(advantage) / beta)
    normaliser = weights.sum(-1)
    return weights / normaliser[..., None], normaliser
