"""Verifiers that compare the answer with the gold answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from maporl_env.answers import KINDS, extract_answer, gold
from maporl_env.types import Question


class AnswerKey:
    """1 if the answer read from the response is the gold answer, else 0. Never fails."""

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float | None]:
        """Return 1.0 or 0.0 per response; None where no key can tell (`AnswerKind.keyed`)."""
        return [
            float(extract_answer(text, q.kind) == gold(q.answer, q.kind))
            if KINDS[q.kind].keyed
            else None
            for q, text in zip(questions, responses, strict=True)
        ]


class NumericTolerance:
    """1 if a numeric answer is close enough to the gold number, else 0.

    Args:
        relative: allowed error as a share of the gold number's size.
        absolute: allowed error in the unit of the answer; the larger allowance counts.
    """

    def __init__(self, relative: float = 1e-6, absolute: float = 0.0) -> None:
        for name, value in (("relative", relative), ("absolute", absolute)):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a finite number >= 0, not {value!r}")
        self.relative = Fraction(relative)
        self.absolute = Fraction(absolute)

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float | None]:
        """Return 1.0 or 0.0 per response; None where the question has no numeric answer."""
        return [self._one(q, text) for q, text in zip(questions, responses, strict=True)]

    def _one(self, question: Question, text: str) -> float | None:
        key = gold(question.answer, question.kind)
        if not isinstance(key, int | Fraction):
            return None
        answer = extract_answer(text, question.kind)
        if not isinstance(answer, int | Fraction):
            return 0.0
        right = Fraction(key)
        allowed = max(self.absolute, self.relative * abs(right))
        return float(abs(answer - right) <= allowed)
