"""Votes: a hand table, invariance under permutation, and a brute-force expectation."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maporl_env.voting import expected_accuracy, majority, participation

HALF = Fraction(1, 2)

# answers, winners, gold, expected accuracy, participation
VOTES = [
    ([34], (34,), 34, 1.0, 1.0),
    ([34, 34, 35], (34,), 34, 1.0, 1.0),  # clear
    ([34, 34, 35], (34,), 35, 0.0, 1.0),  # the truth was outvoted
    ([34, 35], (34, 35), 34, 1 / 2, 1.0),  # tied
    ([35, 34], (34, 35), 34, 1 / 2, 1.0),
    ([3, 2, 1], (1, 2, 3), 2, 1 / 3, 1.0),
    ([3, 2, 1], (1, 2, 3), 4, 0.0, 1.0),
    ([1, 1, 2, 2, 3], (1, 2), 3, 0.0, 1.0),  # voted for, but not among the tied
    ([None, None, 7], (7,), 7, 1.0, 1 / 3),  # None abstains, however many there are
    ([None, 7, 8], (7, 8), 7, 1 / 2, 2 / 3),
    ([None, None], (), 7, 0.0, 0.0),
    ([], (), 7, 0.0, 0.0),
    ([0, None], (0,), 0, 1.0, 1 / 2),  # 0 is an answer
    ([HALF, Fraction(2, 4), 1], (HALF,), HALF, 1.0, 1.0),
    ([34, Fraction(34, 1), 35], (34,), 34, 1.0, 1.0),
    ([2, HALF, -1], (-1, HALF, 2), HALF, 1 / 3, 1.0),  # by value
    ([10, 9], (9, 10), 9, 1 / 2, 1.0),  # not by spelling
    (["1", 1], (1, "1"), "1", 1 / 2, 1.0),  # text is no number
    (["neutral", "entailment", "neutral"], ("neutral",), "neutral", 1.0, 1.0),
    (["neutral", "entailment"], ("entailment", "neutral"), "neutral", 1 / 2, 1.0),
    (["21", "1", "21"], ("21",), "1", 0.0, 1.0),  # a superstring is another answer
]


@pytest.mark.parametrize(("answers", "winners", "gold", "accuracy", "share"), VOTES)
def test_hand_table(answers, winners, gold, accuracy, share):
    assert majority(answers) == winners
    assert expected_accuracy(answers, gold) == accuracy
    assert participation(answers) == share


ANSWERS = st.lists(
    st.none() | st.integers(-2, 2) | st.sampled_from([HALF, "a", "b", "1"]), max_size=8
)
GOLDS = st.integers(-2, 2) | st.sampled_from([HALF, "a", "c"])


@given(ANSWERS, st.randoms(use_true_random=False), GOLDS)
def test_permuting_the_voters_changes_nothing(answers, rng, gold):
    shuffled = rng.sample(answers, len(answers))
    assert majority(shuffled) == majority(answers)
    assert expected_accuracy(shuffled, gold) == expected_accuracy(answers, gold)
    assert participation(shuffled) == participation(answers)


def slow_accuracy(answers, gold):
    """Draw each of the tied answers once."""
    given_answers = [answer for answer in answers if answer is not None]
    tied: list[object] = []
    for answer in given_answers:
        beaten = any(given_answers.count(o) > given_answers.count(answer) for o in given_answers)
        if not beaten and answer not in tied:
            tied.append(answer)
    draws = [float(answer == gold) for answer in tied]
    return sum(draws) / len(draws) if draws else 0.0


@given(ANSWERS, GOLDS)
def test_accuracy_is_the_mean_over_the_tied_drawn_one_at_a_time(answers, gold):
    assert expected_accuracy(answers, gold) == slow_accuracy(answers, gold)


def test_random_votes_against_the_loop():
    rng = random.Random(6)
    for _ in range(1_000):
        answers = [rng.choice([None, 0, 1, 2, HALF]) for _ in range(rng.randint(0, 7))]
        gold = rng.choice([0, 1, HALF, 9])
        assert expected_accuracy(answers, gold) == pytest.approx(
            slow_accuracy(answers, gold), abs=1e-12
        )


@given(ANSWERS, st.integers(0, 5), GOLDS)
def test_abstentions_change_participation_only(answers, abstentions, gold):
    more = answers + [None] * abstentions
    assert majority(more) == majority(answers)
    assert expected_accuracy(more, gold) == expected_accuracy(answers, gold)
    assert participation(more) * max(len(more), 1) == pytest.approx(
        participation(answers) * max(len(answers), 1)
    )


def test_votes_may_be_a_generator():
    assert majority(answer for answer in (1, 2, 2)) == (2,)


@pytest.mark.parametrize("answers", [[], [None], [None, 3]])
def test_a_missing_gold_answer_never_equals_an_abstention(answers):
    with pytest.raises(ValueError, match=r"gold is None.*read_gold"):
        expected_accuracy(answers, None)
