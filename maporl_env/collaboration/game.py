"""The rules of the collaboration game as plain objects: payoffs, timing, and one episode.

Source: Park et al., "MAPoRL" (arXiv 2502.18439), section 2. The environment around it is
`collaboration_v0`, what rational agents do in it `equilibrium`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from maporl_env.declared import FINITE, Checked, whole

Timing = Literal["next", "same"]

ALONE, COLLABORATE = 0, 1
NUM_AGENTS = 2


@dataclass(frozen=True)
class Rules(Checked):
    """The rules of a game: two agents, T turns, and the reward of each of the two actions.

    Attributes:
        num_turns: the horizon T >= 1.
        threshold: how many collaborations, of both agents and all turns together, synergy takes;
            K >= 1. A turn adds at most two: above 2T it is never met.
        r_col: reward for collaborating before synergy; below r_ind.
        r_ind: reward for acting alone before synergy.
        r_syn: reward of both agents in every turn with synergy, whatever they do.
        timing: "next", synergy starts in the turn after the threshold was met; "same", in the
            turn that meets it.

    Raises:
        ValueError: a value that is none of these.
    """

    num_turns: Annotated[int, whole(1)] = 2
    threshold: Annotated[int, whole(1)] = 2
    r_col: Annotated[float, FINITE] = 0.2
    r_ind: Annotated[float, FINITE] = 0.4
    r_syn: Annotated[float, FINITE] = 1.0
    timing: Timing = "next"

    def __post_init__(self) -> None:
        Checked.__post_init__(self)
        if self.r_col >= self.r_ind:
            raise ValueError(
                f"r_col={self.r_col} must be below r_ind={self.r_ind}: before synergy, acting "
                "alone has the higher return"
            )

    def after(self, count: int, joined: int) -> int:
        """Return the count after `joined` more collaborations, at most the threshold."""
        return min(self.threshold, count + joined)

    def payment(self, count: int, joined: int, action: int) -> float:
        """Return the reward of one agent in a turn.

        Args:
            count: collaborations before the turn.
            joined: how many of the two agents collaborate in it.
            action: the agent's own.
        """
        counted = count + joined if self.timing == "same" else count
        if counted >= self.threshold:
            return self.r_syn
        return self.r_col if action == COLLABORATE else self.r_ind


@dataclass(frozen=True)
class Turn:
    """One turn that was played; one entry per agent, in order of their index."""

    actions: tuple[int, ...]
    rewards: tuple[float, ...]
    synergy: bool


class CollaborationGame:
    """One episode.

    Attributes:
        rules: what it is played by.
        turn: turns over, those before the start included.
        count: collaborations so far, at most the threshold.
        turns: what was played.
    """

    def __init__(self, rules: Rules, turn: int = 0, count: int = 0) -> None:
        """Start in any state.

        Raises:
            ValueError: a state that no game reaches: `turn` not in [0, T), or more collaborations
                than two per turn.
        """
        if not _is_count(turn) or turn >= rules.num_turns:
            raise ValueError(f"turn must be an integer in [0, {rules.num_turns}), not {turn!r}")
        if not _is_count(count) or count > NUM_AGENTS * turn:
            raise ValueError(
                f"collaborations must be an integer from 0 to {NUM_AGENTS * turn}, two for each "
                f"of {turn} turns, not {count!r}"
            )
        self.rules = rules
        self.turn = turn
        self.count = rules.after(count, 0)
        self.turns: list[Turn] = []

    @property
    def synergy(self) -> bool:
        """Whether the threshold is met."""
        return self.count >= self.rules.threshold

    @property
    def over(self) -> bool:
        """Whether all turns are played."""
        return self.turn >= self.rules.num_turns

    def play(self, actions: Sequence[int]) -> tuple[float, ...]:
        """Play one turn of an unfinished game and return the reward of each agent."""
        joined = sum(actions)
        rewards = tuple(self.rules.payment(self.count, joined, action) for action in actions)
        paid_synergy = self.count + (joined if self.rules.timing == "same" else 0)
        self.turns.append(Turn(tuple(actions), rewards, paid_synergy >= self.rules.threshold))
        self.count = self.rules.after(self.count, joined)
        self.turn += 1
        return rewards


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
