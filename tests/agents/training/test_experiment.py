"""A whole run in the small: files, no overwriting, clear errors."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from small_runs import SIZES

from maporl_agents import cli
from maporl_agents.algorithms import magrpo
from maporl_agents.config import (
    CONFIGS,
    EvalConfig,
    GameConfig,
    MAGRPOConfig,
    RunConfig,
    TrainConfig,
)
from maporl_agents.records.run_log import read_metrics
from maporl_agents.training import experiment, loop
from maporl_agents.training.resume import resume
from maporl_agents.update.finite_checks import not_finite
from maporl_agents.webpage.page import asked_words
from maporl_agents.webpage.sources import load

SMALL = TrainConfig(**{**SIZES, "steps": 4, "seed": 3})


def console() -> Console:
    return Console(file=io.StringIO(), record=True, width=100)


def scheme_flag(scheme: str) -> str:
    groups = {"maporl": "ppo", "malt": r"malt\.imitation", "mlpo": "grpo"}
    return groups.get(scheme, scheme) + r"\.learning-rate"


class TestRun:
    @pytest.mark.thorough
    def test_a_run_leaves_everything_and_is_not_overwritten(self, tmp_path: Path) -> None:
        folder = tmp_path / "run"
        screen = console()
        results = experiment.run(replace(SMALL, steps=2), folder, screen)
        names = {path.name for path in folder.iterdir()}
        assert names >= {"config.json", "versions.json", "metrics.jsonl", "results.json"}
        assert names >= {"curve.png", "transcripts", "tensorboard", "checkpoints"}
        assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")
        assert [row["step"] for row in read_metrics(folder)] == [1, 2]
        assert json.loads((folder / "results.json").read_text()) == json.loads(json.dumps(results))
        assert len(results["after"]["greedy"]["turns"]) == 3
        shown = screen.export_text()
        assert "before training" in shown
        assert "w->r" in shown

        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        with pytest.raises(ValueError, match="overwrite"):
            experiment.run(SMALL, folder, console())
        assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

        config, team = experiment.load_team(folder)
        assert config == replace(SMALL, steps=2)
        assert team.policies == ("agent_0", "agent_1")

    @pytest.mark.thorough
    def test_the_untrained_team_is_asked_the_first_of_the_questions(self, tmp_path: Path) -> None:
        """Also by a run that is resumed; every number says how many questions it is of."""
        config = replace(SMALL, steps=1, eval=EvalConfig(questions=6, questions_before=2))
        screen = console()
        results = experiment.run(config, tmp_path / "run", screen)
        for _ in range(2):
            asked = {s: [r["num_questions"] for r in results[s].values()] for s in results}
            assert asked == {"before": [2, 2], "after": [6, 6]}
            before, after = (
                [json.loads(line)["question"]["id"] for line in text.splitlines()]
                for stage in ("before", "after")
                for text in [(tmp_path / "run" / "transcripts" / f"{stage}.jsonl").read_text()]
            )
            assert before == after[:2]
            results = resume(tmp_path / "run", screen)
        said = screen.export_text()
        assert "measuring the untrained team on 2 held-out questions" in said
        assert "held-out questions: 2 before, 6 after" in said
        [arm] = load(tmp_path / "run").study.arms
        assert [m.num_questions for m in arm.seeds[0].measurements] == [2, 2, 6, 6]
        assert asked_words(load(tmp_path / "run").study) == "2 before, 6 after training"

    @pytest.mark.parametrize("scheme", CONFIGS)
    def test_what_is_not_finite_names_the_flag_of_the_scheme(
        self, scheme: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def burst(*_: object, **__: object) -> None:
            raise not_finite("the loss", torch.tensor(float("nan")))

        monkeypatch.setattr(loop, "train", burst)
        with pytest.raises(FloatingPointError, match=rf"became nan.*--{scheme_flag(scheme)}"):
            experiment.train(CONFIGS[scheme](), None, [], None)  # type: ignore[arg-type]

    def test_trained_alone_sees_nobody_and_gives_as_many_answers(self) -> None:
        config = replace(SMALL, single_agent=True)
        game, debates = config.training_game()
        assert game.num_turns == 1
        assert game.num_turns * debates == SMALL.game.num_turns * SMALL.questions_per_step


class TestCommandLine:
    def run(self, capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            cli.main(list(argv))
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    @pytest.mark.parametrize(
        ("argv", "words"),
        [
            (["train", "--game.task", "nonsense"], "unknown task"),
            (["train", "--game.gamma", "2"], "gamma"),
            (["train", "--team.model", "missing-folder/model"], "missing-folder/model"),
            (["train", "--resume", "no-such-run"], "no-such-run"),
            (["eval", "--task", "gsm8k", "--data", "no-such.jsonl"], "no-such.jsonl"),
            (["play", "--index", "99999999"], "99999999"),
        ],
    )
    def test_a_mistake_is_one_sentence_and_exit_code_2(
        self,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        argv: list[str],
        words: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        code, _, err = self.run(capsys, *argv)
        assert code == 2
        assert words in err
        assert err.startswith("maporl: ")
        assert len(err.strip().splitlines()) == 1
        assert list(tmp_path.iterdir()) == [], "nothing half-written"

    def test_a_malformed_line_is_named_with_file_and_number(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        path = tmp_path / "mine.jsonl"
        good = '{"id": "1", "prompt": "1 + 1 ?", "answer": "2"}'
        path.write_text(f"{good}\n{{oops\n", encoding="utf-8")
        code, _, err = self.run(capsys, "eval", "--task", str(path))
        assert code == 2
        assert "mine.jsonl" in err
        assert "2" in err

    def test_play_prints_the_debate(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, _ = self.run(capsys, "play", "--index", "0", "--turns", "2")
        assert code == 0
        assert "Turn 2, agent_1" in out
        assert "reward of turn 1" in out

    def test_a_person_can_play(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lines = iter([r"\boxed{ 1 }", r"[bold]\boxed{ 2 }"])
        monkeypatch.setattr("builtins.input", lambda _prompt: next(lines))
        code, out, _ = self.run(capsys, "play", "--human", "--turns", "2", "--index", "3")
        assert code == 0
        assert r"[bold]\boxed{ 2 }" in out, "markup is shown, not obeyed"


def test_the_default_game_is_two_agents_and_three_turns() -> None:
    assert (GameConfig().task, GameConfig().num_agents, GameConfig().num_turns) == (
        "shopping",
        2,
        3,
    )


@pytest.mark.parametrize(("settings", "critics"), [(TrainConfig, True), (MAGRPOConfig, False)])
def test_only_schemes_with_critics_have_value_heads(
    settings: type[RunConfig], critics: bool, tmp_path: Path
) -> None:
    team, learner = experiment.build(settings())
    assert bool(team.critics) == critics
    folder = experiment.save_checkpoint(tmp_path, 0, learner)
    assert (folder / "critics.safetensors").exists() == critics


def test_a_checkpoint_with_critics_loads_into_a_scheme_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As earlier versions saved it; damage of its file is still found."""
    scheme = magrpo.SCHEME
    with monkeypatch.context() as patch:
        patch.setattr(magrpo, "SCHEME", replace(scheme, critics=True))
        _, learner = experiment.build(MAGRPOConfig())
    parameter = next(iter(learner.parameter_names()))
    parameter.data += 1
    folder = experiment.save_checkpoint(tmp_path, 1, learner)
    assert (folder / "critics.safetensors").exists()
    _, fresh = experiment.build(MAGRPOConfig())
    assert not fresh.team.critics
    assert experiment.load_checkpoint(tmp_path, fresh) == 1
    assert torch.equal(next(iter(fresh.parameter_names())), parameter)
