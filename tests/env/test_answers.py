"""Reading answers: a corpus by kind, gold answers, equality, and real text."""

from __future__ import annotations

import json
import tracemalloc
from fractions import Fraction
from pathlib import Path

import pytest

from maporl_env.answers import (
    KINDS,
    AnswerKind,
    answers_equal,
    extract_answer,
    gold,
    last_line_answer,
    parse_answer,
    read_gold,
)

from .answer_corpus import LABELS, NO_LABELS, NO_NUMBERS, NUMBERS, corpus, rows, spellings


def test_the_corpus_is_read_as_specified():
    table = corpus()
    assert len({row[:2] for row in table}) == len(table) >= 400
    misread = {
        (kind, text): read
        for kind, text, expected in table
        if (read := extract_answer(text, kind)) != expected
    }
    assert misread == {}


def test_bare_answers_are_read_by_the_same_rules():
    bare = [("number", text, Fraction(value)) for value, text in rows(NUMBERS)]
    bare += [("number", text, None) for text in spellings(NO_NUMBERS)]
    bare += [("nli", text, label) for label, text in rows(LABELS)]
    bare += [("nli", text, None) for text in spellings(NO_LABELS)]
    assert [row for row in bare if parse_answer(row[1], row[0]) != row[2]] == []


def test_whole_numbers_are_ints_and_others_exact_fractions():
    assert type(extract_answer(r"\boxed{68/2}", "number")) is int
    assert type(extract_answer(r"\boxed{34.0}", "number")) is int
    tenth = extract_answer(r"\boxed{0.1}", "number")
    assert type(tenth) is Fraction
    assert tenth != 0.1  # the float is off by 5.6e-18


# --- Kinds, gold answers, equality, last lines ---------------------------------------------------


def test_an_unknown_kind_is_refused_with_the_valid_ones():
    for call in (extract_answer, parse_answer, read_gold):
        with pytest.raises(ValueError, match=r"'numbr'.*number, nli, text, code"):
            call("34", "numbr")


def test_a_kind_of_ones_own_is_read_from_the_box(monkeypatch):
    def letter(text: str) -> str | None:
        return text if text in "ABCD" else None

    monkeypatch.setitem(KINDS, "letter", AnswerKind(letter))
    assert extract_answer(r"\boxed{E} \boxed{B}", "letter") == "B"
    assert extract_answer(r"\boxed{B} \boxed{E}", "letter") is None
    assert read_gold("C", "letter") == "C"


def test_readable_gold_answers():
    assert read_gold("1,080", "number") == 1080
    assert read_gold(18, "number") == 18
    assert read_gold(0.5, "number") == read_gold(Fraction(1, 2), "number") == Fraction(1, 2)
    assert read_gold("Neutral", "nli") == "neutral"
    assert read_gold("    return x\n", "code") == "    return x"


@pytest.mark.parametrize(
    "gold", ["", " ", "34 apples", "1,2", None, True, float("nan"), "x" * 9999]
)
def test_a_gold_answer_that_cannot_be_read_is_refused(gold):
    with pytest.raises(ValueError, match=r"gold answer .* is not readable as 'number'") as refusal:
        read_gold(gold, "number")
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize("gold", [None, True])
def test_what_is_no_answer_is_not_spelled_out_as_text(gold):
    with pytest.raises(ValueError, match=r"is not readable as 'text'"):
        read_gold(gold, "text")


def test_equality_needs_two_answers_of_one_type():
    assert answers_equal(34, Fraction(68, 2))
    assert answers_equal("neutral", "neutral")
    assert not answers_equal(1, 21)
    assert not answers_equal("1", 1)
    assert not answers_equal("1", "21")
    assert not answers_equal(None, None)  # an unreadable answer never equals an unreadable key
    assert not answers_equal(0, None)
    assert not answers_equal(None, "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 + 2 = 4\nA: 4", 4),
        ("A: 1\nA: 2\n\n \n", 2),
        ("  A:-1,200.50  \r\n", Fraction(-2401, 2)),
        ("A: 4\nThat is all.", None),
        ("so A: 4", None),
        ("A: -1.8 billion", None),
        ("A: 4 5", None),
        ("A:", None),
        ("4", None),
        ("", None),
    ],
)
def test_the_number_of_the_last_line(text, expected):
    assert last_line_answer(text) == expected


def test_another_marker_of_the_last_line():
    assert last_line_answer("x\n#### 7", marker="####") == 7
    assert last_line_answer("x\nA: 7", marker="####") is None
    assert last_line_answer("7%", marker="%") is None  # the marker must open the line


# --- Real text -----------------------------------------------------------------------------------


def gsm8k_lines(data_dir: Path, name: str) -> list[dict]:
    path = data_dir / "gsm8k" / name
    if not path.is_file():
        pytest.skip(f"no real data: {path} is not a file")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_3600_real_solutions_agree_with_their_published_marks(data_dir):
    table = gsm8k_lines(data_dir, "example_model_solutions.jsonl")
    solutions = [
        (last_line_answer(row["ground_truth"]), solution["solution"], solution["is_correct"])
        for row in table
        for solution in row.values()
        if isinstance(solution, dict)
    ]
    assert len(solutions) == 3_600

    def boxed(text: str) -> str:
        head, marker, number = text.rstrip().rpartition("\nA: ")
        return rf"{head}\boxed{{{number}}}" if marker else text

    for read in (last_line_answer, lambda text: extract_answer(boxed(text), "number")):
        agree = [answers_equal(read(text), gold) == mark for gold, text, mark in solutions]
        assert sum(agree) == 3_600


@pytest.mark.parametrize(("name", "count"), [("train.jsonl", 7_473), ("test.jsonl", 1_319)])
def test_every_real_gold_answer_is_a_whole_number(data_dir, name, count):
    golds = [row["answer"].rpartition("####")[2] for row in gsm8k_lines(data_dir, name)]
    assert [type(read_gold(gold, "number")) for gold in golds] == [int] * count


@pytest.mark.parametrize(
    ("computed", "right"),
    [
        (0.1 + 0.2, "0.3"),
        (100 / 3, r"\frac{100}{3}"),
        (80 / 9, "80/9"),  # 15 digits
        (-1.1 - 2.2, "-3.3"),
        (sum([0.1] * 10), "1"),
        (0.1 * 3e-5, "3e-6"),
        (4.35 * 100, "435"),
    ],
)
def test_a_float_with_rounding_errors_is_the_number_it_stands_for(
    computed: float, right: str
) -> None:
    gold = read_gold(str(computed), "number")
    assert str(computed) not in (right, "-3.3")  # there is such an error
    assert extract_answer(rf"\boxed{{{right}}}", "number") == gold
    assert extract_answer(rf"\boxed{{{computed}}}", "number") == gold


@pytest.mark.parametrize(
    "text",
    [
        "3.141592653589793",
        "0.30000000000000005",
        "0.1234567890123456",
        "1.00000000000001",
        "9007199254740.992",
    ],
)
def test_a_number_that_is_near_no_plain_one_stays_exact(text: str) -> None:
    assert read_gold(text, "number") == Fraction(text)


def test_long_gold_answers_are_not_kept_in_memory() -> None:
    """Clients of a service choose them: what is remembered of them has to stay small."""
    tracemalloc.start()
    try:
        for number in range(300):
            text = f"{number}-" + "x" * 100_000
            assert gold(text, "text") == text
        assert tracemalloc.get_traced_memory()[0] < 3_000_000
    finally:
        tracemalloc.stop()
    assert gold("34", "number") == gold("34.0", "number") == 34
