"""The settings by which the teams of the bench are trained."""

from __future__ import annotations

from typing import get_args

import pytest

from maporl_agents.config.effects import refuse_without_effect
from maporl_agents.systems import tasks, training
from maporl_agents.systems.tasks import TASKS


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("scheme", ["alone", "maporl", "grpo", "review", "magrpo", "iac", "malt"])
def test_trainings_generate_about_as_many_tokens(
    task: tasks.BenchTask, scheme: training.SchemeName
) -> None:
    config = training.settings_of(scheme, task, task.train_tokens)
    tokens = training.answers_of(config) * training.mean_tokens(task)
    of_round = tokens / (config.steps / config.steps_per_round)
    assert abs(tokens - task.train_tokens) <= max(of_round / 2 + 1, of_round - task.train_tokens)
    assert config.game.verifier == "key"


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_no_training_is_refused_for_settings_without_effect(task: tasks.BenchTask) -> None:
    """Scores are shown in later turns only, and a policy is shared by several agents only."""
    schemes = get_args(training.SchemeName)
    configs = [training.settings_of(scheme, task, task.train_tokens) for scheme in schemes]
    for config in (*configs, training.lone_member(task, task.train_tokens // 2, 0, 1)):
        refuse_without_effect(config)
