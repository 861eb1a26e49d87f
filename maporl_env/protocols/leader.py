"""A leader that answers after its peers, who read it and never each other (MLPO)."""

from __future__ import annotations

import typing
from dataclasses import dataclass, replace
from typing import Literal

from maporl_env.protocols.base import PartialTurns
from maporl_env.protocols.observation_layout import Conversation, answers_of_turn
from maporl_env.protocols.visibility import number_of
from maporl_env.types import AgentID, Answer, Message, Transcript, View

Paid = Literal["leader", "all"]


@dataclass(frozen=True, slots=True)
class Leader(PartialTurns, Conversation):
    """K peers answer at once, then the leader, the last agent, reads them and answers: T turns.

    Source: MLPO, arXiv 2507.08960 (from secondary descriptions). From the second turn on a peer
    reads the question, its own messages and the leader's; the leader reads the question and the new
    messages of its peers. The leader's last answer is the team's. K = 0 is the leader alone.

    Attributes:
        paid_agents: who is rewarded: the "leader" alone, or "all".
        leader_remembers: whether the leader reads its own earlier messages; the sources do not say.
    """

    paid_agents: Paid = "leader"
    leader_remembers: bool = True

    def __post_init__(self) -> None:
        Conversation.__post_init__(self)
        if self.paid_agents not in typing.get_args(Paid):
            raise ValueError(f"unknown paid_agents {self.paid_agents!r}: choose one of leader, all")
        if not isinstance(self.leader_remembers, bool):
            raise ValueError(
                f"leader_remembers must be True or False, not {self.leader_remembers!r}"
            )

    @property
    def appends(self) -> bool:
        """Views only grow unless history, or the leader's own messages, are left out."""
        whole = self.history == "all" and self.token_budget is None
        return whole and self.leader_remembers

    def speakers(self, history: Transcript) -> tuple[AgentID, ...]:
        """All peers, then the leader, until the horizon."""
        if history.turn >= self.num_turns:
            return ()
        *peers, leader = history.agents
        return tuple(peers) if peers and not history.of_turn(history.turn) else (leader,)

    def turn_over(self, history: Transcript) -> bool:
        """A turn ends with the leader."""
        return history.messages[-1].agent == history.agents[-1]

    def paid(self, history: Transcript) -> tuple[AgentID, ...]:
        """The leader, or all agents."""
        return self.payable(history.agents)

    def voters(self, history: Transcript) -> tuple[AgentID, ...]:
        """The leader."""
        return history.agents[-1:]

    def payable(self, agents: tuple[AgentID, ...]) -> tuple[AgentID, ...]:
        """The leader, or all agents."""
        return agents if self.paid_agents == "all" else agents[-1:]

    def turn_of(self, agent: AgentID, history: Transcript) -> int:
        """Return the turn of the agent's next message (0-based)."""
        spoken = any(m.agent == agent for m in history.of_turn(history.turn))
        return history.turn + spoken

    def view(self, agent: AgentID, history: Transcript) -> View:
        """Question and the turns of `self.history`; what is read of them, see `news`."""
        if agent == history.agents[-1] and not self.leader_remembers and self.history != "none":
            return replace(self, history="none").view(agent, history)
        return Conversation.view(self, agent, history)

    def news(self, agent_index: int, turn: int, history: Transcript) -> str:
        """Return what an agent reads since its own message of `turn` - 1.

        For the leader these are its peers' messages of this turn, for a peer the leader's of the
        turn before; without any, the request to think again.
        """
        if agent_index == len(history.agents) - 1:
            said = self.same_turn(agent_index, turn, history)
        else:
            said = self._told(agent_index, turn - 1, self._leaders(turn - 1, history), history)
        return said or (self.words(agent_index).nobody.format() if turn else "")

    def same_turn(self, agent_index: int, turn: int, history: Transcript) -> str:
        """Return the peers' messages of a turn for the leader, nothing for a peer."""
        leader = history.agents[-1]
        if history.agents[agent_index] != leader:
            return ""
        peers = [m for m in history.of_turn(turn) if m.agent != leader]
        return self._told(agent_index, turn, peers, history)

    def _leaders(self, turn: int, history: Transcript) -> list[Message]:
        leader = history.agents[-1]
        return [m for m in history.of_turn(turn) if m.agent == leader] if turn >= 0 else []

    def _told(self, agent_index: int, turn: int, said: list[Message], history: Transcript) -> str:
        """Return messages as one text, each under the author's number in the reader's views."""
        if not said:
            return ""
        places = [history.agents.index(m.agent) for m in said]
        numbered = [
            (number_of(place, agent_index), message)
            for place, message in zip(places, said, strict=True)
        ]
        # The leader reads its peers before they are scored, and a view must not change later.
        scores = self.reward_feedback and agent_index < len(history.agents) - 1
        return self._peers_messages(agent_index, turn, numbered, scores)

    def outcome(self, history: Transcript) -> tuple[Answer, ...]:
        """The leader's answer in the last complete turn."""
        answers = answers_of_turn(history, history.turn - 1)[-1:] if history.turn else []
        return tuple(answer for answer in answers if answer is not None)
