"""Error texts of verifiers hold no reference, no private text and no tests of programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest

from maporl_env.types import Question
from maporl_env.verifiers import Scorer
from maporl_env.verifiers.redaction import ALL_LEFT_OUT, LEFT_OUT, without_secrets

REFERENCE = "def total(prices):\n    return sum(prices) * '1.19'\n"
QUESTION = Question("q", "Add up.", "7", private=("", "ABC"), hidden=REFERENCE)


@pytest.mark.parametrize(
    "quote",
    [
        str,
        repr,
        json.dumps,
        lambda text: text[:20],
        lambda text: f"line 2: {text.splitlines()[1]}",
        lambda text: repr({"hidden": text})[:60],
        lambda text: "x" * 990 + text,  # whose end is cut off
        lambda text: json.dumps(json.dumps(text)),
    ],
)
def test_a_reference_is_found_however_it_is_quoted(quote: Callable[[str], str]) -> None:
    def raising(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        raise RuntimeError(f"cannot read {quote(questions[0].hidden)}")

    scorer = Scorer(raising)
    assert scorer.score([QUESTION], ["x"]) == [None]
    assert scorer.last_error == f"RuntimeError: {ALL_LEFT_OUT}"


def test_letters_that_json_escapes_are_found() -> None:
    question = Question("q", "?", "1", hidden="Größe über allem, überall")
    assert without_secrets(json.dumps(question.hidden), [question]) == ALL_LEFT_OUT


def test_the_tests_of_a_program_are_secret_and_other_answers_are_not() -> None:
    tests = "assert total([1, 2]) == 3.57"
    assert without_secrets(tests, [Question("q", "?", tests, kind="code")]) == ALL_LEFT_OUT
    long = "a long answer that is no test"
    assert without_secrets(long, [Question("q", "?", long, kind="text")]) == long


def test_short_secrets_are_taken_out_of_the_text_and_the_rest_stays() -> None:
    said = without_secrets("KeyError for ABC in row 3 of the table of prices", [QUESTION])
    assert said == f"KeyError for {LEFT_OUT} in row 3 of the table of prices"
    assert without_secrets("nothing of it", [QUESTION]) == "nothing of it"
