"""Drafts: tries of a message that its author alone reads, until one is accepted.

A draft is no message: it stands in no transcript and in no other agent's view, and is not scored.
Its author reads it before the next try, and never after the message. Under any protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from maporl_env.answers import extract_answer
from maporl_env.prompts import Template
from maporl_env.protocols.base import Protocol
from maporl_env.types import Message, Question, View

Accept = Callable[[Question, str], bool]
"""`(question, text) -> whether the text may be the message`; the question has no secrets."""


@dataclass(frozen=True, slots=True)
class Drafting:
    """The number of tries of a message, and which of them are refused.

    Attributes:
        tries: the most; the last one is the message in any case. At least 2.
        accept: says whether a try may be the message; None accepts one with a readable answer.
    """

    tries: int
    accept: Accept | None = None

    def refuses(self, question: Question, message: Message, made: int) -> bool:
        """Return whether a try is refused, after `made` others.

        Raises:
            ValueError: `accept` gave something else than True or False.
        """
        if made + 1 >= self.tries:
            return False
        if self.accept is None:
            return extract_answer(message.text, question.kind) is None
        verdict = self.accept(question.public, message.text)
        if not isinstance(verdict, bool):
            raise ValueError(f"accept must return True or False, not {verdict!r:.80}")
        return not verdict


def tries_again(protocol: Protocol, agent_index: int, drafts: Sequence[Message]) -> View:
    """Return what an agent reads behind its view: its drafts, each with the request to try again.

    The words are those of the protocol's template for the agent.
    """
    words = getattr(protocol, "words", None)
    template = Template() if words is None else words(agent_index)
    segments: list[tuple[str, str]] = []
    for draft in drafts:
        segments += [("own", draft.whole), ("user", template.refused.format())]
    return tuple(segments)  # type: ignore[arg-type]
