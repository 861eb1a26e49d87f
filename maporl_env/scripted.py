"""Agents without a model: what they read, and simple ways to go on from it.

    reading = read(prompt.view, template, first)
    text = STRATEGIES["majority"](reading)

A strategy is a function of what its agent reads and of nothing else: its own last message, what the
others wrote since, and the scores that were shown. It says one of those messages again, word for
word, so the agent that adopts an answer adopts the working with it.
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
class Heard:
    """A message as an agent reads it.

    Attributes:
        text: what was written.
        score: what was shown of its score; None if nothing was.
    """

    text: str
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What an agent has before it speaks. Made by :func:`read`, read by strategies.

    Attributes:
        own: its last message; before its first one, what it would say unasked.
        others: what others have written since, in the order it is read.
        kind: how answers are marked (see `answers`), as the question's instruction says.
    """

    own: Heard
    others: tuple[Heard, ...]
    kind: str


Strategy = Callable[[Reading], str]


def read(view: View, template: Template, first: str, kind: str = "number") -> Reading:
    """Return the messages in a view.

    They are found by the template's own words around the fences, which no message can close.

    Args:
        view: what the agent reads.
        template: the words that the view is made of.
        first: its message if it has written none yet.
        kind: of the answers.
    """
    own_texts = [text for who, text in view if who == "own"]
    latest = view[-1][1]
    heard = tuple(
        Heard(found["text"], _number(found["score"])) for found in _peers(template).finditer(latest)
    )
    if not own_texts:
        return Reading(Heard(first), heard, kind)
    verdict = _verdict(template.own_verdict).match(latest)
    score = _number(verdict["score"]) if verdict else None
    return Reading(Heard(own_texts[-1], score), heard, kind)


def keep(reading: Reading) -> str:
    """Say the own message again, whatever others write."""
    return reading.own.text


def adopt_majority(reading: Reading) -> str:
    """Say a message with the most common answer, the own one among them counted.

    Of tied answers the own one is kept, else the one read first is taken; messages without an
    answer do not count.
    """
    known = (reading.own, *reading.others)
    answers = [extract_answer(heard.text, reading.kind) for heard in known]
    winners = majority(answers)
    chosen = (heard for heard, answer in zip(known, answers, strict=True) if answer in winners)
    return next(chosen, reading.own).text


def adopt_best_score(reading: Reading) -> str:
    """Say the message with the best score shown; the own one where it is as good, or none is."""
    known = (reading.own, *reading.others)
    scored = [heard for heard in known if heard.score is not None]
    return max(scored, key=lambda heard: heard.score or 0.0, default=reading.own).text


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
    """What matches one message of another agent."""
    return re.compile(_regex(template.peer, _regex(template.verdict)), re.DOTALL)


def _regex(words: str, verdict: str = "") -> str:
    """Return what matches a format string, with groups for text, fence and score."""
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
