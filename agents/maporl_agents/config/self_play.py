"""Settings of self-play: a zero-sum game against past versions of oneself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from maporl_agents.config import checks

Opponents = Literal["uniform", "latest", "rating"]

Pool = Annotated[int, checks.Range("at least 2, the untrained team and another", lambda x: x >= 2)]


@dataclass(frozen=True)
class SelfPlayConfig(checks.Checked):
    """Self-play against a pool of past versions, in a PettingZoo game of two players in text."""

    game: str = ""
    """The game in place of debates: "takeaway" (`maporl_env.takeaway_v0`), textarena:GAME as for
    `--game.env`, or your own as module:function or file.py:function, which returns an AEC or
    Parallel environment of two players whose rewards add up to 0. Empty for debates."""
    turns: checks.AtLeast1 = 6
    """The most messages of one player; a game that is longer is broken off there."""
    opponents: Opponents = "uniform"
    """The version that a step is played against: any with equal chance ("uniform"), the newest
    ("latest"), or by the Elo "rating": the more often, the likelier it wins."""
    every: checks.AtLeast1 = 10
    """Steps after which the team joins the pool as it is then; the untrained team begins it."""
    pool: Pool = 20
    """The most versions that are drawn from; the untrained one stays, then the oldest go first."""
    elo_gain: checks.Above0 = 100.0
    """Most points by which one step moves the Elo rating of the team."""
    gamma: checks.Unit = 1.0
    """Discount per own message of later rewards, in [0, 1]."""
    games_measured: checks.AtLeast1 = 200
    """Games against the untrained team, half of them in each seat, after training."""
