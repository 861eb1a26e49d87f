"""A run that is resumed with other settings: shown and refused, or forced."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from run_log_cases import tree
from small_runs import SMALL, maporl

from maporl_agents.records.run_log import RunLog, read_metrics
from maporl_agents.training import experiment
from maporl_env.tasks import load_task


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = replace(SMALL, steps=2)
    folder = tmp_path_factory.mktemp("two-steps") / "run"
    _, learner = experiment.build(config)
    with RunLog.create(folder, config) as log:
        questions = load_task("shopping").split("train")
        experiment.train(config, learner, questions, log)
    return folder


@pytest.fixture
def two_steps(trained_once: Path, tmp_path: Path) -> Path:
    """A run of two steps with all that a resumed one needs, for this test alone."""
    return Path(shutil.copytree(trained_once, tmp_path / "run"))


def test_changed_settings_are_shown_line_by_line_and_refused(
    two_steps: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(two_steps)
    assert maporl("train", "--resume", two_steps, "--steps", 3, "--ppo.learning-rate", 0.002) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:-1] == [
        "- ppo.learning_rate: 0.001",
        "+ ppo.learning_rate: 0.002",
        "- steps: 2",
        "+ steps: 3",
    ]
    assert "--force" in lines[-1]
    assert tree(two_steps) == before


@pytest.mark.thorough
def test_forced_settings_take_effect_and_stay(two_steps: Path) -> None:
    flags = ("--steps", 3, "--ppo.learning-rate", 0.002, "--ppo.warmup-steps", 0)
    assert maporl("train", "--resume", two_steps, *flags, "--force") == 0
    rows = read_metrics(two_steps)
    assert [row["step"] for row in rows] == [1, 2, 3]
    # That of the third update: a third of the decay is left of a run of three steps.
    assert rows[-1]["learning_rate"] == pytest.approx((0.1 + 0.9 / 3) * 0.002, rel=1e-9)
    assert experiment.read_config(two_steps).steps == 3
    assert maporl("train", "--resume", two_steps) == 0, "now they are the run's own"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--steps", 1, "--force"), "has done 2 steps"),
        (("--team.critic-width", 8, "--force"), "critics"),
    ],
)
def test_forced_settings_that_cannot_go_on_change_nothing(
    two_steps: Path, capsys: pytest.CaptureFixture[str], flags: tuple[object, ...], says: str
) -> None:
    before = tree(two_steps)
    assert maporl("train", "--resume", two_steps, *flags) == 2
    assert says in capsys.readouterr().err
    assert tree(two_steps) == before


def test_force_without_resume_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert maporl("train", "--force") == 2
    assert "--resume" in capsys.readouterr().err


def test_the_learning_rate_goes_on_where_it_was(two_steps: Path) -> None:
    config = experiment.read_config(two_steps)
    _, learner = experiment.build(config)
    fresh = [group["lr"] for group in learner.optimizer.param_groups]
    assert experiment.load_checkpoint(two_steps, learner) == 2
    rates = [group["lr"] for group in learner.optimizer.param_groups]
    assert rates[0] > read_metrics(two_steps)[-1]["learning_rate"] > fresh[0] / 2, "warming up"
    assert rates != fresh
