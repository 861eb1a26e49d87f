"""Elo ratings of the versions of a team, from the results of its steps.

The expected score of a player of rating a against one of rating b is

    E(a, b) = 1 / (1 + 10^((b - a) / 400))                                     (Elo, 1978)

A win counts 1, a draw 1/2, a loss 0. Ratings are a function of the metrics of a run, in order, so
that a resumed run has those of one that was not cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

START = 0.0
"""Rating of the untrained team, to which all others are relative."""


def expected_score(rating: float, other: float) -> float:
    """Return the expected score against another rating."""
    return float(1.0 / (1.0 + 10.0 ** ((other - rating) / 400.0)))


def updated(rating: float, other: float, score: float, gain: float) -> float:
    """Return a rating after games against another one: R + gain (S - E).

    Args:
        rating: before.
        other: of the opponent, which stays.
        score: S, mean over the games, in [0, 1].
        gain: the most points that the games move it by.
    """
    return rating + gain * (score - expected_score(rating, other))


@dataclass
class Ratings:
    """The ratings of a run so far.

    Attributes:
        gain: of `updated`, per step.
        now: of the team that is trained.
        versions: of those in the pool, by the step after which they joined it; each as the team
            was rated then.
    """

    gain: float
    now: float = START
    versions: dict[int, float] = field(default_factory=lambda: {0: START})

    def played(self, opponent: int, score: float) -> None:
        """Count the games of a step against one version."""
        self.now = updated(self.now, self.versions[opponent], score, self.gain)

    def joined(self, step: int) -> None:
        """Rate the version that joins the pool after a step."""
        self.versions[step] = self.now

    @property
    def best(self) -> float:
        """The highest rating of a version."""
        return max(self.versions.values())


def ratings_of(rows: Iterable[Mapping[str, float]], *, gain: float, every: int) -> Ratings:
    """Return the ratings after some steps.

    Args:
        rows: the metrics of the steps, in order: "step", "self_play/opponent", "self_play/score".
        gain: of `updated`, per step.
        every: steps after which a version joins.
    """
    ratings = Ratings(gain)
    for row in rows:
        ratings.played(int(row["self_play/opponent"]), row["self_play/score"])
        if int(row["step"]) % every == 0:
            ratings.joined(int(row["step"]))
    return ratings
