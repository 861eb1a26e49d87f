"""A scheme of one's own, named as file.py:name: planned, compared, and benchmarked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_runs import maporl
from study_cases import quiet

from maporl_agents.config import config_of
from maporl_agents.studies.catalogue import study
from maporl_agents.studies.controls import Measure
from maporl_agents.studies.job_pool import Pool, made
from maporl_agents.studies.jobs import Job, Recipe, carry_out

SCHEMES = '''
from dataclasses import dataclass, field, replace

from maporl_agents.algorithms import Scheme, maporl
from maporl_agents.config import GameConfig, OptimizerConfig, RunConfig, TrainConfig
from maporl_agents.measure.step_metrics import rollout_metrics
from maporl_agents.play.rollout import play
from maporl_agents.update.optimiser import PolicyLearner


@dataclass(frozen=True)
class Settings(RunConfig):
    """Of a scheme that only plays."""

    name: str = "idle"
    steps: int = 2
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


def train_step(learner, game, questions, config, *, seed):
    rollouts = play(learner.team, game, questions, config.sampling, seed=seed)
    learner.schedule.step()
    return rollouts, rollout_metrics(rollouts) | {"learning_rate": learner.learning_rate}


IDLE = Scheme(
    settings=Settings,
    check=lambda config, game: None,
    learner=lambda config, team: PolicyLearner(team, config.optimizer, config.steps),
    train_step=train_step,
)


@dataclass(frozen=True)
class Slower(TrainConfig):
    """MAPoRL under another name."""

    name: str = "slower"


SLOWER = replace(maporl.SCHEME, settings=Slower)
'''
SHORT = ("--questions-per-step", "2", "--sampling.max-new-tokens", "6", "--eval.questions", "2")


@pytest.fixture(autouse=True)
def here(work_folder: Path) -> Path:
    (work_folder / "mine.py").write_text(SCHEMES)
    return work_folder


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(pool: Pool, jobs: list[Job], tick: object) -> None:
        for job in jobs:
            carry_out(Job.from_json(job.to_json()), pool.root / job.key, quiet())

    monkeypatch.setattr(Pool, "run", run)


def planned(capsys: pytest.CaptureFixture[str], name: str, *flags: object) -> str:
    """The page of `maporl plan` for a scheme of the file, on one line."""
    assert maporl("plan", "--scheme", f"mine.py:{name}", *SHORT, *flags) == 0
    return " ".join(capsys.readouterr().out.split())


COMMON = ("AdamW's two moments", "while in sampling", "while in optimiser step")
OWN = ("while in scoring", "while in update", "(--ppo.micro-tokens)")
NOTE = "mine.py:IDLE computes between play and the optimiser step"


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "there", "absent"),
    [("SLOWER", (*COMMON, *OWN), (NOTE,)), ("IDLE", (*COMMON, NOTE), OWN)],
)
def test_a_scheme_is_planned_as_far_as_it_declares_its_work(
    capsys: pytest.CaptureFixture[str], name: str, there: tuple[str, ...], absent: tuple[str, ...]
) -> None:
    said = planned(capsys, name, "--rehearsal-seconds", 0)
    assert [words for words in there if words not in said] == []
    assert [words for words in absent if words in said] == []
    assert ("critics │ 0.00 MiB" in said) == (name == "IDLE"), "it has no value heads"


@pytest.mark.thorough
def test_a_scheme_of_ones_own_is_rehearsed_by_its_own_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = planned(capsys, "IDLE", "--rehearsal-seconds", 60)
    assert "a step takes about" in said
    assert "Rehearsed: a step of all 2 questions" in said


def test_the_study_of_a_scheme(here: Path) -> None:
    """Beside MAPoRL on as many questions of the same game, and beside the untrained team."""
    plan = study("mine.py:IDLE")
    own, maporls = plan.arms
    assert (plan.name, own.name, own.role) == ("own-idle", "idle", "method")
    assert (maporls.name, maporls.role) == ("maporl", "baseline")
    assert maporls.recipe.config.steps == own.recipe.config.steps == 2
    assert maporls.recipe.config.game == own.recipe.config.game
    assert [claim.stands_on for claim in plan.claims] == [("idle/training",), ("idle/maporl",)]
    assert made(own.recipe) == "mine.py:IDLE"
    with pytest.raises(ValueError, match=r"there is no file .*nowhere\.py"):
        study("nowhere.py:IDLE")
    with pytest.raises(ValueError, match=r"choose one of shopping.*module:name or file.py:name"):
        study("shoping")


def test_a_job_of_a_scheme_is_named_by_its_code(here: Path) -> None:
    config = config_of("mine.py:IDLE")()
    job = Job(Recipe("own", config), 0, (Measure(),))
    assert Job.from_json(job.to_json()) == job
    key = job.key
    (here / "mine.py").write_text(SCHEMES + "\n# another update\n")
    assert job.key != key


@pytest.mark.thorough
def test_a_scheme_is_compared(
    here: Path, in_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert maporl("compare", "mine.py:IDLE", "--quick", "--seeds", 0) == 0
    assert "3 jobs, 0 of them done before" in capsys.readouterr().out
    found = json.loads((here / "runs/studies/own-idle-quick/study.json").read_text())
    assert found["command"] == "maporl compare mine.py:IDLE --seeds 0 --quick"
    assert [len(arm["seeds"]) for arm in found["arms"]] == [1, 1]
    before, after = (
        [m["turns"] for m in found["arms"][0]["seeds"][0]["measurements"] if m["stage"] == stage]
        for stage in ("before", "after")
    )
    assert before == after, "it only plays, so its training changes nothing"
    assert maporl("compare", "mine.py:IDLE", "--quick", "--seeds", 0) == 0
    assert "3 jobs, 3 of them done before" in capsys.readouterr().out


@pytest.mark.thorough
def test_a_run_of_a_scheme_is_benchmarked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert maporl("train", "--scheme", "mine.py:IDLE", "--steps", 1, *SHORT) == 0
    flags = ("--agents", "runs/idle", "--cases", "shopping/*", "--max-new-tokens", 2)
    assert maporl("bench", "env", *flags, "--out", "idle.json") == 0, capsys.readouterr().err
    about = json.loads((here / "idle.json").read_text())["about"]
    assert about["scheme"] == f"{here}/mine.py:IDLE"
