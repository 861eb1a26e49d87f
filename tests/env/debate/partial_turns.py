"""A protocol in whose turns not all speak, small enough to work out by hand."""

from __future__ import annotations

from dataclasses import dataclass

from maporl_env import prompts
from maporl_env.protocols import Conversation, PartialTurns, Privileged, answers_of_turn
from maporl_env.types import AgentID, Answer, Transcript, View


@dataclass(frozen=True, slots=True)
class Ushers(PartialTurns, Privileged, Conversation):
    """Agents 0 and 1 speak at once; in odd turns (0-based) agent 2 speaks after them.

    Agent 1 is not scored. Agent 2 is not paid, and reads the reference. Everybody reads everything.
    """

    def turn_over(self, history: Transcript) -> bool:
        said = len(history.of_turn(history.turn))
        return said == (3 if history.turn % 2 else 2)

    def scored(self, history: Transcript) -> tuple[AgentID, ...]:
        return tuple(m.agent for m in history.of_turn(history.turn - 1) if m.agent != "agent_1")

    def paid(self, history: Transcript) -> tuple[AgentID, ...]:
        return tuple(m.agent for m in history.of_turn(history.turn - 1) if m.agent != "agent_2")

    def privileged(self, agents: tuple[AgentID, ...]) -> tuple[AgentID, ...]:
        return agents[2:]

    def speakers(self, history: Transcript) -> tuple[AgentID, ...]:
        if history.turn >= self.num_turns:
            return ()
        begun = len(history.of_turn(history.turn))
        return history.agents[2:] if begun else history.agents[:2]

    def view(self, agent: AgentID, history: Transcript) -> View:
        question = history.question
        asked = prompts.ask(self.words(0), question, history.agents.index(agent))
        said = "".join(f"<{m.turn}{m.agent}: {m.text}>" for m in history.messages)
        return (("user", f"{asked}[{question.hidden}]{said}"),)

    def response(self, agent: AgentID, history: Transcript) -> str:
        return history.message(history.turn - 1, agent).text

    def outcome(self, history: Transcript) -> tuple[Answer, ...]:
        answers = answers_of_turn(history, history.turn - 1)[-1:] if history.turn else []
        return tuple(answer for answer in answers if answer is not None)
