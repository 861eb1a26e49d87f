"""Propose, score, propose again: actions that a critic holds to be good enough are committed.

ReAd (arXiv 2405.14314, algorithms 1 and 2): a proposal whose advantage is below the threshold is
handed back with its score, and the threshold is halved. Where none of `tries` proposals passes, the
policy acts without the critic (the fallback). Tries are drafts: no other agent sees them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from maporl_env.revision.values import Action, State, Step, SubsetCritic

Proposed = TypeVar("Proposed")


class Try(NamedTuple):
    """A proposal that was handed back, or committed.

    Attributes:
        proposal: an action, or a joint plan.
        score: its advantage; None where the critic does not know it.
        threshold: it had to reach.
    """

    proposal: object
    score: float | None
    threshold: float


@dataclass(frozen=True)
class Revision(Generic[Proposed]):
    """What was committed, and how it came to be.

    Attributes:
        committed: the action or joint plan.
        tries: all proposals, the committed one last unless it is the fallback.
        fell_back: no proposal was good enough.
    """

    committed: Proposed
    tries: tuple[Try, ...]
    fell_back: bool


@dataclass(frozen=True)
class Threshold:
    """How good a proposal has to be.

    Attributes:
        alpha: the first threshold is 2 alpha; at least 0.
        tries: proposals of one action, at least 1. Paper: 15, or 10 for one of its tasks.

    Raises:
        ValueError: a setting that is none of these.
    """

    alpha: float
    tries: int = 15

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise ValueError(f"alpha must be a finite number of at least 0, not {self.alpha}")
        if self.tries < 1:
            raise ValueError(f"tries must be at least 1, not {self.tries}")


class ScoringFailed(RuntimeError):
    """The critic raised; nothing of the turn was committed.

    Attributes:
        tries: the proposals that were scored before.
        steps: the turns of the episode that were played before, where one was played.
    """

    def __init__(self, proposal: object, tries: Sequence[Try], error: Exception) -> None:
        told = " ".join(f"{type(error).__name__}: {error}".split())
        super().__init__(
            f"the critic failed on proposal {len(tries) + 1}, {proposal!r:.80}: "
            f"{told:.200}; what came before it is kept in .tries and .steps"
        )
        self.tries = tuple(tries)
        self.steps: tuple[Step, ...] = ()


def revise(
    propose: Callable[[Sequence[Try]], Proposed],
    score: Callable[[Proposed], float | None],
    threshold: Threshold,
    fallback: Callable[[], Proposed],
) -> Revision[Proposed]:
    """Ask for proposals until one reaches the threshold, which is halved after each that does not.

    Args:
        propose: returns a proposal; is told the tries so far.
        score: returns the advantage of a proposal; None, for one it does not know, never passes.
        threshold: how good a proposal has to be.
        fallback: returns what is committed if no proposal passes, such as an action of mu.

    Raises:
        ScoringFailed: `score` raised.
    """
    level = 2 * threshold.alpha
    tries: list[Try] = []
    for _ in range(threshold.tries):
        proposal = propose(tuple(tries))
        try:
            found = score(proposal)
        except Exception as error:  # any critic's own code
            raise ScoringFailed(proposal, tries, error) from error
        tries.append(Try(proposal, found, level))
        if found is not None and found >= level:
            return Revision(proposal, tuple(tries), fell_back=False)
        level /= 2
    return Revision(fallback(), tuple(tries), fell_back=True)


Propose = Callable[[int, tuple[Action, ...], Sequence[Try]], Action]
"""Proposes an action: takes the agent's index, the actions fixed before it, and its tries."""
Fallback = Callable[[int, tuple[Action, ...]], Action]
"""Returns an action of mu: takes the agent's index and the actions fixed before it."""


def act_in_order(
    state: State,
    agents: int,
    propose: Propose,
    values: SubsetCritic,
    threshold: Threshold,
    fallback: Fallback,
) -> list[Revision[Action]]:
    """Let agents fix their actions one after another by local advantages (ReAd-S).

    Args:
        state: before the turn.
        agents: how many act.
        propose: see `Propose`; an agent sees what was fixed before it, not others' tries.
        values: the critic.
        threshold: how good an action has to be.
        fallback: see `Fallback`.
    """
    found: list[Revision[Action]] = []
    for agent in range(agents):
        before = tuple(one.committed for one in found)
        found.append(
            revise(
                partial(propose, agent, before),
                partial(_local_advantage, values, state, before),
                threshold,
                partial(fallback, agent, before),
            )
        )
    return found


def _local_advantage(
    values: SubsetCritic, state: State, before: tuple[Action, ...], action: Action
) -> float | None:
    return values.local_advantage(state, (*before, action))


def act_jointly(
    state: State,
    propose: Callable[[Sequence[Try]], tuple[Action, ...]],
    values: SubsetCritic,
    threshold: Threshold,
    fallback: Callable[[], tuple[Action, ...]],
) -> Revision[tuple[Action, ...]]:
    """Let one planner fix all actions at once by the joint advantage (ReAd-J)."""
    return revise(propose, lambda plan: values.joint_advantage(state, plan), threshold, fallback)
