"""A resumed run equals an uninterrupted one, bit for bit."""

from __future__ import annotations

import io
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from small_runs import SIZES

from maporl_agents.config import TrainConfig
from maporl_agents.records.run_log import RunLog
from maporl_agents.training import experiment
from maporl_agents.training.resume import resume
from maporl_env.tasks import load_task

SMALL = TrainConfig(**{**SIZES, "steps": 4, "seed": 3})


def console() -> Console:
    return Console(file=io.StringIO(), record=True, width=100)


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def trained(config: TrainConfig, folder: Path, **events: int) -> experiment.PPOLearner:
    """Train in a folder; `interrupt=k` sends SIGINT during step k and resumes afterwards."""
    questions = load_task("shopping").split("train")
    interrupt = events.get("interrupt", 0)

    def on_step(step: int, _metrics: experiment.Metrics) -> None:
        if step == interrupt:
            os.kill(os.getpid(), signal.SIGINT)

    _, learner = experiment.build(config)
    with RunLog.create(folder, config) as log:
        if not interrupt:
            experiment.train(config, learner, questions, log)
            return learner
        with pytest.raises(experiment.Interrupted) as stop:
            experiment.train(config, learner, questions, log, on_step=on_step)
        assert stop.value.step == interrupt
    _, learner = experiment.build(config)
    with RunLog.resume(folder, config) as log:
        start = experiment.load_checkpoint(folder, learner)
        assert start == interrupt
        log.truncate_after(start)
        experiment.train(config, learner, questions, log, start=start)
    return learner


@pytest.mark.parametrize(
    "cut", [2, *(pytest.param(n, marks=pytest.mark.thorough) for n in (1, 3, 4))]
)
def test_resume_is_bitwise_the_uninterrupted_run(tmp_path: Path, cut: int) -> None:
    whole = trained(SMALL, tmp_path / "whole")
    resumed = trained(SMALL, tmp_path / "cut", interrupt=cut)
    for (parameter, name), (other, other_name) in zip(
        whole.parameter_names().items(), resumed.parameter_names().items(), strict=True
    ):
        assert name == other_name
        assert torch.equal(parameter, other), name
    for name in ("metrics.jsonl", "transcripts/train.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes(), (
            name
        )


@pytest.mark.thorough
@pytest.mark.parametrize(
    "step", [pytest.param(0, id="before training"), pytest.param(1, id="after it")]
)
def test_a_signal_while_measuring_ends_the_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Nothing is lost: resumed, it ends as a run that was never interrupted."""
    config, cut, whole = replace(SMALL, steps=1), tmp_path / "cut", tmp_path / "whole"
    handler, measure, calls = signal.getsignal(signal.SIGTERM), experiment.measure, []

    def disturbed(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == step + 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return measure(*args)

    monkeypatch.setattr(experiment, "measure", disturbed)
    with pytest.raises(experiment.Interrupted) as stop:
        experiment.run(config, cut, console())
    assert (stop.value.step, stop.value.signal_number) == (step, signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == handler
    resume(cut, console())
    experiment.run(config, whole, console())
    assert (cut / "results.json").read_bytes() == (whole / "results.json").read_bytes()


@pytest.mark.thorough
def test_a_finished_run_that_is_resumed_keeps_one_line_per_evaluated_debate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it was killed while the picture was drawn."""
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("maporl_agents.measure.learning_curve.draw_curve", killed)
        with pytest.raises(KeyboardInterrupt):
            experiment.run(replace(SMALL, steps=1), folder, console())
    names = [f"transcripts/{stage}.jsonl" for stage in ("before", "after")]
    once = [(folder / name).read_bytes() for name in names]
    assert [text.count(b"\n") for text in once] == [SMALL.eval.questions] * 2
    for _ in range(2):
        resume(folder, console())
        assert [(folder / name).read_bytes() for name in names] == once
