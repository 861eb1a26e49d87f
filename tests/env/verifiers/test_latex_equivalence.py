"""Answers in LaTeX by value, also from threads, and whatever an answer asks the library to do."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from maporl_env.types import Question
from maporl_env.verifiers.latex_equivalence import MathVerifier

pytest.importorskip("math_verify")


@pytest.fixture(scope="module")
def verifier() -> Iterator[MathVerifier]:
    """One for all tests: its process takes a second to start."""
    made = MathVerifier(60.0)
    yield made
    if made._worker is not None:
        made._worker.end()


def score(verifier: MathVerifier, gold: str, *answers: str) -> list[float | None]:
    questions = [Question("q", "p", gold, "text")] * len(answers)
    return verifier.score(questions, [f"so \\boxed{{{answer}}}." for answer in answers])


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        (r"\frac{1}{2}", ["0.5", ".5", r"\frac12", r"\dfrac{2}{4}", r"50\%"], ["2", "1/3"]),
        ("x^2+2x+1", ["(x+1)^2", "(1 + x)(x + 1)"], ["(x+2)^2", "(y+1)^2"]),
        (r"\boxed{3\sqrt{2}}", [r"\sqrt{18}"], [r"\sqrt{17}"]),
        ("(0,1]", [r"\left(0, 1\right]"], ["(0,1)", "[0,1]"]),
        (r"\{1,2\}", [r"\{2,1\}"], ["1", r"\{1,2,3\}"]),
        (r"\text{red}", ["red", r"\mathrm{red}"], ["blue", ""]),
        ("12000", [r"12\,000", "12{,}000"], ["12 000", r"12\,00"]),
        ("0", ["0.0", "-0"], [r"12\,000", "12 000", r"3\;0", "3~0"]),
        ("2", ["1+1", "x=2"], ["2,3", "2 or 3", r"2 \boxed{3}", "[2,3]", "{", r"\frac{1}{0}"]),
    ],
)
def test_answers_are_equal_by_value(
    verifier: MathVerifier, gold: str, right: list[str], wrong: list[str]
) -> None:
    assert dict(zip(right, score(verifier, gold, *right), strict=True)) == dict.fromkeys(right, 1)
    assert dict(zip(wrong, score(verifier, gold, *wrong), strict=True)) == dict.fromkeys(wrong, 0)


def test_only_the_box_counts_and_an_unreadable_key_gives_no_score(verifier: MathVerifier) -> None:
    question = Question("q", "p", "2", "text")
    assert verifier.score([question] * 3, ["2", "$2$", r"\boxed{2}"]) == [0.0, 0.0, 1.0]
    assert score(verifier, "", "2") == [None]
    assert score(verifier, "1" * 1_001, "2") == [None]
    assert score(verifier, "2", "1+" * 600 + "1", "\ud800", "\0") == [0.0, 0.0, 0.0]


def test_it_works_from_threads_and_in_copies(verifier: MathVerifier) -> None:
    def one(n: int) -> float | None:
        return score(verifier, f"{n}x", f"x+{n - 1}x")[0]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(2, 10))) == [1.0] * 8
    assert pickle.loads(pickle.dumps(verifier)).seconds == verifier.seconds


@pytest.mark.thorough
def test_an_answer_that_takes_too_long_is_wrong_and_the_next_is_judged(
    verifier: MathVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert score(verifier, "2x", "x+x") == [1.0]
    monkeypatch.setattr(verifier, "seconds", 0.3)
    start = time.monotonic()
    assert score(verifier, "2x", "9^{9^{9^{9}}}") == [0.0]
    assert time.monotonic() - start < 10
    assert verifier._worker is None  # the process is gone, whatever it was doing
    monkeypatch.setattr(verifier, "seconds", 60.0)
    assert score(verifier, "3x", "x+2x", "4x") == [1.0, 0.0]


def test_a_process_that_something_else_has_ended_is_started_again(verifier: MathVerifier) -> None:
    assert score(verifier, "4x", "x+3x") == [1.0]
    assert verifier._worker is not None
    verifier._worker.process.kill()
    assert score(verifier, "5x", "x+4x") == [1.0]


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="seconds must be a finite number > 0"):
        MathVerifier(0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'maporl\[math\]'"):
        MathVerifier()
