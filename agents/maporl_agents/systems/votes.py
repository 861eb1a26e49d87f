"""From passes to one answer per question: a vote, or the best by the verifier, of the first k.

A system answers every question in n passes that are independent of each other. What its first k
passes give together is what the system is worth at k times the tokens of one pass, so that systems
of different cost are compared at about equal tokens (`equal_tokens`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

from maporl_env.types import Answer, Question

Combine = Literal["vote", "best"]
Right = Callable[[Question, Answer], bool]


class Pass(NamedTuple):
    """What a system said in one pass over the questions.

    Attributes:
        answers: for each question, its answers: one, several if tied, none if none could be read.
        tokens: generated per question, mean over the questions.
        scores: the verifier's for each question, where one chooses among passes; else ().
    """

    answers: Sequence[tuple[Answer, ...]]
    tokens: float
    scores: Sequence[float | None] = ()


def winners(passes: Sequence[tuple[Answer, ...]]) -> tuple[Answer, ...]:
    """Return the answers with most votes. Tied answers of a pass share its vote equally."""
    votes: dict[Answer, Fraction] = {}
    for tied in passes:
        for answer in tied:
            votes[answer] = votes.get(answer, Fraction()) + Fraction(1, len(tied))
    most = max(votes.values(), default=None)
    return tuple(answer for answer in votes if votes[answer] == most)


def best(
    passes: Sequence[tuple[Answer, ...]], scores: Sequence[float | None]
) -> tuple[Answer, ...]:
    """Return the winners of a vote among the passes that the verifier scores highest."""
    top = max((score for score in scores if score is not None), default=None)
    if top is None:
        return ()
    return winners([one for one, score in zip(passes, scores, strict=True) if score == top])


def accuracies(
    passes: Sequence[Pass], questions: Sequence[Question], right: Right, combine: Combine
) -> list[list[float]]:
    """Return, for the first k = 1, 2, ... passes, the expected accuracy on every question.

    Of tied winners one is drawn.
    """
    found = []
    for count in range(1, len(passes) + 1):
        used = passes[:count]
        row = []
        for place, question in enumerate(questions):
            said = [one.answers[place] for one in used]
            chosen = (
                best(said, [one.scores[place] for one in used])
                if combine == "best"
                else winners(said)
            )
            hits = sum(right(question, answer) for answer in chosen)
            row.append(hits / len(chosen) if chosen else 0.0)
        found.append(row)
    return found
