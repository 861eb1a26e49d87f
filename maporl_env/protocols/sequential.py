"""A debate in which the agents of a turn speak one after the other."""

from __future__ import annotations

from dataclasses import dataclass

from maporl_env.protocols.debate import SimultaneousDebate
from maporl_env.protocols.visibility import number_of
from maporl_env.types import Transcript


@dataclass(frozen=True, slots=True)
class SequentialDebate(SimultaneousDebate):
    """A debate in which the later agents of a turn read the earlier ones' messages of that turn."""

    @property
    def simultaneous(self) -> bool:
        """One agent speaks at a time."""
        return False

    def news(self, agent_index: int, turn: int, history: Transcript) -> str:
        """The last turn's messages of later agents, then this turn's messages of earlier agents."""
        if turn == 0:
            return self.same_turn(agent_index, 0, history)
        behind = range(agent_index + 1, len(history.agents))
        news = self._said(agent_index, turn - 1, behind, history, self.reward_feedback)
        news += self.same_turn(agent_index, turn, history)
        return news or self._peers_messages(agent_index, turn, [], False)

    def same_turn(self, agent_index: int, turn: int, history: Transcript) -> str:
        """The messages of the earlier agents, without scores: these are not known yet."""
        return self._said(agent_index, turn, range(agent_index), history, False)

    def _said(
        self, agent_index: int, turn: int, speakers: range, history: Transcript, show: bool
    ) -> str:
        messages = history.of_turn(turn)
        numbered = [(number_of(s, agent_index), messages[s]) for s in speakers if s < len(messages)]
        return self._peers_messages(agent_index, turn, numbered, show) if numbered else ""
