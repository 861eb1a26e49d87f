"""Verifiers: what scores answers, in batches, with a value in [0, 1] each.

A verifier is a callable `(questions, responses) -> scores`, or an object with `.score` of that
form. Scores are a list, an array, a tensor or an iterator of real numbers of any type. It may fail;
:class:`Scorer` stands between it and the rewards. A call that raises (also `SystemExit`), hangs or
returns the wrong number of scores leaves its whole batch without a score; a score that is no
number, NaN or outside [0, 1] leaves that one message without. Each is counted; none becomes a 0.
"""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import queue
import threading
import typing
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from maporl_env.answers import extract_answer, gold
from maporl_env.types import Question
from maporl_env.verifiers.faults import as_list, attempt, judge, say
from maporl_env.verifiers.latex import MathVerifier
from maporl_env.verifiers.remote import (
    RemoteError,
    RemoteGarbage,
    RemoteRefused,
    RemoteTimeout,
    RemoteUnavailable,
    RemoteVerifier,
)

__all__ = [
    "AnswerKey",
    "Composite",
    "FunctionVerifier",
    "MathVerifier",
    "NumericTolerance",
    "RemoteError",
    "RemoteGarbage",
    "RemoteRefused",
    "RemoteTimeout",
    "RemoteUnavailable",
    "RemoteVerifier",
    "ScoreFunction",
    "Scorer",
    "Verifier",
    "VerifierLike",
    "VerifierTimeout",
    "gold",
]

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


class AnswerKey:
    """1 if the answer read from the response is the gold answer, else 0. Never fails."""

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        """Return 1.0 or 0.0 per response."""
        return [
            1.0 if extract_answer(text, q.kind) == gold(q.answer, q.kind) else 0.0
            for q, text in zip(questions, responses, strict=True)
        ]


class NoisyKey:
    """A judge that is usually right: 1 for right, 0 for wrong, sometimes 0.5 or the opposite.

    The verdict belongs to question and answer: given again it is the same, also in another process,
    and wording around the answer does not change it. As `feedback_verifier` it shows agents what a
    fallible judge would say, while the key decides what is paid.

    Args:
        reliability: probability of the true verdict.
        unsure: probability of 0.5. What is left is the probability of the opposite verdict.
        seed: another seed is another judge.
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

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        """Return 1.0, 0.5 or 0.0 per response."""
        return [self._one(q, text) for q, text in zip(questions, responses, strict=True)]

    def _one(self, question: Question, text: str) -> float:
        answer = extract_answer(text, question.kind)
        right = answer == gold(question.answer, question.kind)
        drawn = _fraction(self.seed, question.id, question.prompt, answer)
        if drawn < self.reliability:
            return float(right)
        return 0.5 if drawn < self.reliability + self.unsure else float(not right)


def _fraction(*parts: object) -> float:
    """Return a number in [0, 1) that the parts alone decide."""
    digest = hashlib.blake2b(repr(parts).encode("utf-8", "backslashreplace"), digest_size=8)
    return int.from_bytes(digest.digest(), "big") / 2**64


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


class VerifierTimeout(TimeoutError):
    """A verifier did not answer in time."""


class FunctionVerifier:
    """Any Python function as a verifier, with a time-out.

    A call that hangs is given up after `timeout_seconds`. In a thread it cannot be stopped, only
    left behind (as a daemon, which does not keep the program alive); in a process it is killed.

    Args:
        function: `(questions, responses) -> scores`.
        timeout_seconds: for one batch; None waits for ever, in the caller's thread.
        isolate: "thread", or "process" (the function and its results must be picklable).
    """

    def __init__(
        self,
        function: ScoreFunction,
        timeout_seconds: float | None = None,
        isolate: typing.Literal["thread", "process"] = "thread",
    ) -> None:
        if not callable(function):
            raise ValueError(f"a verifier function must be callable, not {function!r}")
        if timeout_seconds is not None and not timeout_seconds > 0:
            raise ValueError(f"timeout_seconds must be > 0 or None, not {timeout_seconds!r}")
        if isolate not in ("thread", "process"):
            raise ValueError(f"unknown isolate {isolate!r}: choose one of thread, process")
        self.function = function
        self.timeout_seconds = timeout_seconds
        self.isolate = isolate

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> Sequence[float]:
        """Call the function; VerifierTimeout if it takes too long, its own errors otherwise."""
        if self.timeout_seconds is None:
            return self.function(questions, responses)
        run = _run_in_thread if self.isolate == "thread" else _run_in_process
        scores: Sequence[float] = run(
            _listed, (self.function, list(questions), list(responses)), self.timeout_seconds
        )
        return scores


def _listed(
    function: ScoreFunction, questions: Sequence[Question], responses: Sequence[str]
) -> list[Any]:
    """Call a function and read its scores to the end, which may take as long as the call."""
    return as_list(function(questions, responses), len(responses))


def _run_in_thread(function: Callable[..., Any], args: tuple[Any, ...], seconds: float) -> Any:
    results: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()
    threading.Thread(target=_report, args=(results.put, function, args), daemon=True).start()
    try:
        return _unwrap(results.get(timeout=seconds))
    except queue.Empty:
        raise VerifierTimeout(f"the verifier gave no answer in {seconds} s") from None


def _run_in_process(function: Callable[..., Any], args: tuple[Any, ...], seconds: float) -> Any:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(there.send, function, args), daemon=True)
    process.start()
    there.close()
    try:
        if not here.poll(seconds):
            raise VerifierTimeout(f"the verifier gave no answer in {seconds} s")
        return _unwrap(here.recv())
    except EOFError:
        raise RuntimeError("the verifier's process died without an answer") from None
    finally:
        process.kill()
        process.join()
        here.close()


def _report(send: Callable[[Any], None], function: Callable[..., Any], args: Any) -> None:
    try:
        result = (True, function(*args))
    except BaseException as error:
        result = (False, error)
    try:
        send(result)
    except Exception as error:
        send((False, RuntimeError(f"the verifier's result cannot be sent back: {error}")))


def _unwrap(report: tuple[bool, Any]) -> Any:
    fine, result = report
    if fine:
        return result
    raise result


class Scorer:
    """Calls a verifier and lets only sound scores through.

    Attributes:
        faults: how many messages went without a score, by cause: "raised", "timed out",
            "wrong count", "not a number", "out of range", "no score".
        last_error: the latest exception of the verifier, for a report; None if there was none.
    """

    def __init__(self, verifier: VerifierLike, timeout_seconds: float | None = None) -> None:
        function = _score_function(verifier)
        if timeout_seconds is not None:
            function = FunctionVerifier(function, timeout_seconds).score
        self._call = function
        self.faults: Counter[str] = Counter()
        self.last_error: str | None = None

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float | None]:
        """Return one score in [0, 1] per response, None where the verifier failed."""
        judged, error = attempt(
            lambda: [judge(v) for v in as_list(self._call(questions, responses), len(responses))]
        )
        if judged is None:
            assert error is not None
            self.last_error = say(error)
            timed_out = isinstance(error, TimeoutError)
            return self._none("timed out" if timed_out else "raised", len(responses))
        if len(judged) != len(responses):
            return self._none("wrong count", len(responses))
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
    return typing.cast(ScoreFunction, score)
