"""The debate of MAPoRL: all agents of a turn answer at once."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Literal

from maporl_env.protocols.conversation import Conversation, answers_of_turn
from maporl_env.types import AgentID, Transcript

Stop = Literal["fixed", "consensus"]


@dataclass(frozen=True, slots=True)
class SimultaneousDebate(Conversation):
    """The paper's debate: A agents answer at once, T times, each reading all earlier turns.

    s(1, i) = LLM_i(q);  s(t+1, i) = LLM_i(q and all s(t', j), j in agents, t' <= t)  (section 3.1)

    Attributes:
        stop: "fixed" plays all turns; "consensus" ends after a turn whose valid answers all agree.
    """

    stop: Stop = "fixed"

    def __post_init__(self) -> None:
        Conversation.__post_init__(self)
        if self.stop not in typing.get_args(Stop):
            raise ValueError(f"unknown stop {self.stop!r}: choose one of fixed, consensus")

    def speakers(self, history: Transcript) -> tuple[AgentID, ...]:
        """All agents, or the next one, until the horizon or a consensus."""
        between_turns = len(history.messages) == history.turn * len(history.agents)
        if self.stop == "consensus" and history.turn and between_turns and consensus(history):
            return ()
        return Conversation.speakers(self, history)


def consensus(history: Transcript) -> bool:
    """Whether all valid answers of the last complete turn agree, and there is at least one."""
    valid = {a for a in answers_of_turn(history, history.turn - 1) if a is not None}
    return len(valid) == 1
