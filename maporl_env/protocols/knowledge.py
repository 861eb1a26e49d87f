"""What each agent may know about a question: private texts, the hidden reference, clean words."""

from __future__ import annotations

from dataclasses import replace

from maporl_env.protocols.base import Privileged, Protocol
from maporl_env.types import AgentID, Question, Transcript


def as_known_to(agent: AgentID, history: Transcript, protocol: Protocol) -> Transcript:
    """Return a history without what an agent may not know about the question.

    Views are made from this, so that no protocol can show an agent the private texts of others, nor
    the reference to an agent that is not privileged.
    """
    question = history.question
    if not (question.private or question.hidden):
        return history
    informed = isinstance(protocol, Privileged) and agent in protocol.privileged(history.agents)
    known = question.known_to(history.agents.index(agent), reference=informed)
    return Transcript(known, history.agents, history.messages, history.ends)


def require_private(question: Question, num_agents: int) -> None:
    """Raise ValueError unless a question has no private texts, or one per agent."""
    if question.private and len(question.private) != num_agents:
        raise ValueError(
            f"question {question.id!r} has private texts for {len(question.private)} agents, not "
            f"for {num_agents}: set num_agents={len(question.private)}, or give one text per agent"
        )


def cleaned(question: Question) -> Question:
    """Return a question whose texts can be encoded; the same where they can be already."""
    prompt, private = clean(question.prompt), tuple(map(clean, question.private))
    if (prompt, private) == (question.prompt, question.private):
        return question
    return replace(question, prompt=prompt, private=private)


def clean(text: str) -> str:
    """Return `text` as a plain str that can be encoded: lone surrogates become U+FFFD."""
    text = str(text)
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
