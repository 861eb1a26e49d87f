"""Independent answers, of which a retriever returns the best (Corex)."""

from __future__ import annotations

import re
import typing
from dataclasses import dataclass
from typing import Literal

from maporl_env import fitting, prompts
from maporl_env.answers import answers_equal, extract_answer
from maporl_env.protocols.base import PartialTurns
from maporl_env.protocols.observation_layout import Conversation
from maporl_env.types import AgentID, Answer, Message, Transcript, View

By = Literal["agent", "score"]
SCORED = re.compile(
    r"\bAgent\s{1,3}(\d{1,4})\s{0,3}:\s{0,3}(\d(?:\.\d{1,9})?)(?![\d.]*\d)", re.IGNORECASE
)
ASKED = (
    "\nScore each answer from 0 to 1 by how well its reasoning supports it, one line each, as in "
    "Agent 1: 0.5\n"
)


@dataclass(frozen=True, slots=True)
class Retrieve(PartialTurns, Conversation):
    """Agents answer alone, once; the answer with the best score is the team's, not a vote.

    Source: Corex, arXiv 2310.00280, mode Retrieve (from secondary descriptions). One turn.

    Attributes:
        by: "agent": the last agent, the retriever, reads all answers and writes a score for each,
            as ``Agent 1: 0.5``; it is scored for the answer it scores highest. If it writes no
            scores but an answer, it has chosen the first message with that answer. "score": nobody
            retrieves, and the highest score that agents would read decides: that of
            `feedback_verifier`, such as a trained verifier, or without one that of the reward's.
    """

    num_turns: int = 1
    by: By = "agent"

    def __post_init__(self) -> None:
        Conversation.__post_init__(self)
        if self.num_turns != 1:
            raise ValueError(
                f"protocol 'retrieve' has one turn, not {self.num_turns}: set num_turns=1"
            )
        if self.by not in typing.get_args(By):
            raise ValueError(f"unknown by {self.by!r}: choose one of agent, score")

    def check(self, num_agents: int) -> None:
        """Raise ValueError unless somebody answers."""
        if num_agents < 2 and self.by == "agent":
            raise ValueError(
                "protocol 'retrieve' needs at least 2 agents, the last of which retrieves; got "
                f"{num_agents}"
            )
        Conversation.check(self, num_agents)

    def speakers(self, history: Transcript) -> tuple[AgentID, ...]:
        """All that answer, then the retriever."""
        if history.turn:
            return ()
        if self.by == "score":
            return history.agents
        return history.agents[-1:] if history.messages else history.agents[:-1]

    def turn_over(self, history: Transcript) -> bool:
        """Everybody speaks once."""
        return len(history.messages) == len(history.agents)

    def turn_of(self, agent: AgentID, history: Transcript) -> int:
        """Return the turn of the agent's message, which is the first."""
        return 0

    def view(self, agent: AgentID, history: Transcript) -> View:
        """The question; for the retriever, the answers and how to score them too."""
        agent_index = history.agents.index(agent)
        if self.by == "score" or agent != history.agents[-1] or not history.messages:
            return self._question(agent_index, history)
        template, question = self.words(agent_index), history.question
        numbered = list(enumerate(history.messages[: len(history.agents) - 1], start=1))

        def made(max_shown: int | None) -> View:
            said = prompts.peers_messages(
                template, 0, numbered, show_scores=False, max_shown=max_shown
            )
            text = prompts.ask(template, question, agent_index) + said + ASKED
            return self._opened(agent_index, text + prompts.cue(template, 0))

        head = self._question(agent_index, history)
        return fitting.fit_texts(made, head, self.token_budget, self.count_tokens)

    def voters(self, history: Transcript) -> tuple[AgentID, ...]:
        """The retriever, whose response is the message that it chose."""
        return history.agents[-1:] if self.by == "agent" else history.agents

    def response(self, agent: AgentID, history: Transcript) -> str:
        """The agent's own message; of the retriever, the message that it chose, or ""."""
        if self.by == "agent" and agent == history.agents[-1]:
            chosen = self.retrieved(history)
            return chosen.text if chosen is not None else ""
        return history.message(0, agent).text

    def retrieved(self, history: Transcript) -> Message | None:
        """Return the message with the highest score, the first of equal ones; None without any."""
        messages = history.messages
        if self.by == "score":
            scores = {place: m.feedback for place, m in enumerate(messages)}
        else:
            messages, last = messages[:-1], messages[-1]
            given = {int(number) - 1: float(score) for number, score in SCORED.findall(last.text)}
            scores = {p: x for p, x in given.items() if 0 <= p < len(messages) and x <= 1}
            if not given:
                return _repeated(last.text, messages, history.question.kind)
        known = [(score, -place) for place, score in scores.items() if score is not None]
        return messages[-max(known)[1]] if known else None

    def outcome(self, history: Transcript) -> tuple[Answer, ...]:
        """The answer of the message that was retrieved."""
        chosen = self.retrieved(history) if history.turn else None
        answer = None if chosen is None else extract_answer(chosen.text, history.question.kind)
        return () if answer is None else (answer,)


def _repeated(text: str, messages: tuple[Message, ...], kind: str) -> Message | None:
    """Return the first message that has the same answer as a text; None without any."""
    own = extract_answer(text, kind)
    answers = ((one, extract_answer(one.text, kind)) for one in messages if own is not None)
    return next((one for one, answer in answers if answers_equal(own, answer)), None)
