"""A warm-up by imitation: what is imitated, that it helps, and that nothing is lost by it."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from small_runs import SMALL

from maporl_agents.config import GameConfig, WarmupConfig
from maporl_agents.records import checkpoint_folder
from maporl_agents.records.log_lines import log_lines
from maporl_agents.records.run_log import RunLog
from maporl_agents.training import experiment, warmup
from maporl_agents.training.make_game import make_game
from maporl_agents.training.resume import resume
from maporl_agents.training.warmup import warm_up
from maporl_env.types import Question

WARM = replace(SMALL, steps=2, warmup=WarmupConfig(steps=3, questions=12, batch_size=8))


def console() -> Console:
    return Console(file=io.StringIO(), width=100, record=True)


def said(screen: Console) -> str:
    return " ".join(screen.export_text().split())


def test_right_messages_become_more_likely_and_no_others_are_taken(tmp_path: Path) -> None:
    config = replace(WARM, warmup=WarmupConfig(6, questions=24, batch_size=500, learning_rate=3e-4))
    _, learner = experiment.build(config)
    schedule, moments = learner.schedule.state_dict(), len(learner.optimizer.state)
    game = make_game(config.game)
    taken: list[Any] = []
    real = warmup.batch_of
    with RunLog.create(tmp_path / "run", config) as log, pytest.MonkeyPatch.context() as patch:
        patch.setattr(warmup, "batch_of", lambda team, rows: taken.extend(rows) or real(team, rows))
        told = warm_up(config, learner, game, game.questions("train"), log)
    lines = [row for row, _ in log_lines(tmp_path / "run" / "warmup.jsonl")]
    assert [row["update"] for row in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[-1]["nll"] < lines[0]["nll"]
    assert f"warm-up: {len(taken)} of 144 messages on 24 questions are right; imitated" in told
    debates = [
        json.loads(line)
        for line in (tmp_path / "run" / "transcripts" / "warmup.jsonl").read_text().splitlines()
    ]
    right = [m["text"] for one in debates for m in one["messages"] if m["score"] == 1]
    assert sorted(row.completion.text for row in taken) == sorted(right)
    assert learner.schedule.state_dict() == schedule
    assert len(learner.optimizer.state) == moments


@pytest.mark.thorough
@pytest.mark.parametrize("killed", ["in the warm-up", "after it"])
def test_a_run_that_goes_on_warms_up_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    experiment.run(WARM, whole, console())

    def die(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if killed == "after it":
            patch.setattr(experiment.loop, "take_step", die)
        else:
            patch.setattr(warmup, "_imitate", die)
        with pytest.raises(KeyboardInterrupt):
            experiment.run(WARM, cut, console())
    assert (checkpoint_folder.latest(cut / "checkpoints") is not None) == (killed == "after it")
    screen = console()
    resume(cut, screen)
    assert ("warm-up: " in said(screen)) == (killed == "in the warm-up")
    for name in ("metrics.jsonl", "warmup.jsonl", "results.json"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name
    results = json.loads((whole / "results.json").read_text())
    assert results["before"] == json.loads((whole / "before.json").read_text())["results"]
    other = replace(WARM, eval=replace(WARM.eval, seed=9))
    resume(cut, console(), other, force=True)  # measures the team before its warm-up
    experiment.run(replace(other, name="bare"), tmp_path / "bare", console())
    both = [
        json.loads((f / "results.json").read_text())["before"] for f in (cut, tmp_path / "bare")
    ]
    assert both[0] == both[1]


def test_without_one_right_answer_the_run_goes_on(tmp_path: Path) -> None:
    _, learner = experiment.build(WARM)
    before = {name: p.clone() for p, name in learner.parameter_names().items()}
    game = make_game(GameConfig(num_agents=2, num_turns=3))
    asked = [Question(f"q{n}", "mug ?", "-1", "number") for n in range(3)]
    with RunLog.create(tmp_path / "run", WARM) as log:
        told = warmup.warm_up(WARM, learner, game, asked, log)
        assert warmup.warm_up(WARM, learner, game, asked, log) == ""  # done
    assert told.startswith(
        "warm-up: 0 of 18 messages on 3 questions are right, so there is nothing"
    )
    assert "the run goes on without a warm-up: try worked examples (--game.shots 1)" in told
    assert all(torch.equal(before[name], p) for p, name in learner.parameter_names().items())
    saved = checkpoint_folder.latest(tmp_path / "run" / "checkpoints")
    assert saved is not None
    assert checkpoint_folder.step_of(saved) == 0


def test_settings_of_a_warm_up_are_checked() -> None:
    for wrong in ({"steps": -1}, {"questions": 0}, {"batch_size": 0}, {"learning_rate": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            WarmupConfig(**wrong)  # type: ignore[arg-type]
