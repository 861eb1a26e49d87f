"""AUC, within-question AUC and calibration: hand values, slow twins, invariants."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maporl_agents.verifier.metrics import (
    auc,
    auc_interval,
    expected_calibration_error,
    reliability_table,
    within_question_auc,
    within_question_interval,
)


def slow_auc(scores: list[float], labels: list[bool]) -> Fraction | None:
    right = [s for s, y in zip(scores, labels, strict=True) if y]
    wrong = [s for s, y in zip(scores, labels, strict=True) if not y]
    if not right or not wrong:
        return None
    wins = sum(Fraction(2 * (r > w) + (r == w), 2) for r in right for w in wrong)
    return wins / (len(right) * len(wrong))


@pytest.mark.parametrize(
    ("scores", "labels", "area"),
    [
        ([0.1, 0.9], [False, True], 1.0),
        ([0.9, 0.1], [False, True], 0.0),
        ([0.5, 0.5], [False, True], 0.5),
        # pairs (right, wrong): .8>.7, .8>.3, .4<.7, .4>.3: three of four
        ([0.8, 0.7, 0.4, 0.3], [True, False, True, False], 0.75),
        # .6=.6 counts half, .6>.2 whole: 1.5 of 2
        ([0.6, 0.6, 0.2], [True, False, False], 0.75),
        ([0.3, 0.4], [True, True], None),
        ([0.3], [False], None),
        ([], [], None),
    ],
)
def test_auc_by_hand(scores: list[float], labels: list[bool], area: float | None) -> None:
    assert auc(scores, labels) == area


answers = st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans()), max_size=30)


@given(answers)
def test_auc_is_the_share_of_pairs_won(drawn: list[tuple[float, bool]]) -> None:
    scores, labels = [s for s, _ in drawn], [y for _, y in drawn]
    expected = slow_auc(scores, labels)
    area = auc(scores, labels)
    assert area == (None if expected is None else pytest.approx(float(expected), abs=1e-12))


@given(answers)
def test_auc_turns_round_with_the_labels_and_ignores_scale(
    drawn: list[tuple[float, bool]],
) -> None:
    scores, labels = np.array([s for s, _ in drawn]), np.array([y for _, y in drawn], bool)
    area, turned = auc(scores, labels), auc(scores, ~labels)
    assert auc(np.exp(3 * scores), labels) == area
    assert (area is None) == (turned is None)
    if area is not None and turned is not None:
        assert area + turned == pytest.approx(1, abs=1e-12)


def test_within_question_auc_by_hand() -> None:
    # a: .9 right beats .1 wrong: 1.  b: .2 right against .3 and .1 wrong: 1 of 2.  c: no wrong one.
    scores = [0.9, 0.2, 0.1, 0.3, 0.1, 0.7]
    labels = [True, True, False, False, False, True]
    assert within_question_auc(scores, labels, ["a", "b", "b", "b", "a", "c"]) == 0.75
    assert within_question_auc([0.5], [True], ["a"]) is None


def test_knowing_the_question_alone_is_worth_a_half_within_questions() -> None:
    # An easy question with three right of four, a hard one with one of four; a score per question.
    labels = [True, True, True, False, True, False, False, False]
    scores = [0.75] * 4 + [0.25] * 4
    # pairs: right 3 high + 1 low, wrong 1 high + 3 low: (3*3 + (3*1 + 1*3)/2 + 0) / 16 = 12/16
    assert auc(scores, labels) == 0.75
    assert within_question_auc(scores, labels, list("eeeehhhh")) == 0.5


def test_reliability_and_calibration_by_hand() -> None:
    # two bins: [0, .5) holds .2 and .4 (one right of two), [.5, 1] holds .5 and 1 (both right)
    scores, labels = [0.2, 0.4, 0.5, 1.0], [False, True, True, True]
    low, high = reliability_table(scores, labels, num_bins=2)
    assert (low.count, low.mean_score, low.share_right) == (2, pytest.approx(0.3), 0.5)
    assert (high.count, high.mean_score, high.share_right) == (2, 0.75, 1.0)
    # 2/4 * |.3 - .5| + 2/4 * |.75 - 1| = .225
    assert expected_calibration_error(scores, labels, num_bins=2) == pytest.approx(0.225)


def test_each_tenth_is_a_bin_of_its_own() -> None:
    scores = [i / 10 for i in range(11)]
    table = reliability_table(scores, [False] * 11)
    assert [row.count for row in table] == [1] * 9 + [2]
    assert [row.low for row in table] == scores[:10]


def test_an_empty_bin_has_no_share() -> None:
    empty = reliability_table([0.9], [True], num_bins=2)[0]
    assert (empty.count, empty.mean_score, empty.share_right) == (0, None, None)
    assert expected_calibration_error([], []) is None


def test_a_perfectly_calibrated_score_has_no_error() -> None:
    assert expected_calibration_error([0.25] * 4, [True, False, False, False]) == 0


@pytest.mark.parametrize("function", [auc, expected_calibration_error])
@pytest.mark.parametrize(
    ("scores", "labels", "complaint"),
    [
        ([0.5], [True, False], "equally long"),
        ([[0.5]], [[True]], "equally long"),
        ([float("nan")], [True], "finite"),
        ([0.5], [2], "booleans"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    function: object, scores: list[float], labels: list[object], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        function(scores, labels)  # type: ignore[operator]


def test_calibration_is_for_scores_between_0_and_1() -> None:
    with pytest.raises(ValueError, match="lie in"):
        expected_calibration_error([1.5], [True])
    with pytest.raises(ValueError, match="num_bins"):
        reliability_table([0.5], [True], num_bins=0)
    with pytest.raises(ValueError, match="2 questions for 1"):
        within_question_auc([0.5], [True], ["a", "b"])


def test_intervals_are_over_questions_and_not_over_answers() -> None:
    """Said ten times each, the same answers say no more."""
    rng = np.random.default_rng(0)
    scores, labels = rng.random(120), rng.random(120) < 0.5
    questions = [n // 4 for n in range(120)]
    for interval in (auc_interval, within_question_interval):
        ends = interval(scores, labels, questions, draws=50)
        assert ends is not None
        assert 0.2 < ends[0] < ends[1] < 0.8
        often = interval(scores.repeat(10), labels.repeat(10), np.repeat(questions, 10), draws=50)
        assert often == pytest.approx(ends, abs=1e-12)
        assert interval(scores, labels, questions, draws=50, seed=1) != ends


def test_the_interval_of_a_share_is_the_binomials() -> None:
    """Areas 0 and 1, each for half of 400 questions: .5 +- 1.96 sqrt(.25 / 400) = .5 +- .049."""
    scores = np.tile([0.0, 1.0], 400)
    labels = np.array([n % 2 == (n // 2 < 200) for n in range(800)])
    questions = [n // 2 for n in range(800)]
    ends = within_question_interval(scores, labels, questions, draws=2000)
    assert ends == pytest.approx((0.451, 0.549), abs=0.008)
    perfect = within_question_interval(scores, scores == 1, questions, draws=50)
    assert perfect == auc_interval(scores, scores == 1, questions, draws=50) == (1, 1)


def test_where_nothing_can_be_told_apart_there_is_no_interval() -> None:
    assert auc_interval([], [], []) is within_question_interval([], [], []) is None
    assert auc_interval([0.1, 0.2], [True, True], "ab") is None
    assert within_question_interval([0.1, 0.2], [True, False], "ab") is None
    with pytest.raises(ValueError, match="1 questions for 2 scores"):
        auc_interval([0.1, 0.2], [True, False], "a")
