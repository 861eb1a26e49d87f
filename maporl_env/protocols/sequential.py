"""A debate in which the agents of a turn speak one after the other."""

from __future__ import annotations

from dataclasses import dataclass

from maporl_env.protocols.simultaneous import SimultaneousDebate
from maporl_env.types import Transcript


@dataclass(frozen=True, slots=True)
class SequentialDebate(SimultaneousDebate):
    """A debate in which the later agents of a turn read the earlier ones' messages of that turn."""

    @property
    def simultaneous(self) -> bool:
        """One agent speaks at a time."""
        return False

    def news(self, seat: int, turn: int, history: Transcript) -> str:
        """The last turn's messages of later agents, then this turn's messages of earlier agents."""
        if turn == 0:
            return self.same_turn(seat, 0, history)
        behind = range(seat + 1, len(history.agents))
        news = self._said(seat, turn - 1, behind, history, self.reward_feedback)
        news += self.same_turn(seat, turn, history)
        return news or self._heard(seat, turn, [], False)

    def same_turn(self, seat: int, turn: int, history: Transcript) -> str:
        """The messages of the earlier agents, without scores: these are not known yet."""
        return self._said(seat, turn, range(seat), history, False)

    def _said(self, seat: int, turn: int, seats: range, history: Transcript, show: bool) -> str:
        messages = history.of_turn(turn)
        heard = [(_number(s, seat), messages[s]) for s in seats if s < len(messages)]
        return self._heard(seat, turn, heard, show) if heard else ""


def _number(seat: int, reader: int) -> int:
    """Return the number (1-based) of agent `seat` in the views of agent `reader`."""
    return seat + 1 if seat < reader else seat
