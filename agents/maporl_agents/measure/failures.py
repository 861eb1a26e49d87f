"""Why messages score nothing: a wrong answer, or none that can be read, and why not.

A small model that is wrong needs to be trained; one whose answers cannot be read needs a worked
example, another answer rule, more tokens, or a warm-up. Functions of transcripts alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from maporl_env.answers import KINDS, extract_answer, parse_answer
from maporl_env.credit import is_right
from maporl_env.rendering.plain_text import harmless
from maporl_env.types import Answer, Message, Question, Transcript

Outcome = Literal["right", "wrong", "unmarked", "cut", "empty", "other"]

WORDS: dict[Outcome, str] = {
    "wrong": "a wrong answer",
    "unmarked": "the right answer, not marked as it must be",
    "cut": "cut by the token limit before any answer",
    "empty": "blank",
    "other": "no answer at all",
}
FORMAT: tuple[Outcome, ...] = ("unmarked", "cut", "empty", "other")
"""Outcomes that are failures of format: there is no answer to be right or wrong."""
EXAMPLES = 3
SHOWN = 300
"""Characters of a message that is shown as an example."""
SEARCHED = 4_000
"""Characters at the end of a message that are searched for an unmarked answer."""
_NUMBERS = re.compile(r"[-+]?[$]?[0-9][0-9,]*(?:\.[0-9]+)?(?:/[0-9]+)?")


@dataclass(frozen=True)
class Failures:
    """The outcomes of the messages of one turn.

    Attributes:
        turn: counted from 0.
        shares: share of the messages by outcome, "right" included.
        count: number of messages.
        examples: at most three messages that failed, each with its question, of as many different
            outcomes as there are.
    """

    turn: int
    shares: dict[Outcome, float]
    count: int
    examples: tuple[tuple[Outcome, Question, Message], ...]

    @property
    def format(self) -> float:
        """Share of messages without an answer that can be read."""
        return sum(self.shares.get(outcome, 0.0) for outcome in FORMAT)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {
            "turn": self.turn,
            "messages": self.count,
            "shares": dict(self.shares),
            "format": self.format,
            "examples": [
                {"outcome": outcome, "question": question.id, **message.to_dict()}
                for outcome, question, message in self.examples
            ],
        }

    def lines(self) -> list[str]:
        """Return the failures in words, then the examples; [] if all messages are right."""
        if not self.examples:
            return []
        parts = [
            f"{self.shares[outcome]:.1%} {WORDS[outcome]}"
            for outcome in FORMAT
            if self.shares.get(outcome)
        ]
        return [
            f"turn {self.turn + 1}, {self.count:,} messages: "
            f"{self.shares.get('right', 0.0):.1%} right; wrong answers: "
            f"{self.shares.get('wrong', 0.0):.1%}; format failures: {self.format:.1%}"
            + (f" ({', '.join(parts)})" if parts else ""),
            *(_example(*example) for example in self.examples),
        ]


def failures(transcripts: Sequence[Transcript]) -> tuple[Failures, ...]:
    """Return the outcomes of each turn; () where answers are programs."""
    if any(one.question.kind == "code" for one in transcripts):
        return ()
    horizon = max((transcript.turn for transcript in transcripts), default=0)
    return tuple(_of_turn(turn, transcripts) for turn in range(horizon))


def _of_turn(turn: int, transcripts: Sequence[Transcript]) -> Failures:
    found = [
        (outcome_of(one.question, message), one.question, message)
        for one in transcripts
        for message in one.of_turn(min(turn, one.turn - 1))
        if _counts(message, one.question)
    ]
    counts = Counter(outcome for outcome, _, _ in found)
    return Failures(
        turn,
        {outcome: count / len(found) for outcome, count in counts.most_common()},
        len(found),
        tuple(_examples(found)),
    )


def _counts(message: Message, question: Question) -> bool:
    """Return whether a message is an answer that is known to be right or wrong."""
    return message.scored and (KINDS[question.kind].keyed or message.score is not None)


def _examples(
    found: Sequence[tuple[Outcome, Question, Message]],
) -> Iterator[tuple[Outcome, Question, Message]]:
    """Yield failed messages: the first of each outcome, then the next ones."""
    failed = [one for one in found if one[0] != "right"]
    firsts: dict[Outcome, int] = {}
    for place, (outcome, _, _) in enumerate(failed):
        firsts.setdefault(outcome, place)
    order = [*firsts.values(), *(i for i in range(len(failed)) if i not in firsts.values())]
    yield from (failed[place] for place in sorted(order[:EXAMPLES]))


def outcome_of(question: Question, message: Message) -> Outcome:
    """Return whether a message is right, as `is_right` tells, and why it has no answer."""
    if is_right(message, question):
        return "right"
    if extract_answer(message.answer, question.kind) is not None:
        return "wrong"
    if not message.text.strip():
        return "empty"
    right = parse_answer(question.answer, question.kind)
    if right is not None and _names(message.text[-SEARCHED:], right):
        return "unmarked"
    return "cut" if message.cut else "other"


def _names(text: str, right: Answer) -> bool:
    """Return whether a text without a marked answer names the right one."""
    if isinstance(right, str):
        return re.search(rf"(?<!\w){re.escape(right.lower())}(?!\w)", text.lower()) is not None
    numbers = (found[0].rstrip(",") for found in _NUMBERS.finditer(text))
    return any(parse_answer(number, "number") == right for number in numbers)


def _example(outcome: Outcome, question: Question, message: Message) -> str:
    """Return a failed message in words; what an agent wrote is made harmless for a terminal."""
    text = harmless(" ".join(message.text.split()))
    shown = text if len(text) <= SHOWN else f"{text[: SHOWN // 2]} [...] {text[-SHOWN // 2 :]}"
    return (
        f"  e.g. {question.id}, {message.agent}, {WORDS[outcome]}; key {question.answer}: "
        f"{shown or '(nothing)'}"
    )
