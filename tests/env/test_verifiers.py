"""Verifiers and their faults: a fault is a missing score that is counted, never a 0."""

from __future__ import annotations

import math
import pickle
import threading
import time
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from maporl_env.types import Question
from maporl_env.verifiers import (
    AnswerKey,
    Composite,
    FunctionVerifier,
    NoisyKey,
    NumericTolerance,
    Scorer,
    VerifierTimeout,
)

NUMBER = Question("n", "2 + 2?", "4")
LABEL = Question("l", "entails?", "neutral", "nli")


def ask(verifier: Any, *texts: str, question: Question = NUMBER) -> list[float | None]:
    return list(Scorer(verifier).score([question] * len(texts), texts))


def test_answer_key() -> None:
    texts = ["\\boxed{4}", "\\boxed{5}", "4", "", "\\boxed{4.0}", "\\boxed{4} no \\boxed{3 or 4}"]
    assert ask(AnswerKey(), *texts) == [1, 0, 0, 0, 1, 0]
    assert ask(AnswerKey(), "\\boxed{Neutral}", "neutral", question=LABEL) == [1, 0]


def test_numeric_tolerance_is_exact_at_its_edge() -> None:
    # Half a unit is allowed: 3.5 and 4.5 are in, anything beyond is out.
    verifier = NumericTolerance(absolute=0.5, relative=0.0)
    texts = ["\\boxed{4.5}", "\\boxed{3.5}", "\\boxed{4.51}", "none", "\\boxed{7/2}"]
    assert ask(verifier, *texts) == [1, 1, 0, 0, 1]
    assert ask(NumericTolerance(relative=0.25), "\\boxed{5}", "\\boxed{5.01}") == [1, 0]
    assert ask(verifier, "\\boxed{neutral}", question=LABEL) == [None]
    with pytest.raises(ValueError, match="relative must be a finite number"):
        NumericTolerance(relative=-1)


def test_composite_is_the_weighted_mean_and_as_silent_as_its_parts() -> None:
    def half(questions: Sequence[Question], texts: Sequence[str]) -> list[float | None]:
        return [None if "skip" in text else 0.5 for text in texts]

    # (3 * 1 + 1 * 0.5) / 4 = 0.875 and (3 * 0 + 1 * 0.5) / 4 = 0.125
    verifier = Composite([(AnswerKey(), 3), (half, 1)])
    assert ask(verifier, "\\boxed{4}", "\\boxed{5}", "skip \\boxed{4}") == [0.875, 0.125, None]
    with pytest.raises(ValueError, match="weight > 0"):
        Composite([(half, 0)])


@pytest.mark.parametrize(
    ("value", "score", "cause"),
    [
        (0.25, 0.25, None),
        (1, 1.0, None),
        (True, 1.0, None),
        (np.float32(0.5), 0.5, None),
        (np.array(0.5), 0.5, None),
        (Fraction(1, 4), 0.25, None),
        (math.nan, None, "not a number"),
        (np.float64("nan"), None, "not a number"),
        (math.inf, None, "out of range"),
        (-0.001, None, "out of range"),
        (1.001, None, "out of range"),
        (10**400, None, "out of range"),
        ("0.5", None, "not a number"),
        ([0.5], None, "not a number"),
        (np.array([0.5]), None, "not a number"),
        (None, None, "no score"),
    ],
)
def test_only_sound_scores_pass(value: Any, score: float | None, cause: str | None) -> None:
    scorer = Scorer(lambda questions, texts: [value, 0.75])
    assert scorer.score([NUMBER] * 2, ["a", "b"]) == [score, 0.75]
    assert dict(scorer.faults) == ({} if cause is None else {cause: 1})


@pytest.mark.parametrize("given", [[0.5], [0.5] * 3, [], None, 0.5])
def test_a_wrong_count_silences_the_batch(given: Any) -> None:
    scorer = Scorer(lambda questions, texts: given)
    assert scorer.score([NUMBER] * 2, ["a", "b"]) == [None, None]
    assert sum(scorer.faults.values()) == 2


def test_an_error_silences_the_batch_and_is_kept_for_the_report() -> None:
    def broken(questions: Sequence[Question], texts: Sequence[str]) -> list[float]:
        raise KeyError("no such model")

    scorer = Scorer(broken)
    assert scorer.score([NUMBER] * 2, ["a", "b"]) == [None, None]
    assert scorer.faults == {"raised": 2}
    assert scorer.last_error == "KeyError: 'no such model'"


def test_hanging_calls_end_in_time_and_do_not_wear_out() -> None:
    release = threading.Event()

    def hang(questions: Sequence[Question], texts: Sequence[str]) -> list[float]:
        release.wait()
        return [1.0]

    scorer = Scorer(hang, timeout_seconds=0.02)
    start = time.perf_counter()
    for _ in range(20):
        assert scorer.score([NUMBER], ["a"]) == [None]
    assert time.perf_counter() - start < 20 * 0.02 + 1
    assert scorer.faults == {"timed out": 20}
    release.set()
    assert scorer.score([NUMBER], ["a"]) == [1.0]


def sleep_for_ever(questions: Sequence[Question], texts: Sequence[str]) -> list[float]:
    while True:
        time.sleep(60)


def test_a_process_is_killed_when_its_time_is_up() -> None:
    verifier = FunctionVerifier(sleep_for_ever, timeout_seconds=0.2, isolate="process")
    start = time.perf_counter()
    with pytest.raises(VerifierTimeout, match=r"no answer in 0\.2 s"):
        verifier.score([NUMBER], ["a"])
    assert time.perf_counter() - start < 1.2


def test_a_verifier_in_time_gives_its_scores_and_its_errors() -> None:
    assert FunctionVerifier(AnswerKey().score, 5).score([NUMBER], ["\\boxed{4}"]) == [1.0]
    isolated = FunctionVerifier(AnswerKey().score, 60, isolate="process")
    assert isolated.score([NUMBER], ["\\boxed{4}"]) == [1.0]
    with pytest.raises(ZeroDivisionError):
        FunctionVerifier(lambda questions, texts: [1 / 0], 5).score([NUMBER], ["a"])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"timeout_seconds": 0}, "must be > 0"),
        ({"isolate": "fork"}, "choose one of thread, process"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        FunctionVerifier(AnswerKey().score, **options)


def test_what_is_no_verifier_is_refused() -> None:
    with pytest.raises(ValueError, match="must be a callable"):
        Scorer("answer key")  # type: ignore[arg-type]


def test_a_scorer_can_be_pickled() -> None:
    scorer = pickle.loads(pickle.dumps(Scorer(AnswerKey())))
    assert scorer.score([NUMBER], ["\\boxed{4}"]) == [1.0]


def test_a_noisy_key_is_wrong_as_often_as_it_says_and_always_in_the_same_cases() -> None:
    questions = [Question(f"q{n}", "2 + 2?", "4") for n in range(4_000)]
    judge = NoisyKey(reliability=0.9, unsure=0.05)
    right = judge.score(questions, ["\\boxed{4}"] * 4_000)
    wrong = judge.score(questions, ["\\boxed{5}"] * 4_000)
    # Standard error of a share: at most sqrt(.9 * .1 / 4000) = .0047; four of them are .019.
    for scores, truth in ((right, 1.0), (wrong, 0.0)):
        shares = [scores.count(value) / 4_000 for value in (truth, 0.5, 1.0 - truth)]
        assert shares == pytest.approx([0.9, 0.05, 0.05], abs=0.019)
    assert judge.score(questions, ["so \\boxed{ 4.0 } it is"] * 4_000) == right
    assert NoisyKey(seed=1).score(questions, ["\\boxed{4}"] * 4_000) != right
    assert NoisyKey(1.0, 0.0).score(questions[:2], ["\\boxed{4}", "none"]) == [1.0, 0.0]
    assert NoisyKey(0.0, 1.0).score(questions[:2], ["\\boxed{4}", "none"]) == [0.5, 0.5]
    with pytest.raises(ValueError, match="add up to at most 1"):
        NoisyKey(0.9, 0.2)
