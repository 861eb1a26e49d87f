"""Settings of self-play: a zero-sum game against past versions of oneself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from maporl_agents.config import checks

Opponents = Literal["uniform", "latest", "rating"]


@dataclass(frozen=True)
class SelfPlayConfig:
    """Self-play against a pool of past versions, in a PettingZoo game of two players in text."""

    game: str = ""
    """The game in place of debates: "takeaway" (`maporl_env.takeaway_v0`), textarena:GAME as for
    `--game.env`, or your own as module:function or file.py:function, which returns an AEC or
    Parallel environment of two players whose rewards add up to 0. Empty for debates."""
    turns: int = 6
    """The most messages of one player; a game that is longer is broken off there."""
    opponents: Opponents = "uniform"
    """The version that a step is played against: any with equal chance ("uniform"), the newest
    ("latest"), or by the Elo "rating": the more often, the likelier it wins."""
    every: int = 10
    """Steps after which the team joins the pool as it is then; the untrained team begins it."""
    pool: int = 20
    """The most versions that are drawn from; the untrained one stays, then the oldest go first."""
    elo_gain: float = 100.0
    """Most points by which one step moves the Elo rating of the team."""
    gamma: float = 1.0
    """Discount per own message of later rewards, in [0, 1]."""
    games_measured: int = 200
    """Games against the untrained team, half of them in each seat, after training."""

    def __post_init__(self) -> None:
        checks.require_choice("opponents", self.opponents, get_args(Opponents))
        checks.require_numbers(self, checks.AT_LEAST_1, "turns", "every", "games_measured")
        checks.require_numbers(self, checks.ABOVE_0, "elo_gain")
        checks.require_numbers(self, checks.UNIT, "gamma")
        if self.pool < 2:
            raise ValueError(
                f"pool must be at least 2, the untrained team and another: {self.pool}"
            )
