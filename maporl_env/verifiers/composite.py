"""The weighted mean of several verifiers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from maporl_env.types import Question
from maporl_env.verifiers.base import VerifierLike
from maporl_env.verifiers.scorer import Scorer


class Composite:
    """The weighted mean of several verifiers; no score where any of them gives none.

    Args:
        parts: (verifier, weight) pairs, weights > 0.
    """

    def __init__(self, parts: Sequence[tuple[VerifierLike, float]]) -> None:
        if not parts or any(not (math.isfinite(w) and w > 0) for _, w in parts):
            raise ValueError("a composite verifier needs at least one part, each of weight > 0")
        self.scorers = [Scorer(verifier) for verifier, _ in parts]
        total = sum(weight for _, weight in parts)
        self.weights = [weight / total for _, weight in parts]

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float | None]:
        """Return the weighted means."""
        columns = [scorer.score(questions, responses) for scorer in self.scorers]
        return [self._mean(row) for row in zip(*columns, strict=True)]

    def _mean(self, row: tuple[float | None, ...]) -> float | None:
        known = [w * s for w, s in zip(self.weights, row, strict=True) if s is not None]
        return min(1.0, math.fsum(known)) if len(known) == len(row) else None
