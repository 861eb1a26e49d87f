"""The debate of MAPoRL: all agents of a turn answer at once."""

from __future__ import annotations

from dataclasses import dataclass

from maporl_env.protocols.early_stopping import Stop, require_stop, stops_early
from maporl_env.protocols.observation_layout import Conversation
from maporl_env.types import AgentID, Transcript


@dataclass(frozen=True, slots=True)
class SimultaneousDebate(Conversation):
    """The paper's debate: A agents answer at once, T times, each reading all earlier turns.

    s(1, i) = LLM_i(q);  s(t+1, i) = LLM_i(q and all s(t', j), j in agents, t' <= t)  (section 3.1)

    Attributes:
        stop: "fixed" plays all turns; "consensus" ends after a turn whose valid answers all agree,
            see `early_stopping`.
    """

    stop: Stop = "fixed"

    def __post_init__(self) -> None:
        Conversation.__post_init__(self)
        require_stop(self.stop)

    def speakers(self, history: Transcript) -> tuple[AgentID, ...]:
        """All agents, or the next one, until the horizon or a consensus."""
        if stops_early(self.stop, history):
            return ()
        return Conversation.speakers(self, history)
