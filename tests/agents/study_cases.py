"""Small studies for tests."""

from __future__ import annotations

import io

from rich.console import Console
from small_runs import SIZES

from maporl_agents.config import TrainConfig
from maporl_agents.measure.debate_stats import TurnStats
from maporl_agents.studies.jobs import Recipe
from maporl_agents.studies.results import Measurement

SMALL = TrainConfig(**SIZES)
PPO = Recipe("ppo", SMALL)


def quiet() -> Console:
    return Console(file=io.StringIO(), width=100)


def measurement(stage: str, decoding: str, *votes: float) -> Measurement:
    turns = tuple(TurnStats((v,), v, 0.0, 0.0, 0.0, 0.0, 0.0) for v in votes)
    return Measurement(stage, decoding, turns, 10, 60, 1200)  # type: ignore[arg-type]
