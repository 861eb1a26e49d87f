"""Votes over extracted answers.

None abstains. Nothing here depends on the order of the answers, so ties need no arbitrary breaking:
all tied answers win, and accuracy is the expectation of drawing one of them at random.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction

from maporl_env.types import Answer


def majority(answers: Iterable[Answer | None]) -> tuple[Answer, ...]:
    """Return the most common valid answers: one, several when tied, none when all abstain.

    Winners are sorted, numbers by value before text, so a permuted vote gives the same tuple.
    """
    votes = Counter(answer for answer in answers if answer is not None)
    most = max(votes.values(), default=0)
    return tuple(sorted((answer for answer in votes if votes[answer] == most), key=_sort_key))


def expected_accuracy(answers: Iterable[Answer | None], gold: Answer) -> float:
    """Return the chance that a winner drawn at random is `gold`; 0.0 for an empty vote.

    Raises:
        ValueError: `gold` is None; an unreadable gold answer must be refused at load.
    """
    if gold is None:
        raise ValueError("gold is None: read the gold answer with answers.read_gold at load time")
    winners = majority(answers)
    return 1.0 / len(winners) if gold in winners else 0.0


def participation(answers: Sequence[Answer | None]) -> float:
    """Return the share of voters with a valid answer, in [0, 1]; 0.0 when there are no voters.

    Show it beside an agreement rate: two equal votes out of three are not "100 % agreement".
    """
    return sum(answer is not None for answer in answers) / len(answers) if answers else 0.0


def _sort_key(answer: Answer) -> tuple[bool, int | Fraction, str]:
    if isinstance(answer, int | Fraction):
        return (False, answer, "")
    return (True, 0, str(answer))
