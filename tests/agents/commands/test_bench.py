"""Language models on the environment benchmark: who plays what, in the usual debates."""

from __future__ import annotations

import io
import json
import operator
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from maporl_agents.bridges import bench_players
from maporl_agents.bridges.bench_players import (
    TeamPlayers,
    TeamSpeaker,
    is_run,
    model_players,
    players_of,
)
from maporl_agents.cli import main
from maporl_agents.commands import bench
from maporl_agents.config import EvalConfig, MALTConfig, Sampling, TeamConfig, TrainConfig
from maporl_agents.models.loading import make_team
from maporl_agents.play.rollout import play
from maporl_agents.records.run_log import RunLog
from maporl_agents.seeding import seed_of
from maporl_agents.training import experiment
from maporl_env.batched import BatchedDebate
from maporl_env.benchmark import CASES, Case, read_report, score_case, table_row
from maporl_env.benchmark.scoring import BATCH

ROOT = Path(__file__).resolve().parents[3]
BY_NAME = {case.name: case for case in CASES}
SMALL = TrainConfig(
    steps=1, questions_per_step=2, checkpoint_every=1, eval=EvalConfig(questions=2), seed=3
)


def small(name: str, questions: int = 6) -> Case:
    return replace(BY_NAME[name], num_questions=questions)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["bench", *map(str, arguments)])
    return int(stop.value.code or 0)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_team_speaks_as_it_does_elsewhere(temperature: float) -> None:
    """The same transcripts and tokens as `rollout.play`, which training and evaluation use."""
    case = small("shopping/debate/2x3")
    questions, sampling = case.questions(), Sampling(temperature=temperature)
    team = make_team(TeamConfig(tuning="none"), num_agents=2, num_turns=3, seed=0)
    rollouts = play(team, BatchedDebate(case.config(), 6), questions, sampling, seed=7)
    batch, speaker = BatchedDebate(case.config(), 6), TeamSpeaker(team, sampling, 7)
    batch.reset(questions)
    while prompts := batch.prompts():
        batch.step(speaker(prompts))
    texts = [[m.text for m in transcript.messages] for transcript in batch.transcripts]
    assert texts == [[m.text for m in rollout.transcript.messages] for rollout in rollouts]
    assert speaker.tokens == sum(len(c.ids) for rollout in rollouts for c in rollout.completions)


LONG = ("sharing/debate/3x4", "sharing/debate/2x3", "coins/debate/2x3")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.thorough] * (n in LONG)) for n in BY_NAME]
)
def test_the_built_in_models_play_every_case(name: str) -> None:
    """Each knows the words of its case: few messages are without an answer."""
    result = score_case(players_of("tiny"), small(name))
    assert result.tokens is not None
    assert 1 < result.tokens <= 32
    assert len(result.turns) == BY_NAME[name].num_turns
    assert all(turn.invalid < 0.5 for turn in result.turns)


def test_other_built_in_models_refuse_what_they_cannot_read() -> None:
    players = players_of("tiny-sharing-qwen2")
    refused = {case.name for case in CASES if players.refusal(case)}
    assert refused == {case.name for case in CASES if case.task in ("shopping", "receipts")}
    assert "knows only the words of sharing, coins" in players.refusal(CASES[0])


def test_a_model_from_a_folder_plays_every_case(checkpoint: Any) -> None:
    folder = checkpoint("llama")
    players = players_of(str(folder), label="mine", max_new_tokens=4)
    assert not any(players.refusal(case) for case in CASES)
    assert players.name == "mine"
    assert players.about == {
        "kind": "model",
        "models": [str(folder)],
        "fingerprint": players.about["fingerprint"],
        "temperature": 1.0,
        "max_new_tokens": 4,
    }
    assert score_case(players, small("coins/debate/5x2", 3)).tokens <= 4  # type: ignore[operator]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "maporl-shopping"
    experiment.run(SMALL, folder, Console(file=io.StringIO()))
    return folder


def test_a_run_plays_what_it_was_trained_for(run_folder: Path) -> None:
    players = players_of(str(run_folder), temperature=0.0)
    played = [case.name for case in CASES if not players.refusal(case)]
    assert played == ["shopping/debate/2x3"]
    assert players.refusal(BY_NAME["shopping/debate/3x3"]) == "the team has policies for 2 agents"
    assert "trained on shopping in protocol debate" in players.refusal(BY_NAME["coins/debate/2x3"])
    about = players.about
    assert (about["scheme"], about["step"], about["temperature"]) == ("maporl", 1, 0.0)
    trained = experiment.load_team(run_folder)[1]
    case = small("shopping/debate/2x3")
    sampling = Sampling(temperature=0.0)
    rollouts = play(trained, BatchedDebate(case.config(), 6), case.questions(), sampling, seed=0)
    votes = [rollout.transcript.of_turn(2) for rollout in rollouts]
    result = score_case(players, case)
    assert result.turns[2].score is not None
    assert result.turns[2].score.mean == pytest.approx(
        sum(m.score or 0 for turn in votes for m in turn) / 12
    )


@pytest.mark.parametrize("transfer", [False, True])
def test_a_run_that_was_trained_on_the_questions_of_the_benchmark_does_not_play(
    run_folder: Path, tmp_path: Path, transfer: bool
) -> None:
    folder = tmp_path / "seen"
    shutil.copytree(run_folder, folder)
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings["game"]["train_split"] = "test"
    (folder / "config.json").write_text(json.dumps(settings))
    players = players_of(str(folder), transfer=transfer)
    refusal = players.refusal(BY_NAME["shopping/debate/2x3"])
    assert refusal == "trained on the split 'test' of shopping, which the benchmark asks"


def test_what_is_nested_too_deeply_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[" * 100_000)
    assert not is_run(tmp_path)


def test_transfer_is_asked_for(run_folder: Path) -> None:
    players = players_of(str(run_folder), transfer=True)
    played = [case.name for case in CASES if not players.refusal(case)]
    assert played == [case.name for case in CASES if case.num_agents <= 2]
    assert players.about["transfer"] is True


def test_a_run_of_a_pipeline_plays_the_pipeline(tmp_path: Path) -> None:
    config = MALTConfig(eval=EvalConfig(questions=2))
    assert config.game.personas == BY_NAME["shopping/pipeline/3x1"].config().personas
    _, learner = experiment.build(config)
    with RunLog.create(tmp_path / "malt", config):
        experiment.save_checkpoint(tmp_path / "malt", 0, learner)
    players = players_of(str(tmp_path / "malt"))
    assert [case.name for case in CASES if not players.refusal(case)] == ["shopping/pipeline/3x1"]
    assert players.about["scheme"] == "malt"
    assert score_case(players, small("shopping/pipeline/3x1")).num_questions == 6


def untrained(folder: Path, *, nudge: float = 0.0, **settings: Any) -> str:
    """A run's folder with a checkpoint at step 0, its weights moved by `nudge`."""
    config = replace(SMALL, **settings)
    team, learner = experiment.build(config)
    with torch.no_grad():
        next(p for p in team.bases[0].model.parameters() if p.requires_grad).add_(nudge)
    with RunLog.create(folder, config):
        experiment.save_checkpoint(folder, 0, learner)
    return str(folder)


@pytest.mark.thorough
def test_runs_of_equal_step_and_seed_are_told_apart(tmp_path: Path) -> None:
    """By what the checkpoint holds and by the settings; the same run is the same anywhere."""
    first = players_of(untrained(tmp_path / "first")).about
    copied = players_of(str(shutil.copytree(tmp_path / "first", tmp_path / "copied"))).about
    retrained = players_of(untrained(tmp_path / "second", nudge=0.001)).about
    changed = players_of(untrained(tmp_path / "third", questions_per_step=3)).about
    assert copied == first
    for other in (retrained, changed):
        assert [name for name in first if first[name] != other[name]] == ["fingerprint"]


def test_models_are_told_apart_by_their_files(checkpoint: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint("llama"), tmp_path / "model"))
    before = players_of(str(folder)).about["fingerprint"]
    assert players_of(str(folder)).about["fingerprint"] == before
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert players_of(str(folder)).about["fingerprint"] != before
    assert "fingerprint" not in players_of("owner/model").about


def test_the_reference_file_is_of_the_built_in_weights() -> None:
    """Whoever changes them scores them again."""
    kept = read_report(ROOT / "docs" / "benchmark" / "tiny.json")
    assert kept.about == players_of("tiny").about


def test_the_reference_results_come_out_again() -> None:
    """The same noise, question by question.

    Another processor may round a logit the other way; other noise agrees on some 70 of 100.
    """
    kept = read_report(ROOT / "docs" / "benchmark" / "tiny.json").cases["shopping/pipeline/3x1"]
    again = score_case(players_of("tiny"), small("shopping/pipeline/3x1", BATCH))
    same = sum(map(operator.eq, again.by_question, kept.by_question[:BATCH]))
    assert same >= 0.95 * BATCH
    assert 5 < sum(again.by_question) < 50  # neither all wrong nor all right


def test_runs_and_models_are_told_apart(run_folder: Path, checkpoint: Any, tmp_path: Path) -> None:
    assert is_run(run_folder)
    assert not is_run(checkpoint("llama"))
    assert not is_run(tmp_path)
    (tmp_path / "config.json").write_text("[")
    assert not is_run(tmp_path)


def test_scripted_agents_and_functions_are_found_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bench_voice.py").write_text("def say(prompts): return ['?' for _ in prompts]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert players_of("bench_voice:say", label="quiet").name == "quiet"
    assert players_of("oracle").name == "oracle"


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("majorty", {}, r"no agents 'majorty' \(did you mean 'majority'\?\)"),
        ("keep", {"temperature": 0.5}, "'keep' is no model: leave out the options"),
        ("json:dumps", {"max_new_tokens": 4}, "'json:dumps' is no model"),
        ("tiny", {"transfer": True}, "'tiny' is no run"),
        ("tiny", {"temperature": -1.0}, "temperature must be a number >= 0"),
        ("tiny", {"max_new_tokens": -1}, "max_new_tokens must be at least 1"),
    ],
)
def test_mistakes_are_named(name: str, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        players_of(name, **options)


def test_one_team_is_loaded_for_all_its_cases() -> None:
    players = model_players("tiny-sharing", "x", {})
    assert isinstance(players, TeamPlayers)
    first, second = (
        players.team_of(BY_NAME[f"coins/{kind}"]) for kind in ("debate/2x3", "debate/5x2")
    )
    assert first is second
    assert seed_of(0, "bench", "a") != seed_of(0, "bench", "b")


# --- The command --------------------------------------------------------------------


def test_the_command_scores_resumes_and_tabulates(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, best = tmp_path / "mine.json", tmp_path / "best.json"
    case = "coins/self_correction/1x3"
    assert run("env", "--agents", "best", "--cases", case, "--out", best) == 0
    printed = capsys.readouterr().out
    assert table_row(read_report(best)) in printed
    assert f"{case}: 500 questions done" in printed  # no terminal: a line instead of a bar
    assert run("env", "--agents", "oracle", "--cases", case, "--out", mine, "--name", "all") == 0
    before = mine.read_bytes()
    monkeypatch.setattr(bench_players, "named_agents", lambda *_: _ghost(read_report(mine)))
    assert run("env", "--agents", "oracle", "--cases", case, "--out", mine, "--name", "all") == 0
    assert mine.read_bytes() == before  # nothing was played again
    capsys.readouterr()
    page = tmp_path / "page.md"
    page.write_text("<!-- benchmark:begin -->\n<!-- benchmark:end -->\n")
    assert run("table", best, mine, "--docs", page) == 0
    assert table_row(read_report(mine)) in page.read_text(encoding="utf-8")
    assert run("table", mine, "--against", best, "--docs", page) == 2
    assert "--docs takes the tables of results, not differences" in capsys.readouterr().err
    assert run("table", mine, "--against", best) == 0
    lead = 1 - read_report(best).cases[case].turns[-1].team.mean
    assert f"+{lead:.3f}".replace("0.", ".") in capsys.readouterr().out.splitlines()[-1]


def _ghost(report: Any) -> Any:
    """Players of the same name and description that cannot speak."""

    class Ghost:
        name, about = report.name, report.about

        def refusal(self, case: Case) -> str:
            return ""

    return Ghost()


def test_the_command_lists_without_loading_anything(capsys: Any) -> None:
    assert run("env", "--list") == 0
    out = capsys.readouterr().out
    assert all(case.name in out for case in CASES)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["env"], "who is to play? Give --agents"),
        (["env", "--agents", "nobody"], "no agents 'nobody'"),
        (["env", "--agents", "keep", "--cases", "x"], "no case is called 'x'"),
        (["table", "no-such.json"], "no-such.json"),
        (["table", "a.json", "--against", "b.json", "--docs", "c.md"], "leave one out"),
    ],
)
def test_mistakes_end_with_one_sentence(arguments: list[str], match: str, capsys: Any) -> None:
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert match in error
    assert error.startswith("maporl: ")
    assert error.count("\n") == 1


def test_who_can_play_nothing_leaves_no_file(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "qwen2.json"
    arguments = ("--agents", "tiny-sharing-qwen2", "--cases", "shopping/*", "--out", out)
    assert run("env", *arguments) == 2
    assert "can play none of the cases: tiny-sharing-qwen2 knows only" in capsys.readouterr().err
    assert not out.exists()


def test_the_table_of_cases_cuts_no_name_short() -> None:
    report = read_report(ROOT / "docs" / "benchmark" / "keep.json")
    console = Console(width=90, file=io.StringIO(), record=True)
    bench.show(report, console)
    shown = console.export_text()
    assert [name for name in report.cases if f"│ {name} " not in shown] == []


def test_ones_own_verifier_fills_the_column_of_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It reads what the suite scores, the joined parts; accuracy stays the key's."""
    (tmp_path / "own.py").write_text(
        "def joined(questions, texts):\n    return [0.25 * (t.count('boxed') > 1) for t in texts]\n"
    )
    monkeypatch.chdir(tmp_path)
    case = ["env", "--agents", "majority", "--cases", "receipts/*", "--out", "mine.json"]
    assert run(*case, "--verifier", "own.py:joined") == 0
    result = read_report(tmp_path / "mine.json").cases["receipts/joint/2x1"]
    assert result.turns[0].score is not None
    assert result.turns[0].score.mean == pytest.approx(0.25)
    assert result.turns[0].team.mean != pytest.approx(0.25)
    capsys.readouterr()
    assert run(*case) == 2
    assert "own.py:joined" in capsys.readouterr().err
    assert run(*case, "--overwrite", "--verifier", "own.py:nothing") == 2
    assert "no attribute 'nothing'" in capsys.readouterr().err
