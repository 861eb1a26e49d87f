"""The joint answer of MAGRPO: each agent writes a part of one text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from maporl_env import fitting, prompts
from maporl_env.answers import extract_answer
from maporl_env.protocols.observation_layout import Conversation
from maporl_env.types import AgentID, Answer, Question, Transcript

Feedback = Callable[[Question, str], str]
"""`(question, joint answer) -> text` from outside (a compiler, a test run), for the next turn."""

Joiner = Callable[[Sequence[str]], str]
"""Joins the parts of an answer, in order of the agents, into one text."""


@dataclass(frozen=True, slots=True)
class JointAnswer(Conversation):
    """Agents write parts of one answer at once; the joined text is what counts (MAGRPO).

    Source: arXiv 2508.04652. Everybody's score is that of the joined text.

    Attributes:
        joiner: joins the parts, in order of the agents, into one text.
        feedback: makes a text about the joint answer that all agents read before the next turn; a
            pure function. None for no feedback.
        show_parts: whether an agent reads the other agents' parts of earlier turns. In MAGRPO it
            does not: it reads the feedback alone.
    """

    joiner: Joiner = "\n".join
    feedback: Feedback | None = None
    show_parts: bool = True

    def joined(self, turn: int, history: Transcript) -> str:
        """Return the joint answer of one complete turn."""
        return self.joiner([message.text for message in history.of_turn(turn)])

    def news(self, agent_index: int, turn: int, history: Transcript) -> str:
        """The other agents' parts, or the request to think again, then the feedback."""
        if turn == 0:
            return ""
        news = self.words(agent_index).nobody.format()
        if self.show_parts:
            news = Conversation.news(self, agent_index, turn, history)
        if self.feedback is not None:
            # All agents read the feedback, so it is made without what not all of them may read.
            text = self.feedback(history.question.public, self.joined(turn - 1, history))
            news += prompts.feedback(self.words(agent_index), text, self.max_shown)
        return news

    def _parts(self, agent: AgentID, told: range, history: Transcript) -> fitting.Parts:
        asked_once = None if self.feedback is None else cache(self.feedback)
        return Conversation._parts(replace(self, feedback=asked_once), agent, told, history)

    def response(self, agent: AgentID, history: Transcript) -> str:
        """The joint answer of the last complete turn, for every agent."""
        return self.joined(history.turn - 1, history)

    def outcome(self, history: Transcript) -> tuple[Answer, ...]:
        """The answer in the last joint text."""
        if not history.turn:
            return ()
        answer = extract_answer(self.joined(history.turn - 1, history), history.question.kind)
        return () if answer is None else (answer,)
