"""A judge that errs at a given rate, drawn from the question and the answer alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from maporl_env.answers import KINDS, extract_answer, gold
from maporl_env.types import Question


class NoisyKey:
    """A judge that is usually right: 1 for right, 0 for wrong, sometimes 0.5 or the opposite.

    The verdict belongs to question and answer: given again it is the same, also in another process,
    and wording around the answer does not change it. As `feedback_verifier` it shows agents the
    scores of a fallible judge, while the answer key decides the rewards.

    Args:
        reliability: probability of the true verdict.
        unsure: probability of 0.5. What is left is the probability of the opposite verdict.
        seed: selects the questions and answers on which the judge errs.
    """

    def __init__(self, reliability: float = 0.9, unsure: float = 0.05, seed: int = 0) -> None:
        if not (reliability >= 0 and unsure >= 0 and reliability + unsure <= 1 + 1e-9):
            raise ValueError(
                "reliability and unsure are probabilities that add up to at most 1, not "
                f"{reliability!r} and {unsure!r}"
            )
        self.reliability = reliability
        self.unsure = unsure
        self.seed = seed

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float | None]:
        """Return 1.0, 0.5 or 0.0 per response; None where no key can tell (`AnswerKind.keyed`)."""
        return [self._one(q, text) for q, text in zip(questions, responses, strict=True)]

    def _one(self, question: Question, text: str) -> float | None:
        if not KINDS[question.kind].keyed:
            return None
        answer = extract_answer(text, question.kind)
        right = answer == gold(question.answer, question.kind)
        drawn = _fraction(self.seed, question.id, question.prompt, answer)
        if drawn < self.reliability:
            return float(right)
        return 0.5 if drawn < self.reliability + self.unsure else float(not right)


def _fraction(*parts: object) -> float:
    """Return a number in [0, 1) that depends on `parts` alone."""
    digest = hashlib.blake2b(repr(parts).encode("utf-8", "backslashreplace"), digest_size=8)
    return int.from_bytes(digest.digest(), "big") / 2**64
