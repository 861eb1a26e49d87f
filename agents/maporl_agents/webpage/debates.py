"""Debates for the HTML report: shortened, escaped, every message with its verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from maporl_agents.measure.debate_stats import right, vote_accuracy
from maporl_agents.webpage.sources import Debates
from maporl_env.answers import extract_answer
from maporl_env.rendering.plain_text import harmless
from maporl_env.types import Message, Question, Transcript

MAX_QUESTIONS = 200
"""The most questions on the page, over all sets of debates."""
MAX_TEXT = 2_000
"""Characters shown of a message or question."""
MAX_CHARACTERS = 2_000_000
"""Characters of text in the page in all; later questions are left out."""

Mark = Literal["right", "wrong", "none", "unscored"]
Json = dict[str, Any]


def debate_sets(found: Mapping[str, Debates]) -> list[Json]:
    """Return each set of debates: the same questions before and after training, and their number.

    Returns:
        One object per set: "label", "total" questions, and "questions" as `_question` gives them.
    """
    sets: list[Json] = []
    room = MAX_CHARACTERS
    for label, debates in found.items():
        by_id: dict[str, dict[str, Transcript]] = {}
        for stage, transcripts in debates.items():
            for transcript in transcripts:
                by_id.setdefault(transcript.question.id, {})[stage] = transcript
        shown: list[Json] = []
        for stages in list(by_id.values())[: MAX_QUESTIONS // len(found)]:
            item = _question(stages)
            room -= _size(item)
            if room < 0:
                break
            shown.append(item)
        sets.append({"label": label, "total": len(by_id), "questions": shown})
    return sets


def _question(stages: Mapping[str, Transcript]) -> Json:
    """Return one question: "id", "prompt", "private", "key" and per stage turns and votes."""
    transcript = next(iter(stages.values()))
    question = transcript.question
    told = zip(transcript.agents, question.private, strict=False)
    return {
        "id": shown(question.id),
        "prompt": shown(question.prompt),
        "private": [{"agent": shown(agent), "text": shown(text)} for agent, text in told if text],
        "key": shown(question.answer),
        "stages": {stage: _stage(transcript) for stage, transcript in stages.items()},
    }


def _stage(transcript: Transcript) -> Json:
    """Return "turns", a list of messages each, and "votes", the accuracy of each turn's vote."""
    turns = [transcript.of_turn(t) for t in range(transcript.turn)]
    return {
        "turns": [[_message(m, transcript.question) for m in turn] for turn in turns],
        "votes": [_vote(turn, transcript.question) for turn in turns],
    }


def _message(message: Message, question: Question) -> Json:
    answer = extract_answer(message.answer, question.kind)
    return {
        "agent": shown(message.agent),
        "text": shown(message.whole),
        "mark": _mark(message, question),
        "answer": None if answer is None else shown(str(answer), 60),
        "score": message.score,
        "person": shown(str(message.person)),
    }


def _mark(message: Message, question: Question) -> Mark:
    """Return the verdict by the answer key; "unscored" where the verifier gave none."""
    if message.score is None:
        return "unscored"
    answer = extract_answer(message.answer, question.kind)
    if answer is None:
        return "none"
    return "right" if right(message, question) else "wrong"


def _vote(turn: Sequence[Message], question: Question) -> float:
    return vote_accuracy(
        [
            (extract_answer(m.answer, question.kind), right(m, question))
            for m in turn
            if m.scored and m.votes
        ]
    )


def shown(text: str, limit: int = MAX_TEXT) -> str:
    """Return text that may be shown: hidden characters as escapes, the end of long text cut."""
    cut = text[:limit]
    note = f" … ({len(text) - limit:,} more characters)" if len(text) > limit else ""
    return harmless(cut) + note


def _size(value: Any) -> int:
    """Return the characters of all texts in a JSON value."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else 0
