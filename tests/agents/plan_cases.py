"""Settings, machines and real steps for tests of plans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from maporl_agents.config import PPOConfig, Sampling, TeamConfig, TrainConfig
from maporl_agents.planning.machine import GIB, Machine
from maporl_agents.recipes import recipe

MACHINE = Machine("a machine", 16 * GIB, 1e11, 1e10, 1e-5, overlaps=False)


def miniature(folder: Path, **team: Any) -> TrainConfig:
    """Return a small run of a saved model: four debates a step, messages of twelve tokens."""
    return TrainConfig(
        questions_per_step=4,
        team=TeamConfig(model=(str(folder),), device="cpu", **team),
        sampling=Sampling(max_new_tokens=12),
        ppo=PPOConfig(micro_tokens=256, minibatches=2),
    )


def tiny(name: str, tokens: int) -> TrainConfig:
    """Return a built-in run with messages so short that none ends before its limit."""
    config = recipe(name)
    assert isinstance(config, TrainConfig)
    return replace(
        config,
        questions_per_step=4,
        sampling=Sampling(max_new_tokens=tokens),
        team=replace(config.team, device="cpu"),
    )
