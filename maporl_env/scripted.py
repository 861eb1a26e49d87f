"""Agents without a model: they read the messages of a debate and repeat one of them.

    reading = read(prompt.view, template, first)
    text = STRATEGIES["majority"](reading)

A strategy is a function of its agent's observation alone: the agent's own last message, the other
agents' messages since then, and the scores that were shown. It returns one of these messages word
for word, so an agent that adopts an answer adopts its working too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from string import Formatter

from maporl_env.answers import extract_answer
from maporl_env.prompts import Template
from maporl_env.types import View
from maporl_env.voting import majority


@dataclass(frozen=True, slots=True)
class ReadMessage:
    """A message as an agent reads it.

    Attributes:
        text: the message as it was written.
        score: the score that was shown; None if none was.
    """

    text: str
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """The messages that an agent knows before it speaks. Made by :func:`read`, read by strategies.

    Attributes:
        own: the agent's last message; before its first one, the message it would open with.
        others: the other agents' messages since then, in the order in which they are read.
        kind: the kind of answer that the question asks for (see `answers`).
    """

    own: ReadMessage
    others: tuple[ReadMessage, ...]
    kind: str


Strategy = Callable[[Reading], str]


def read(view: View, template: Template, first: str, kind: str = "number") -> Reading:
    """Return the messages in a view.

    They are found by the template's own words around the fences, which no message can close.

    Args:
        view: the view of the agent.
        template: the template that worded the view.
        first: the message it opens with, if it has written none yet.
        kind: the kind of answer.
    """
    own_texts = [text for who, text in view if who == "own"]
    latest = view[-1][1]
    others = tuple(
        ReadMessage(found["text"], _number(found["score"]))
        for found in _peers(template).finditer(latest)
    )
    if not own_texts:
        return Reading(ReadMessage(first), others, kind)
    verdict = _verdict(template.own_verdict).match(latest)
    score = _number(verdict["score"]) if verdict else None
    return Reading(ReadMessage(own_texts[-1], score), others, kind)


def keep(reading: Reading) -> str:
    """Repeat the own message, whatever others write."""
    return reading.own.text


def adopt_majority(reading: Reading) -> str:
    """Return a message with the most common answer, the own answer counted too.

    Of tied answers the own one is kept, else the one read first is taken; messages without an
    answer do not count.
    """
    known = (reading.own, *reading.others)
    answers = [extract_answer(message.text, reading.kind) for message in known]
    winners = majority(answers)
    chosen = (message for message, answer in zip(known, answers, strict=True) if answer in winners)
    return next(chosen, reading.own).text


def adopt_best_score(reading: Reading) -> str:
    """Return the message with the best shown score; the own one on ties or without scores."""
    known = (reading.own, *reading.others)
    scored = [message for message in known if message.score is not None]
    return max(scored, key=lambda message: message.score or 0.0, default=reading.own).text


STRATEGIES: dict[str, Strategy] = {
    "keep": keep,
    "majority": adopt_majority,
    "best": adopt_best_score,
}
"""Strategies by name."""


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


@lru_cache(maxsize=64)
def _verdict(words: str) -> re.Pattern[str]:
    return re.compile(_regex(words))


@lru_cache(maxsize=64)
def _peers(template: Template) -> re.Pattern[str]:
    """Return the pattern of one message of another agent."""
    return re.compile(_regex(template.peer, _regex(template.verdict)), re.DOTALL)


def _regex(words: str, verdict: str = "") -> str:
    """Return the regular expression of a format string, with groups for text, fence and score."""
    groups = {
        "number": r"\d+",
        "fence": "(?P<fence>`{3,})",
        "text": "(?P<text>.*?)",
        "score": r"(?P<score>\d+(?:\.\d+)?)",
        "verdict": f"(?:{verdict})?",
    }
    regex = ""
    for literal, field, _, _ in Formatter().parse(words):
        regex += re.escape(literal) + (groups[field] if field else "")
        if field == "fence":
            groups["fence"] = "(?P=fence)"
    return regex
