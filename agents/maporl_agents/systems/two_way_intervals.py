"""A 95 % interval of a mean over seeds and over questions, where every seed asks all questions.

With y_sq the result of seed s = 1..S on question q = 1..Q,

    y_sq = mu + a_s + b_q + e_sq        (a: training and its noise; b: how hard a question is)

    MS_a = Q sum_s (y_s. - y)^2 / (S - 1)       MS_b = S sum_q (y_.q - y)^2 / (Q - 1)
    MS_e = sum_sq (y_sq - y_s. - y_.q + y)^2 / ((S - 1) (Q - 1))

    E[MS_a + MS_b - MS_e] / (S Q) = var_a / S + var_b / Q + var_e / (S Q) = variance of the mean y

(two-way random effects without repetition; Searle, Casella and McCulloch, "Variance Components",
1992, chapter 4). The interval is y +- t sqrt(variance) with Satterthwaite's degrees of freedom
(Biometrics Bulletin 2, 1946), rounded down. Where MS_a <= MS_e seeds differ by no more than their
answers do by chance, and where MS_b <= MS_e questions do not; that part is then left out, and what
is left is as precise as its own degrees of freedom say.

A bootstrap over seeds and questions would draw three seeds in ten ways only, and its intervals are
too short by far for so few.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maporl_env.intervals import t_cdf, t_quantile


@dataclass(frozen=True)
class TwoWay:
    """A mean over seeds and questions.

    Attributes:
        mean: of all results.
        variance: of the mean; None where one seed, or one question, tells nothing of it.
        freedom: degrees of freedom, at least 1.
        seeds: S.
        questions: Q.
    """

    mean: float
    variance: float | None
    freedom: int
    seeds: int
    questions: int

    @property
    def half_width(self) -> float | None:
        """Half of the 95 % interval; None without a variance."""
        if self.variance is None:
            return None
        return t_quantile(0.975, self.freedom) * math.sqrt(self.variance)

    @property
    def p(self) -> float | None:
        """Two-sided p-value of the hypothesis that the mean is 0; None without a variance."""
        if self.variance is None:
            return None
        if self.variance == 0:
            return 1.0 if self.mean == 0 else 0.0
        t = abs(self.mean) / math.sqrt(self.variance)
        return max(0.0, 2 * (1 - t_cdf(t, self.freedom)))

    def __str__(self) -> str:
        """Return e.g. "0.912 ± 0.025"."""
        width = self.half_width
        return f"{self.mean:.3f}" + ("" if width is None else f" ± {width:.3f}")


@dataclass(frozen=True)
class Squares:
    """The mean squares of results by seed and question."""

    seeds: float
    questions: float
    rest: float


def mean_squares(results: Sequence[Sequence[float]]) -> Squares:
    """Return the mean squares of results (S, Q), S and Q at least 2."""
    y = np.asarray(results, dtype=np.float64)
    count_s, count_q = y.shape
    mean, by_seed, by_question = y.mean(), y.mean(1), y.mean(0)
    rest = y - by_seed[:, None] - by_question[None] + mean
    return Squares(
        float(count_q * ((by_seed - mean) ** 2).sum() / (count_s - 1)),
        float(count_s * ((by_question - mean) ** 2).sum() / (count_q - 1)),
        float((rest**2).sum() / ((count_s - 1) * (count_q - 1))),
    )


def two_way(results: Sequence[Sequence[float]]) -> TwoWay:
    """Return the mean of results (S, Q) and its variance over seeds and questions.

    With one seed the variance is over questions alone, which says nothing of another training.

    Raises:
        ValueError: no results, or rows of different lengths.
    """
    lengths = {len(row) for row in results}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError("results are a row of equally many questions for each seed, at least one")
    y = np.asarray(results, dtype=np.float64)
    count_s, count_q = y.shape
    mean = float(y.mean())
    if count_q == 1 or count_s == 1:
        if count_q == count_s:
            return TwoWay(mean, None, 1, 1, 1)
        values = y.ravel()
        return TwoWay(
            mean, float(values.var(ddof=1) / len(values)), len(values) - 1, count_s, count_q
        )
    variance, freedom = _of_mean(mean_squares(y.tolist()), count_s, count_q)
    return TwoWay(mean, variance, freedom, count_s, count_q)


def _of_mean(squares: Squares, seeds: int, questions: int) -> tuple[float, int]:
    """Return the variance of the mean, and its degrees of freedom."""
    free_s, free_q, cells = seeds - 1, questions - 1, seeds * questions
    tiny = 1e-12 * max(squares.seeds, squares.questions, squares.rest)
    by_seed = squares.seeds > squares.rest + tiny
    by_question = squares.questions > squares.rest + tiny
    if by_seed and by_question:
        parts = [
            (squares.seeds, free_s),
            (squares.questions, free_q),
            (-squares.rest, free_s * free_q),
        ]
    elif by_seed:
        parts = [(squares.seeds, free_s)]
    elif by_question:
        parts = [(squares.questions, free_q)]
    else:
        pooled = (
            squares.seeds * free_s + squares.questions * free_q + squares.rest * free_s * free_q
        )
        return pooled / (cells - 1) / cells, cells - 1
    total = sum(square for square, _ in parts)
    spread = sum(square**2 / free for square, free in parts)
    freedom = max(1, math.floor(total**2 / spread + 1e-9)) if spread else cells - 1
    return total / cells, freedom


def paired(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> TwoWay:
    """Return the mean difference of two systems on the same seeds and questions."""
    return two_way((np.asarray(first, float) - np.asarray(second, float)).tolist())
