"""What each agent may know about a question: private texts, the hidden reference, clean words."""

from __future__ import annotations

from dataclasses import replace

from maporl_env.protocols.base import Privileged, Protocol
from maporl_env.types import LONG_REFERENCE, AgentID, Message, Question, Transcript, WithResults


def as_known_to(agent: AgentID, history: Transcript, protocol: Protocol) -> Transcript:
    """Return a history as an agent may know it, of the question and of results of tools.

    Views are made from this, so that no protocol can show an agent the private texts of others, nor
    the reference to an agent that is not privileged. The texts of messages hold the results of
    tools that the agent reads: of its own calls, and of others' where they are shown.
    """
    question = history.question
    if any(message.results for message in history.messages):
        history = replace(history, messages=tuple(_read(agent, m) for m in history.messages))
    if not (question.private or question.hidden):
        return history
    informed = isinstance(protocol, Privileged) and agent in protocol.privileged(history.agents)
    known = question.known_to(history.agents.index(agent), reference=informed)
    return Transcript(known, history.agents, history.messages, history.ends)


def _read(agent: AgentID, message: Message) -> Message:
    """Return a message as an agent reads it, with the results of tools in its text or without."""
    if not message.results or not (message.agent == agent or message.results_shown):
        return message
    return replace(message, text=message.whole, results=())


def with_results(message: Message, action: str) -> Message:
    """Return a message with the results of tools in its action, but those cut off, and its mark."""
    if not isinstance(action, WithResults):
        return message
    kept = [(place, clean(text)) for place, text in action.results if place <= len(message.text)]
    shown = action.shown or not kept
    return replace(message, results=tuple(kept), results_shown=shown, person=action.person)


def require_private(question: Question, num_agents: int) -> None:
    """Raise ValueError unless a question has no private texts, or one per agent."""
    if question.private and len(question.private) != num_agents:
        raise ValueError(
            f"question {question.id!r} has private texts for {len(question.private)} agents, not "
            f"for {num_agents}: set num_agents={len(question.private)}, or give one text per agent"
        )


def require_unreachable(question: Question, history: Transcript, protocol: Protocol) -> None:
    """Raise ValueError if the hidden reference would reach an agent that may not read it.

    A prompt that holds it is refused where the question is made; private texts and personas are
    looked at here.
    """
    reference = _squeezed(question.hidden)
    if len(reference) < LONG_REFERENCE:
        return
    informed = protocol.privileged(history.agents) if isinstance(protocol, Privileged) else ()
    read = {"private text": question.private, "persona": getattr(protocol, "personas", ())}
    for what, texts in read.items():
        for agent, text in zip(history.agents, texts, strict=False):
            if agent not in informed and reference in _squeezed(text):
                raise ValueError(
                    f"the hidden reference of question {question.id!r} stands in the {what} of "
                    f"{agent}, which may not read it: take it out of there, or leave hidden empty"
                )


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def cleaned(question: Question) -> Question:
    """Return a question whose texts can be encoded; the same where they can be already."""
    prompt, private = clean(question.prompt), tuple(map(clean, question.private))
    hidden = clean(question.hidden)
    if (prompt, private, hidden) == (question.prompt, question.private, question.hidden):
        return question
    return replace(question, prompt=prompt, private=private, hidden=hidden)


def clean(text: str) -> str:
    """Return `text` as a plain str that can be encoded: lone surrogates become U+FFFD."""
    text = str(text)
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
