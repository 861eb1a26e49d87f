"""The best checkpoint: measured on the validation slice, kept, used, also by a run that goes on."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from small_runs import SMALL, maporl

import maporl_agents
from maporl_agents.commands.export import export
from maporl_agents.config import EvalConfig
from maporl_agents.measure.evaluate import Evaluation
from maporl_agents.records import checkpoint_folder
from maporl_agents.records.log_lines import log_lines
from maporl_agents.training import experiment, validation
from maporl_agents.training.progress import progress_bar
from maporl_agents.training.resume import resume
from maporl_agents.training.validation import validation_slice
from maporl_env.tasks import Task, load_task

THREE = replace(SMALL, steps=3)


def console() -> Console:
    return Console(file=io.StringIO(), width=100, record=True)


@pytest.fixture
def votes(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Votes that the validation slice is to give, in order; what is asked is really asked."""
    queue: list[float] = []
    real = validation.evaluate

    def scripted(*args: Any, **options: Any) -> Evaluation:
        measured = real(*args, **options)
        turns = (*measured.turns[:-1], replace(measured.turns[-1], vote=queue.pop(0)))
        return replace(measured, turns=turns)

    monkeypatch.setattr(validation, "evaluate", scripted)
    return queue


def steps_of(folder: Path) -> list[int]:
    return [row["step"] for row, _ in log_lines(folder / "validation.jsonl")]


def test_the_progress_bar_shows_the_newest_held_out_value() -> None:
    """In a terminal beside the step, and in each line where there is none."""
    terminal = Console(file=io.StringIO(), width=160, force_terminal=True, record=True)
    plain = Console(file=io.StringIO(), width=160, record=True)
    for screen in (terminal, plain):
        with progress_bar(THREE, screen, 0) as (on_step, on_score):
            on_step(1, {"score/turn_1": 0.25})
            on_score(1, 0.125)
            on_step(2, {"score/turn_1": 0.5})
            on_score(2, 0.75)
            on_step(3, {"score/turn_1": 0.5})
    lines = plain.export_text().splitlines()
    assert lines[0].endswith("score by turn 0.25")
    assert lines[1].endswith("score by turn 0.50  validation 0.12 (step 1)")
    assert lines[2].endswith("score by turn 0.50  validation 0.75 (step 2)")
    assert "validation 0.75 (step 2)" in terminal.export_text()


def same_weights(team: Any, saved: Path) -> bool:
    return all(torch.equal(now.cpu(), own) for now, own in team.read(saved))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([0.2, 0.9, 0.5], 2),
        *(
            pytest.param(scores, step, marks=pytest.mark.thorough)
            for scores, step in (([0.9, 0.9, 0.9], 3), ([0.9, 0.1, 0.2], 1), ([0, 0, 0], 3))
        ),
    ],
)
def test_the_best_is_kept_measured_and_loaded(
    tmp_path: Path, votes: list[float], scores: list[float], best: int
) -> None:
    votes += scores
    folder, screen = tmp_path / "run", console()
    results = experiment.run(THREE, folder, screen)
    saved = checkpoint_folder.latest(folder / "best")
    assert saved is not None
    assert checkpoint_folder.step_of(saved) == best
    assert not (saved / "optimizer.json").exists()
    assert steps_of(folder) == [1, 2, 3]
    said = " ".join(screen.export_text().split())
    assert f"the team of step {best} is used" in said
    _, team = experiment.load_team(folder)
    assert same_weights(team, saved)
    last = folder / "checkpoints" / "step-000003"
    _, newest = experiment.load_team(folder, "last")
    assert same_weights(newest, last)
    assert same_weights(team, last) == (best == 3)
    measured = experiment.measure(THREE, team, experiment.held_out(THREE))
    assert results["after"]["sampled"] == measured["sampled"].to_dict()


@pytest.mark.thorough
def test_settings_and_options_choose_the_last(tmp_path: Path, votes: list[float]) -> None:
    votes += [0.9, 0.1, 0.1]
    folder = tmp_path / "run"
    experiment.run(THREE, folder, console())
    best, last = folder / "best" / "step-000001", folder / "checkpoints" / "step-000003"
    assert same_weights(maporl_agents.load_team(folder), best)
    assert same_weights(maporl_agents.load_team(folder, "last"), last)
    for use, source in (("best", best), ("last", last), ("", best)):
        [agent, _] = export(folder, tmp_path / f"to-{use}", use=use)
        weights = (agent / "model.safetensors").read_bytes()
        assert weights == (source / "policies" / "agent_0" / "model.safetensors").read_bytes()
    assert maporl("eval", "--run", folder, "--checkpoint", "last", "--limit", 2) == 0
    assert maporl("eval", "--checkpoint", "last", "--limit", 2) == 2  # of no run
    with pytest.raises(ValueError, match=r"eval\.use would do nothing|use would do nothing"):
        maporl_agents.evaluate(model="tiny", use="last", questions=2)


@pytest.mark.thorough
def test_the_last_is_used_without_being_compared(tmp_path: Path) -> None:
    config = replace(THREE, eval=EvalConfig(questions=2, use="last"))
    experiment.run(config, tmp_path / "run", console())
    assert not (tmp_path / "run" / "best").exists()
    assert steps_of(tmp_path / "run") == []


@pytest.mark.thorough
def test_a_task_without_validation_questions_uses_the_last_and_says_so(tmp_path: Path) -> None:
    task = load_task("shopping")
    two = Task("two", {name: task.split(name)[:8] for name in ("train", "test")}, task.template)
    folder = tmp_path / "runs" / "run"
    screen = console()
    given = maporl_agents.training.make_game.make_game(THREE.game, two)
    assert validation_slice(THREE, given, None, [])[1].startswith(  # type: ignore[arg-type]
        "task 'two' has no validation questions, so the last checkpoint is used, not the best"
    )
    experiment.run(THREE, folder, screen, task=two)
    assert "has no validation questions" in " ".join(screen.export_text().split())
    assert not (folder / "best").exists()
    _, team = experiment.load_team(folder)
    assert same_weights(team, folder / "checkpoints" / "step-000003")


def test_no_question_that_is_shown_takes_part() -> None:
    game = experiment.make_game(SMALL.game)
    team = None
    config = replace(
        SMALL,
        game=replace(SMALL.game, long_questions="keep"),
        eval=EvalConfig(questions=40, split="validation", validation_questions=30),
    )
    held = experiment.held_out(config)
    questions, why = validation_slice(config, game, team, held)  # type: ignore[arg-type]
    assert len(questions) == 30
    assert not {q.id for q in questions} & {q.id for q in held}
    everything = game.questions("validation")
    questions, why = validation_slice(config, game, team, everything)  # type: ignore[arg-type]
    assert questions == []
    assert why.startswith("all validation questions of task 'shopping' are measured on")


@pytest.mark.thorough
@pytest.mark.parametrize("killed", ["before it is kept", "before it is noted", "after step 2"])
def test_a_run_that_goes_on_ends_with_the_same_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    experiment.run(THREE, whole, console())
    with monkeypatch.context() as patch:
        if killed == "before it is kept":
            patch.setattr(validation.Validation, "_score", dying_at(2))
        elif killed == "before it is noted":
            patch.setattr(experiment.RunLog, "beside", dying_at(2))
        else:
            patch.setattr(experiment.loop, "take_step", dying_at(3, experiment.loop.take_step))
        with pytest.raises(KeyboardInterrupt):
            experiment.run(THREE, cut, console())
    resume(cut, console())
    assert (cut / "validation.jsonl").read_bytes() == (whole / "validation.jsonl").read_bytes()
    assert (cut / "results.json").read_bytes() == (whole / "results.json").read_bytes()
    [kept] = (path.name for path in (cut / "best").glob("step-*"))
    assert (whole / "best" / kept).is_dir()


def dying_at(call: int, real: Any = None) -> Any:
    """Return what dies when it is called for the n-th time, and does its work before."""
    calls: list[int] = []
    kept = {"_score": validation.Validation._score, "beside": experiment.RunLog.beside}

    def act(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        if real is not None:
            return real(*args, **options)
        name = "_score" if len(args) == 2 and isinstance(args[1], Evaluation) else "beside"
        return kept[name](*args, **options)

    return act


@pytest.mark.thorough
def test_a_best_of_steps_that_are_made_anew_is_dropped(tmp_path: Path, votes: list[float]) -> None:
    """The newest checkpoint is damaged: the one before it goes on, its comparison with it."""
    votes += [0.1, 0.2, 0.9, 0.4]
    folder = tmp_path / "run"
    experiment.run(THREE, folder, console())
    (folder / "checkpoints" / "step-000003" / "optimizer.json").write_text("{}")
    with pytest.warns(UserWarning, match="Going on from"):
        resume(folder, console())
    assert steps_of(folder) == [1, 2, 3]
    assert votes == []
    assert [path.name for path in (folder / "best").glob("step-*")] == ["step-000003"]


@pytest.mark.thorough
def test_more_steps_go_on_with_the_comparison(tmp_path: Path, votes: list[float]) -> None:
    one = replace(SMALL, steps=1)  # with one checkpoint there is nothing to compare
    folder = tmp_path / "run"
    experiment.run(one, folder, console())
    assert steps_of(folder) == []
    votes += [0.7, 0.5, 0.6]
    resume(folder, console(), THREE, force=True)
    assert steps_of(folder) == [1, 2, 3]
    assert [path.name for path in (folder / "best").glob("step-*")] == ["step-000001"]


@pytest.mark.thorough
def test_the_measurement_before_training_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is on disk before training begins, also where a run is cut at once."""
    folder = tmp_path / "run"
    stages: list[Sequence[Any]] = []
    real = experiment.measure

    def counted(*args: Any) -> Any:
        stages.append(args)
        return real(*args)

    monkeypatch.setattr(experiment, "measure", counted)
    for step in (1, 2):
        with monkeypatch.context() as patch:
            patch.setattr(experiment.loop, "take_step", dying_at(step, experiment.loop.take_step))
            begin = partial(experiment.run, replace(SMALL, steps=2))
            with pytest.raises(KeyboardInterrupt):
                (begin if step == 1 else resume)(folder, console())
        assert len(stages) == 1
        kept = json.loads((folder / "before.json").read_text())["results"]
    results = resume(folder, console())
    assert len(stages) == 2
    assert results["before"] == kept
    other = replace(SMALL, steps=2, eval=EvalConfig(questions=2, seed=5))
    resume(folder, console(), other, force=True)
    assert len(stages) == 4  # another noise: both are measured anew


@pytest.mark.thorough
def test_greedy_answers_are_left_out_on_request(tmp_path: Path) -> None:
    config = replace(SMALL, steps=1, eval=EvalConfig(questions=2, greedy=False))
    results = experiment.run(config, tmp_path / "run", console())
    assert {stage: list(results[stage]) for stage in results} == {
        "before": ["sampled"],
        "after": ["sampled"],
    }
    assert maporl("report", tmp_path / "run") == 0


class TestCurve:
    """The held-out curve while training: how often, where it is shown, when it ends the run."""

    def test_is_measured_as_often_as_asked(self) -> None:
        config = replace(SMALL, steps=7, checkpoint_every=3, eval=EvalConfig(every=2))
        steps = range(1, 8)
        assert [s for s in steps if config.validates_after(s)] == [2, 4, 6, 7]
        assert [s for s in steps if config.saves_after(s)] == [2, 3, 4, 6, 7]
        plain = replace(config, eval=EvalConfig())
        assert [s for s in steps if plain.validates_after(s)] == [3, 6, 7]
        assert [s for s in steps if plain.saves_after(s)] == [3, 6, 7]

    def test_stands_in_the_rows_of_its_steps(self, tmp_path: Path) -> None:
        rows = {"metrics.jsonl": [{"step": s, "kl": 0.1} for s in (1, 2, 3)]}
        rows["validation.jsonl"] = [{"step": 2, "score": 0.4}]
        for name, lines in rows.items():
            (tmp_path / name).write_text("".join(json.dumps(one) + "\n" for one in lines))
        found = validation.curve_of(tmp_path)
        assert [row.get("validation") for row in found] == [None, 0.4, None]

    @pytest.mark.parametrize(
        ("scores", "patience", "over"),
        [
            ([0.1, 0.5, 0.4], 1, True),
            ([0.1, 0.5, 0.4], 2, False),
            ([0.5, 0.5], 1, True),  # as good is not better
            ([0.5, 0.4, 0.6], 1, False),
            ([0.9, 0.1, 0.1, 0.1], 0, False),
            ([], 1, False),
        ],
    )
    def test_ends_training_after_its_patience(
        self, tmp_path: Path, scores: list[float], patience: int, over: bool
    ) -> None:
        lines = (json.dumps({"step": i, "score": x}) for i, x in enumerate(scores, 1))
        (tmp_path / "validation.jsonl").write_text("".join(f"{line}\n" for line in lines))
        question = load_task("shopping").split("train")[:1]
        config = replace(SMALL, eval=EvalConfig(patience=patience))
        watched: Any = validation.Validation
        made = watched(config, None, None, SimpleNamespace(folder=tmp_path), question)
        assert made.exhausted is over

    @pytest.mark.thorough
    def test_stops_early_and_stays_stopped(self, tmp_path: Path, votes: list[float]) -> None:
        """The best is measured; a run that is resumed does not train on."""
        votes += [0.2, 0.9, 0.5, 0.4]
        folder, screen = tmp_path / "run", console()
        config = replace(SMALL, steps=9, eval=replace(SMALL.eval, patience=2))
        experiment.run(config, folder, screen)
        assert steps_of(folder) == [1, 2, 3, 4]
        said = " ".join(screen.export_text().split())
        assert "the team of step 2 is used" in said
        assert "validation 0.90 (step 2)" in said
        before = (folder / "metrics.jsonl").read_text()
        assert before.count("\n") == 4
        resume(folder, console())
        assert (folder / "metrics.jsonl").read_text() == before
        assert (folder / "curve.png").stat().st_size > 10_000
