"""The interface of a verifier."""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence

from maporl_env.types import Question

ScoreFunction = Callable[[Sequence[Question], Sequence[str]], Sequence[float]]
"""`(questions, responses) -> scores`: equally long, scores in [0, 1]."""


@typing.runtime_checkable
class Verifier(typing.Protocol):
    """An object that scores answers."""

    def score(
        self, questions: Sequence[Question], responses: Sequence[str]
    ) -> Sequence[float | None]:
        """Return one score in [0, 1] per response, None where it could not be judged."""


VerifierLike = Verifier | ScoreFunction
