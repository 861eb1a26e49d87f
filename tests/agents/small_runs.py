"""Trainings of a few small steps, from the command line and from Python."""

from __future__ import annotations

from typing import Any

import pytest

from maporl_agents import cli
from maporl_agents.config import EvalConfig, PPOConfig, Sampling, TrainConfig

SIZES: dict[str, Any] = {
    "steps": 3,
    "questions_per_step": 3,
    "checkpoint_every": 1,
    "sampling": Sampling(max_new_tokens=4),
    "eval": EvalConfig(questions=6),
}
"""Settings of a run of any scheme that takes a moment."""
SMALL = TrainConfig(
    name="run",
    steps=6,
    questions_per_step=2,
    checkpoint_every=1,
    eval=EvalConfig(questions=2),
    ppo=PPOConfig(minibatches=1),
)


def maporl(*argv: object) -> int:
    """Run the command line here; return its exit code."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in argv])
    return int(stop.value.code or 0)
