"""Keywords of the Python entry: the settings that they name, and flags in their words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from maporl_agents.algorithms import Scheme
from maporl_agents.algorithms.maporl import SCHEME
from maporl_agents.config import MALTConfig, PPOConfig, TrainConfig
from maporl_agents.training.keywords import in_keywords, settings_with


def test_a_keyword_finds_its_field() -> None:
    start = TrainConfig()
    made = settings_with(
        start,
        {"steps": 3, "num_agents": 4, "learning_rate": 1, "ppo": {"epochs": 2}, "eval.seed": 5},
    )
    assert made == replace(
        start,
        steps=3,
        game=replace(start.game, num_agents=4),
        ppo=replace(start.ppo, learning_rate=1.0, epochs=2),
        eval=replace(start.eval, seed=5),
    )
    assert settings_with(start, {"ppo": PPOConfig(epochs=7)}).ppo == PPOConfig(epochs=7)
    beside = settings_with(start, {"gamma": 0.5, "every": 7, "learning_rate": 1e-5})
    assert (beside.game.gamma, beside.eval.every, beside.ppo.learning_rate) == (0.5, 7, 1e-5)
    assert (beside.self_play, beside.warmup) == (start.self_play, start.warmup)
    assert settings_with(start, {"self_play.gamma": 0.5}).self_play.gamma == 0.5
    assert settings_with(start, {}) == start
    assert isinstance(SCHEME, Scheme)


@pytest.mark.parametrize(
    ("start", "given", "match"),
    [
        (TrainConfig(), {"num_agent": 2}, "unknown setting num_agent: did you mean num_agents"),
        (TrainConfig(), {"zzz": 2}, "unknown setting zzz: known are name, seed"),
        (MALTConfig(), {"learning_rate": 1}, r"malt\.imitation\.learning_rate, malt\.preference"),
        (TrainConfig(), {"epochs": 2, "ppo.epochs": 3}, "epochs and ppo.epochs are one setting"),
        (TrainConfig(), {"steps": "many"}, "steps is 'many', but it must be a whole number"),
        (TrainConfig(), {"ppo": {"epoch": 2}}, r"unknown setting ppo\.epoch .did you mean"),
        (TrainConfig(), {"steps": 0}, "steps must be at least 1"),
    ],
)
def test_a_keyword_that_suits_no_field(start, given, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        settings_with(start, given)


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ("start another run (--name).", "start another run (name)."),
        ("go on (--force) or --resume", "go on (force=True) or resume=True"),
        (
            "set --eval.passes 1, lower --ppo.learning-rate",
            "set eval.passes 1, lower ppo.learning_rate",
        ),
        ("a text of '--', a--b and --3", "a text of '--', a--b and --3"),
    ],
)
def test_flags_become_keywords(told: str, wanted: str) -> None:
    assert in_keywords(told) == wanted
