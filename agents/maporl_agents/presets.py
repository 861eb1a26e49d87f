"""Settings that were seen to learn, by name: where ``maporl train --preset NAME`` starts from.

A preset fits a model to a task: what is played, who is trained, and the step sizes that this model
bears. Every flag that is given besides changes it.
"""

from __future__ import annotations

import difflib
from dataclasses import replace

from maporl_agents.config import GameConfig, PPOConfig, TeamConfig, TrainConfig

SHOPPING = TrainConfig()
"""Two tiny agents with different knowledge pool it: `TrainConfig`'s own defaults."""

SHARING = TrainConfig(
    name="maporl-sharing",
    steps=40,
    game=GameConfig(task="sharing", reward_feedback=True, feedback_verifier="noisy_key"),
    team=TeamConfig(model=("tiny-sharing",), sharing="one", train_turns=">=2"),
    ppo=PPOConfig(learning_rate=6e-4),
)
"""The paper's Experiment 1 in the small: the same model on both sides, a noisy judge's verdicts
shown, the answer key paid, the first turn left as it began."""

COINS = replace(SHARING, name="maporl-coins", game=replace(SHARING.game, task="coins"))
"""The same on the companion task."""

PRESETS = {"shopping": SHOPPING, "sharing": SHARING, "coins": COINS}


def preset(name: str) -> TrainConfig:
    """Return the settings of a preset.

    Raises:
        ValueError: an unknown name; lists the known ones.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, list(PRESETS), n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"unknown preset {name!r}{hint}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
