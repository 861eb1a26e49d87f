"""AUC, within-question AUC and calibration of scores. Pure functions of numpy arrays.

`scores` are in [0, 1], `labels` say which answers are right, both (N,). Where a figure is not
defined (one class is missing, no answers) it is None, never a number that stands for "nothing".
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def auc(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Return the probability that a right answer scores above a wrong one, ties counting half.

    The area under the ROC curve, as the Mann-Whitney statistic over all (right, wrong) pairs.

    Returns:
        A number in [0, 1], 0.5 for scores that know nothing; None unless there are right and wrong
        answers.

    Raises:
        ValueError: unequal lengths, or scores that are no finite numbers.
    """
    score, right = _checked(scores, labels)
    if right.all() or not right.any():
        return None
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # from 1; ties share their mean rank
    num_right = int(right.sum())
    below = ranks[right].sum() - num_right * (num_right + 1) / 2
    return float(below / (num_right * (len(right) - num_right)))


def within_question_auc(
    scores: ArrayLike, labels: ArrayLike, questions: Sequence[Hashable]
) -> float | None:
    """Return the mean over questions of the AUC among that question's answers.

    Knowing which questions are easy raises `auc` and leaves this at 0.5: what it measures is
    correctness alone. Questions whose answers are all right or all wrong do not count.

    Returns:
        A number in [0, 1]; None if no question counts.

    Raises:
        ValueError: as `auc`.
    """
    known = _areas(scores, labels, questions)
    return sum(known) / len(known) if known else None


Interval = tuple[float, float]
"""Lower and upper end, 95 %."""


def auc_interval(
    scores: ArrayLike,
    labels: ArrayLike,
    questions: Sequence[Hashable],
    *,
    within: bool = False,
    draws: int = 1000,
    seed: int = 0,
) -> Interval | None:
    """Return the 95 % interval of `auc` over other questions: percentiles of a bootstrap.

    Questions are drawn with replacement, each with all its answers, because answers to one question
    are correlated (Efron and Tibshirani, 1993, section 8.5).

    Args:
        scores: of the answers, as for `auc`.
        labels: whether each is right.
        questions: that each answers.
        within: the interval of `within_question_auc` instead.
        draws: number of bootstrap samples.
        seed: names their random stream.

    Returns:
        Its ends; None where fewer than half of the draws have right and wrong answers.

    Raises:
        ValueError: as `within_question_auc`.
    """
    if within:
        known = np.array(_areas(scores, labels, questions))
        return _bootstrap(lambda chosen: float(known[chosen].mean()), len(known), draws, seed)
    score, right = _checked(scores, labels)
    rows = [np.array(chosen) for chosen in _rows_of(questions, len(score))]

    def value(chosen: NDArray[np.int64]) -> float:
        drawn = np.concatenate([rows[i] for i in chosen])
        area = auc(score[drawn], right[drawn])
        return np.nan if area is None else area

    return _bootstrap(value, len(rows), draws, seed)


within_question_interval = partial(auc_interval, within=True)


def _areas(scores: ArrayLike, labels: ArrayLike, questions: Sequence[Hashable]) -> list[float]:
    """Return the AUC within each question that has right and wrong answers."""
    score, right = _checked(scores, labels)
    areas = (auc(score[chosen], right[chosen]) for chosen in _rows_of(questions, len(score)))
    return [area for area in areas if area is not None]


def _bootstrap(
    value: Callable[[NDArray[np.int64]], float], count: int, draws: int, seed: int
) -> Interval | None:
    """Percentiles 2.5 and 97.5 of a figure over draws of `count` questions with replacement."""
    if not count:
        return None
    rng = np.random.default_rng(seed)
    values = np.array([value(rng.integers(count, size=count)) for _ in range(draws)])
    values = values[~np.isnan(values)]
    if 2 * len(values) < draws:
        return None
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def _rows_of(questions: Sequence[Hashable], count: int) -> list[list[int]]:
    """The places of the answers to each question."""
    if len(questions) != count:
        raise ValueError(f"{len(questions)} questions for {count} scores")
    rows: dict[Hashable, list[int]] = {}
    for index, question in enumerate(questions):
        rows.setdefault(question, []).append(index)
    return list(rows.values())


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers whose scores lie in [low, high), the last bin up to and including 1.

    Attributes:
        low: where the bin begins.
        high: where it ends.
        count: answers in it.
        mean_score: of them; None for an empty bin.
        share_right: of them; None for an empty bin.
    """

    low: float
    high: float
    count: int
    mean_score: float | None
    share_right: float | None


def reliability_table(
    scores: ArrayLike, labels: ArrayLike, *, num_bins: int = 10
) -> tuple[Bin, ...]:
    """Return the share of right answers by score, in bins of equal width.

    Raises:
        ValueError: as `auc`; scores outside [0, 1]; or no bin.
    """
    score, right = _checked(scores, labels)
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, not {num_bins}")
    if len(score) and (score.min() < 0 or score.max() > 1):
        raise ValueError("scores must lie in [0, 1] to be compared with shares")
    edges = np.arange(num_bins + 1) / num_bins
    place = np.minimum(np.searchsorted(edges, score, side="right") - 1, num_bins - 1)
    return tuple(
        _bin(float(edges[i]), float(edges[i + 1]), score[place == i], right[place == i])
        for i in range(num_bins)
    )


def _bin(low: float, high: float, score: Floats, right: Bools) -> Bin:
    if not len(score):
        return Bin(low, high, 0, None, None)
    return Bin(low, high, len(score), float(score.mean()), float(right.mean()))


def expected_calibration_error(
    scores: ArrayLike, labels: ArrayLike, *, num_bins: int = 10
) -> float | None:
    """Return the mean distance of scores from shares: sum over bins n_b / N `|score_b - share_b|`.

    Guo et al. (2017), equation 3.

    Returns:
        A number in [0, 1], 0 for perfect calibration; None without answers.

    Raises:
        ValueError: as `reliability_table`.
    """
    table = reliability_table(scores, labels, num_bins=num_bins)
    total = sum(row.count for row in table)
    gaps = [
        row.count * abs(row.mean_score - row.share_right)
        for row in table
        if row.mean_score is not None and row.share_right is not None
    ]
    return sum(gaps) / total if total else None


def _checked(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Bools]:
    score, right = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if score.ndim != 1 or score.shape != right.shape:
        raise ValueError(
            f"scores and labels must be equally long rows, not of shape {score.shape} and "
            f"{right.shape}"
        )
    if not np.isfinite(score).all():
        raise ValueError("scores must be finite: leave out answers without a score")
    if right.dtype != np.bool_ and not np.isin(right, (0, 1)).all():
        raise ValueError("labels must be booleans: True for a right answer")
    return score, right.astype(np.bool_)
