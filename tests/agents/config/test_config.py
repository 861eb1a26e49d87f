"""Settings are judged when they are made, before anything is measured or written."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, replace

import pytest

from maporl_agents.config import (
    EvalConfig,
    IACConfig,
    IACSettings,
    MAGRPOConfig,
    MAGRPOSettings,
    MALTConfig,
    MALTSettings,
    PPOConfig,
    Sampling,
    TrainConfig,
    from_dict,
    read_settings,
)
from maporl_agents.records.saved_settings import plain_settings, saved_settings
from maporl_agents.training.keywords import settings_with

NUMBERS = [
    (PPOConfig(), "max_grad_norm", (-1.0, 0.0, math.nan), (0.5, math.inf)),
    (PPOConfig(), "clip_coef", (-1.0, 0.0, math.nan), (0.2, math.inf)),
    (PPOConfig(), "learning_rate", (-1e-3, math.nan, math.inf), (0.0, 1e-3)),
    (PPOConfig(), "critic_learning_rate", (-1e-3, math.nan, math.inf), (0.0,)),
    (PPOConfig(), "warmup_steps", (-3,), (0, 5)),
    (PPOConfig(), "adam_betas", ((1.5, 2.0), (0.9, 1.0), (-0.1, 0.9)), ((0.0, 0.99),)),
    (PPOConfig(), "adam_eps", (-1e-8, math.inf), (0.0,)),
    (PPOConfig(), "token_gamma", (-1.0, 1.1, math.nan), (0.0, 1.0)),
    (PPOConfig(), "gae_lambda", (2.0, -0.1), (0.0, 0.95)),
    (PPOConfig(), "kl_target", (0.0, math.inf), (None, 0.1)),
    (PPOConfig(), "micro_tokens", (0,), (1,)),
    (PPOConfig(), "epochs", (0,), (4,)),
    (MAGRPOSettings(ratio=True), "clip_coef", (0.0, math.nan), (None, 0.2)),
    (MAGRPOSettings(), "turn_gamma", (1.5,), (0.9,)),
    (MALTSettings(), "beta", (0.0, math.inf), (0.2,)),
    (IACSettings(), "critic_learning_rate", (math.nan,), (1e-3,)),
    (EvalConfig(), "questions", (0,), (1,)),
    (EvalConfig(), "questions_before", (0,), (1,)),
    (EvalConfig(), "passes", (0,), (3,)),
    (Sampling(), "temperature", (-1.0, math.nan, math.inf), (0.0, 0.7)),
    (TrainConfig(), "steps", (0, -1), (1,)),
    (TrainConfig(), "questions_per_step", (0,), (1,)),
    (TrainConfig(), "checkpoint_every", (0,), (1,)),
]


@pytest.mark.parametrize(
    ("settings", "name", "wrong", "right"),
    NUMBERS,
    ids=[f"{type(n[0]).__name__}.{n[1]}" for n in NUMBERS],
)
def test_numbers_out_of_range_are_refused_by_name(settings, name, wrong, right) -> None:
    for value in wrong:
        with pytest.raises(ValueError, match=rf"{name} must"):
            replace(settings, **{name: value})
    for value in right:
        assert getattr(replace(settings, **{name: value}), name) == value


@pytest.mark.parametrize("config", [TrainConfig, MAGRPOConfig, MALTConfig, IACConfig])
def test_training_samples(config) -> None:
    """Greedy messages are all alike; `Sampling` itself allows them, for measuring."""
    with pytest.raises(ValueError, match="temperature must be above 0 in training"):
        config(sampling=Sampling(temperature=0))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": 5}, "name is 5, but it must be text"),
        ({"seed": 0.5}, "seed is 0.5, but it must be a whole number"),
        ({"seed": True}, "seed is True, but it must be a whole number"),
        ({"game": {"alpha": "ab"}}, "game.alpha is 'ab', but it is a list"),
        ({"game": {"alpha": [1]}}, "game.alpha has 1 entries, and must have 2"),
        ({"game": {"penalties": {"min_words": "x"}}}, "game.penalties.min_words is 'x', but it"),
        ({"ppo": {"kl_target": []}}, "ppo.kl_target is [], but it must be a number"),
        ({"team": {"gradient_checkpointing": "no"}}, "team.gradient_checkpointing is 'no', but"),
        ({"team": 5}, "team is a group of settings"),
    ],
)
def test_saved_settings_of_another_type_are_refused(changes, sentence) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        read_settings(changes)


def test_saved_settings_are_read_back_as_they_were() -> None:
    for config in (TrainConfig(), MAGRPOConfig(), MALTConfig(), IACConfig()):
        assert read_settings(json.loads(json.dumps(asdict(config)))) == config
    assert read_settings({"ppo": {"learning_rate": 1}}).ppo.learning_rate == 1.0


def test_settings_of_earlier_versions_are_passed_over_where_they_were_saved() -> None:
    """And refused, with what took their place, where somebody asks for them."""
    old = {"ppo": {"learning_rate": 0.5, "micro_episodes": 4}}
    assert read_settings(old).ppo == PPOConfig(learning_rate=0.5)
    now = replace(TrainConfig(), ppo=PPOConfig(learning_rate=0.5))
    assert saved_settings(old, now) == plain_settings(now)
    assert isinstance(read_settings({"malt": {"preference": {"micro_episodes": 4}}}), MALTConfig)
    sentence = r"ppo\.micro_episodes is no longer a setting: set ppo\.micro_tokens, the largest"
    with pytest.raises(ValueError, match=sentence):
        from_dict(TrainConfig, old)
    with pytest.raises(ValueError, match="micro_episodes is no longer a setting: set micro_tokens"):
        settings_with(TrainConfig(), {"micro_episodes": 4})
