"""Copy rates and laziness by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from metric_cases import box
from miniatures import make_transcript

from maporl_agents.measure.copying import answers_of, copied_share, copy_rates, laziness

# --- Copying ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sources", "share"),
    [
        ("a b c d e f", ["x a b c d y"], 1 / 3),  # abcd; bcde and cdef are new
        ("a b c d e f", ["a b c d", "c d e f"], 2 / 3),  # bcde stands in neither
        ("a b c d", ["a b c", "d"], 0.0),  # not glued together over two sources
        ("a b", ["x a b y"], 1.0),  # shorter than n: one n-gram of all its words
        ("b a", ["x a b y"], 0.0),
        ("a  b\nc\td", ["a b c d"], 1.0),  # words, whatever blanks separate them
        ("A b c d", ["a b c d"], 0.0),
        ("", ["a b c d"], 0.0),
        ("a b c d", [], 0.0),
        ("a b c d", ["", " "], 0.0),
        ("a a a a a", ["a a a a"], 1.0),  # both n-grams are the same one
    ],
)
def test_copied_share_by_hand(text: str, sources: Sequence[str], share: float) -> None:
    assert copied_share(text, sources) == pytest.approx(share, abs=1e-12)


def test_the_width_of_an_n_gram_is_a_choice() -> None:
    assert copied_share("a b c", ["b c a"], n=2) == 1 / 2  # ab no, bc yes
    assert copied_share("a b c", ["b c a"], n=1) == 1.0


def test_nobody_is_copied_in_the_first_turn_nor_by_oneself() -> None:
    debate = make_transcript(
        [["a b c d", "p q r s"], ["a b c d", "a b c d"], ["x a b c d", "p q r s"]]
    )
    # Turn 2: agent 0 repeats itself, agent 1 what agent 0 said. Turn 3: agent 0 says one n-gram of
    # two (abcd) that agent 1 said in turn 2; agent 1 repeats what it said itself two turns ago.
    assert copy_rates(debate) == [[0, 0], [0, 1], [1 / 2, 0]]
    assert copy_rates(make_transcript([["a b c d"], ["a b c d"]])) == [[0], [0]]
    assert copy_rates(make_transcript([[""]])) == [[0]]


# --- Laziness -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "lazy"),
    [
        # Agent 1 says 2, never heard of again, then what agent 0 said the turn before, twice.
        ([[1, 2], [1, 1], [1, 1]], [0, 1]),
        # Its second turn is new, its third is agent 0's: one of two.
        ([[1, 2], [1, 3], [1, 1]], [0, 1 / 2]),
        # Its first answer is taken up by agent 0: it contributed.
        ([[1, 2], [1, 1], [2, 1]], [0, 0]),
        # It comes back to its own first answer.
        ([[1, 2], [1, 1], [1, 2]], [0, 0]),
        # No answer of its own at first.
        ([[1, None], [1, 1], [1, 1]], [0, 1]),
        # No answers at all repeat nothing.
        ([[None, None], [None, None]], [0, 0]),
        # Swapping answers: each first answer is taken up.
        ([[1, 2], [2, 1]], [0, 0]),
        # Both agree from the start and stay: nobody is lazy.
        ([[1, 1], [1, 1]], [0, 0]),
        # A repeat is of the turn just before: agent 1's last answer is older than that.
        ([[6, 2], [3, 4], [3, 6]], [0, 0]),
        ([[1, 2]], [0, 0]),
        ([], []),
    ],
)
def test_laziness_by_hand(answers: list[list[int | None]], lazy: list[float]) -> None:
    assert laziness(answers) == lazy


def test_answers_are_read_by_turn_and_seat() -> None:
    debate = make_transcript([[box(3), "none"], ["three", box("1/2")]])
    assert answers_of(debate) == [[3, None], [None, 0.5]]
