"""Verifiers and their faults: a fault is a missing score that is counted, never a 0."""

from __future__ import annotations

import array
import asyncio
import functools
import math
import multiprocessing
import pickle
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Sequence
from decimal import Decimal
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
        (Decimal("0.25"), 0.25, None),
        (np.bool_(True), 1.0, None),
        (np.int64(1), 1.0, None),
        (np.float16(0.5), 0.5, None),
        (np.longdouble(0.5), 0.5, None),
        (np.array(True), 1.0, None),
        (np.array(Fraction(1, 4), dtype=object), 0.25, None),
        (Fraction(10**30 + 1, 10**30), None, "out of range"),
        (Decimal("-1e-400"), None, "out of range"),
        (Decimal("NaN"), None, "not a number"),
        (Decimal("sNaN"), None, "not a number"),
        (Decimal("Infinity"), None, "out of range"),
        (Fraction(10**400), None, "out of range"),
        (0.5 + 0j, None, "not a number"),
        (np.array(0.5 + 0j), None, "not a number"),
        (np.array("0.5"), None, "not a number"),
        (np.datetime64(1, "s"), None, "not a number"),
        (object(), None, "not a number"),
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


class Tensor:
    """What matters of a tensor that belongs to a graph: numbers come out once it is detached."""

    def __init__(self, values: Any, detached: bool = False) -> None:
        self.values, self.detached = values, detached
        self.shape = (len(values),) if isinstance(values, list) else ()

    def detach(self) -> Tensor:
        return Tensor(self.values, detached=True)

    def item(self) -> Any:
        assert self.detached
        return self.values

    tolist = item


@pytest.mark.parametrize(
    "given",
    [
        (0.5, 1.0),
        np.array([0.5, 1.0]),
        np.array([0.5, 1.0], dtype=np.float32),
        np.array([Fraction(1, 2), True], dtype=object),
        array.array("d", [0.5, 1.0]),
        deque([0.5, 1.0]),
        iter([0.5, 1.0]),
        {"a": 0.5, "b": 1.0}.values(),
        Tensor([0.5, 1.0]),
        [Tensor(0.5), Tensor(True)],
    ],
)
def test_scores_come_in_any_kind_of_row(given: Any) -> None:
    scorer = Scorer(lambda questions, texts: given)
    assert scorer.score([NUMBER] * 2, ["a", "b"]) == [0.5, 1.0]
    assert not scorer.faults


@pytest.mark.parametrize("given", [{0.5, 1.0}, {0.0: 1, 1.0: 0}, "01", b"\0\1", {}.keys()])
def test_what_has_no_order_or_is_a_text_is_no_row_of_scores(given: Any) -> None:
    scorer = Scorer(lambda questions, texts: given)
    assert scorer.score([NUMBER] * 2, ["a", "b"]) == [None, None]
    assert scorer.last_error is not None
    assert "not a list of scores" in scorer.last_error


def test_a_generator_counts_among_the_call() -> None:
    def endless(questions: Sequence[Question], texts: Sequence[str]) -> Any:
        while True:
            yield 0.5

    def stuck(questions: Sequence[Question], texts: Sequence[str]) -> Any:
        yield 0.5
        threading.Event().wait()

    def leaves(questions: Sequence[Question], texts: Sequence[str]) -> Any:
        yield 0.5
        sys.exit(0)

    for function, cause, seconds in (
        (endless, "wrong count", None),
        (stuck, "timed out", 0.05),
        (leaves, "raised", None),
    ):
        scorer = Scorer(function, seconds)
        assert scorer.score([NUMBER] * 2, ["a", "b"]) == [None, None]
        assert scorer.faults == {cause: 2}


class Unspeakable(BaseException):
    def __str__(self) -> str:
        raise SystemExit


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SystemExit(0), "SystemExit: 0"),
        (KeyboardInterrupt("own"), "KeyboardInterrupt: own"),
        (GeneratorExit(), "GeneratorExit: "),
        (asyncio.CancelledError(), "CancelledError: "),
        (Unspeakable(), "Unspeakable"),
    ],
)
@pytest.mark.parametrize("seconds", [None, 5.0])
def test_nothing_that_a_verifier_raises_ends_a_run(
    error: BaseException, words: str, seconds: float | None
) -> None:
    def broken(questions: Sequence[Question], texts: Sequence[str]) -> list[float]:
        raise error

    scorer = Scorer(broken, seconds)
    assert scorer.score([NUMBER] * 2, ["a", "b"]) == [None, None]
    assert scorer.faults == {"raised": 2}
    assert scorer.last_error == words


class Stop(Exception):
    pass


class Handler:
    def __call__(self, number: int, frame: object) -> None:
        raise Stop


def stop(number: int, frame: object) -> None:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("number", "handler", "raised"),
    [
        (signal.SIGINT, signal.default_int_handler, KeyboardInterrupt),
        (signal.SIGINT, Handler(), Stop),
        (signal.SIGTERM, stop, SystemExit),
        (signal.SIGTERM, functools.partial(stop), SystemExit),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_a_signal_during_a_call_ends_the_run(
    number: signal.Signals, handler: Any, raised: type[BaseException], nested: bool
) -> None:
    def hit(questions: Sequence[Question], texts: Sequence[str]) -> list[float]:
        signal.raise_signal(number)
        return [1.0]

    def reset(questions: Sequence[Question], texts: Sequence[str]) -> list[float]:
        signal.signal(number, signal.default_int_handler)  # as a handler may, for the next one
        signal.raise_signal(number)
        return [1.0]

    before = signal.signal(number, handler)
    try:
        for function in (hit, reset) if number == signal.SIGINT else (hit,):
            verifier = Composite([(function, 1)]) if nested else function
            with pytest.raises(raised if function is hit else KeyboardInterrupt):
                Scorer(verifier).score([NUMBER], ["a"])
            if function is hit:
                assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("given", [[0.5], [0.5] * 3, [], None, 0.5, np.array(0.5), [[0.5, 1.0]]])
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
    for _ in range(20):  # each would wait for ever
        assert scorer.score([NUMBER], ["a"]) == [None]
    assert scorer.faults == {"timed out": 20}
    release.set()
    tries = (scorer.score([NUMBER], ["a"]) for _ in range(100))  # on a busy machine some are late
    assert [1.0] in tries


def sleep_for_ever(questions: Sequence[Question], texts: Sequence[str]) -> list[float]:
    while True:
        time.sleep(60)


def test_a_process_is_killed_when_its_time_is_up() -> None:
    verifier = FunctionVerifier(sleep_for_ever, timeout_seconds=0.2, isolate="process")
    with pytest.raises(VerifierTimeout, match=r"no answer in 0\.2 s"):
        verifier.score([NUMBER], ["a"])
    assert not multiprocessing.active_children()


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


def test_tensors_are_scores() -> None:
    torch = pytest.importorskip("torch")
    half, graph = torch.tensor([0.5, 1.0]), torch.tensor([0.5, 1.0], requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a tensor that belongs to a graph
        for given in (half, graph, half.bfloat16(), list(half), list(graph), half.unsqueeze(1)):
            column = isinstance(given, torch.Tensor) and given.ndim == 2
            scores = ask(lambda questions, texts, given=given: given, "a", "b")
            assert scores == ([None, None] if column else [0.5, 1.0])


def test_what_a_verifier_does_to_its_lists_changes_nothing() -> None:
    def clear(questions: list[Question], texts: list[str]) -> list[float]:
        scores = [float(text == "b") for text in texts]
        questions.clear()
        texts.clear()
        return scores

    texts = ["a", "b"]
    scorer = Scorer(clear)
    assert scorer.score([NUMBER] * 2, texts) == [0.0, 1.0]
    assert texts == ["a", "b"]
    assert not scorer.faults


def test_an_async_function_is_no_verifier() -> None:
    async def later(questions: Any, texts: Any) -> list[float]:
        return [1.0] * len(texts)

    class Later:
        async def __call__(self, questions: Any, texts: Any) -> list[float]:
            return [1.0] * len(texts)

    for verifier in (later, Later()):
        with pytest.raises(ValueError, match="is an async function"):
            Scorer(verifier)  # type: ignore[arg-type]
