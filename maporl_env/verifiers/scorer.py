"""The guard between a verifier and the rewards: only valid scores pass."""

from __future__ import annotations

import inspect
import typing
from collections import Counter
from collections.abc import Sequence

from maporl_env.types import Question
from maporl_env.verifiers.base import ScoreFunction, VerifierLike
from maporl_env.verifiers.faults import as_list, attempt, judge, say
from maporl_env.verifiers.function import FunctionVerifier
from maporl_env.verifiers.redaction import without_secrets


class Scorer:
    """Calls a verifier and passes on only valid scores.

    Attributes:
        faults: number of messages without a score, by cause: "raised", "timed out",
            "wrong count", "not a number", "out of range", "no score".
        last_error: the latest exception of the verifier as a text; None if there was none.
    """

    def __init__(self, verifier: VerifierLike, timeout_seconds: float | None = None) -> None:
        function = _score_function(verifier)
        if timeout_seconds is not None:
            function = FunctionVerifier(function, timeout_seconds).score
        self._call = function
        self._verifier = verifier
        self.faults: Counter[str] = Counter()
        self.last_error: str | None = None

    @property
    def costs(self) -> dict[str, int]:
        """Amounts that the verifier has used so far (its `costs`), such as tokens; {} if none."""
        return dict(getattr(self._verifier, "costs", {}))

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float | None]:
        """Return one score in [0, 1] per response, None where the verifier failed.

        The verifier gets lists of its own: what it does to them changes nothing here.
        """
        count = len(responses)
        judged, error = attempt(
            lambda: [judge(v) for v in as_list(self._call([*questions], [*responses]), count)]
        )
        if judged is None:
            assert error is not None
            self.last_error = say(error, lambda words: without_secrets(words, questions))
            timed_out = isinstance(error, TimeoutError)
            return self._none("timed out" if timed_out else "raised", count)
        if len(judged) != count:
            return self._none("wrong count", count)
        self.faults.update(cause for cause, _ in judged if cause is not None)
        return [score for _, score in judged]

    def _none(self, cause: str, count: int) -> list[float | None]:
        self.faults[cause] += count
        return [None] * count


def _score_function(verifier: VerifierLike) -> ScoreFunction:
    score = getattr(verifier, "score", verifier)
    if not callable(score):
        raise ValueError(
            f"a verifier must be a callable (questions, responses) -> scores, or an object with "
            f".score, not {verifier!r}"
        )
    if any(map(inspect.iscoroutinefunction, (score, type(score).__call__))):
        raise ValueError(
            f"the verifier {verifier!r} is an async function, which is never awaited: give a "
            "function that returns the scores, e.g. one that calls asyncio.run"
        )
    return typing.cast(ScoreFunction, score)
