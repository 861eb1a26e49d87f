r"""A debate as plain text for a terminal, with agents' text made harmless.

Agents write anything. What would move the cursor, recolour, reverse or hide text (control
characters, bidirectional overrides, line separators, other invisible format characters) is shown as
an escape such as `\x1b`; every line of a message stands behind a bar, so no message can pass for
another's heading. The transcript keeps the raw text. `render` of the environments
(`env_bases.debate_base`) prints it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from maporl_env.types import AgentID, Message, Question, Transcript

_SUSPECT = re.compile(r"[^\n\t\x20-\x7e]")
_JOINERS = "\u200c\u200d"  # part of ordinary words and emoji
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def harmless(text: str) -> str:
    """Return `text` with every character that does not show itself written as an escape."""
    return _SUSPECT.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character in _JOINERS or unicodedata.category(character) not in _HIDDEN:
        return character
    return character.encode("unicode_escape").decode("ascii")


def heading(question: Question) -> str:
    """Return the question, ready to print."""
    return f"Question {harmless(question.id)}\n{_barred(question.prompt)}\n"


def private_texts(question: Question, agents: Iterable[AgentID]) -> str:
    """Return each agent's private text, for readers who may see all; "" if there is none."""
    told = zip(agents, question.private, strict=False)
    return "".join(f"Only {agent} is told\n{_barred(text)}\n" for agent, text in told if text)


def interventions(transcript: Transcript) -> str:
    """Return a line that says what a person did in a debate; "" for nothing."""
    did = [
        f"{m.agent} in turn {m.turn + 1} ({harmless(str(m.person))})" for m in transcript.intervened
    ]
    return f"A person intervened in this debate: {', '.join(did)}\n" if did else ""


def lines(messages: Iterable[Message]) -> str:
    """Return messages, each under its turn and author, ready to print."""
    return "".join(_lines_of(message) for message in messages)


def _lines_of(message: Message) -> str:
    notes = [f"score {message.score:.2f}"] if message.score is not None else []
    notes += ["cut"] if message.cut else []
    notes += [f"{harmless(str(message.person))} by a person"] if message.person else []
    note = f" ({', '.join(notes)})" if notes else ""
    return f"\nTurn {message.turn + 1}, {message.agent}{note}\n{_barred(message.whole)}\n"


def _barred(text: str) -> str:
    return "\n".join(f"  | {line}" for line in harmless(text).split("\n"))
