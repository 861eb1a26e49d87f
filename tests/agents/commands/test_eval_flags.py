"""``maporl eval`` takes the flags of training, several debates per question, and goes on."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from small_runs import maporl

from maporl_agents.commands.chosen_flags import ChosenFlags
from maporl_agents.commands.chosen_team import game_and_sampling
from maporl_agents.commands.eval_flags import BASIC, SHORT, eval_command
from maporl_agents.config import GameConfig, Sampling, TeamConfig
from maporl_agents.measure import evaluate

SMALL = ("--turns", 1, "--max-new-tokens", 4, "--limit", 5, "--batch", 2)


def settings_of(*given: str) -> tuple[GameConfig, TeamConfig, Sampling]:
    command = eval_command(given)
    assert command is not None
    assert command.settings is not None
    game, sampling = game_and_sampling(command)
    return game, command.settings.team, sampling


def test_every_flag_of_game_team_and_sampling_is_taken(capsys) -> None:
    with pytest.raises(SystemExit):
        eval_command(["--help-all"])
    shown = capsys.readouterr().out
    for group, cls in (("game", GameConfig), ("team", TeamConfig), ("sampling", Sampling)):
        for field in fields(cls):
            assert f"--{group}.{field.name.replace('_', '-')}" in shown


def test_flags_of_training_change_what_is_measured() -> None:
    game, team, sampling = settings_of(
        *("--game.history", "last", "--game.num-agents", "3", "--sampling.top-p", "0.9"),
        *("--team.model", "tiny-sharing", "--game.task", "sharing", "--temperature", "0"),
        *("--team.template", "enable_thinking=false"),
    )
    assert (game.history, game.num_agents, game.task) == ("last", 3, "sharing")
    assert (sampling.top_p, sampling.temperature, sampling.model_temperature) == (0.9, 0, False)
    assert (team.model, team.template) == (("tiny-sharing",), ("enable_thinking=false",))
    assert team.tuning == "none"


def test_the_limit_of_a_message_suits_the_task() -> None:
    assert settings_of("--game.task", "gsm8k", "--model", "x")[2].max_new_tokens == 300
    assert settings_of("--task", "coins", "--model", "x")[2].max_new_tokens == 32
    long = settings_of("--task", "gsm8k", "--model", "x", "--sampling.max-new-tokens", "32")
    assert long[2].max_new_tokens == 32


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (("--turns", "2", "--game.num-turns", "3"), "--turns and --game.num-turns are one setting"),
        (("--game.gamma", "0.5"), r"game\.gamma would do nothing here"),
        (("--team.lora-rank", "4"), r"team\.lora_rank would do nothing here"),
        (("--turns", "1", "--game.history", "last"), r"game\.history='last' would do nothing here"),
        (("--samples", "0"), "--samples is the number of"),
        (("--overwrite",), "--overwrite belongs to --out"),
        (("--best-by", "nobody"), "unknown verifier 'nobody'"),
        (("--game.histroy", "last"), "unknown option"),
        (("--run", "nowhere"), "nowhere is no run"),
    ],
)
def test_mistakes_are_one_sentence(flags: tuple[str, ...], match: str, capsys) -> None:
    assert maporl("eval", *flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("maporl: ")
    assert error.count("\n") == 1
    assert re.search(match, error, re.IGNORECASE), error


def test_short_flags_stand_for_flags_that_there_are() -> None:
    names = {field.name for field in fields(ChosenFlags)}
    groups: dict[str, Any] = {"game": GameConfig, "team": TeamConfig, "sampling": Sampling}
    for long in SHORT.values():
        group, _, name = long.replace("-", "_").partition(".")
        assert name in {field.name for field in fields(groups[group])}
    own = {"temperature", "long-questions"}  # which `maporl play` has of its own
    assert {short.replace("-", "_") for short in SHORT.keys() - own} <= names


def test_the_help_teaches(capsys) -> None:
    assert maporl("eval", "--help") == 0
    shown = capsys.readouterr().out
    assert "maporl eval --run runs/x --samples 8 --best-by learned:FOLDER" in shown
    assert all(f"\n  --{name.replace('_', '-')}\n" in shown for name in BASIC)
    assert shown.count("\n  --") == len(BASIC) < 15


@pytest.mark.thorough
@pytest.mark.usefixtures("work_folder")
def test_it_goes_on_where_it_was_killed(monkeypatch, capsys) -> None:
    """The files of a run that was cut, and cut in the middle of a line, equal those of a whole."""
    flags = (*SMALL, "--samples", 2, "--best-by", "noisy_key:0.8")
    assert maporl("eval", *flags, "--out", "whole.json") == 0
    capsys.readouterr()
    play, calls = evaluate.play, []

    def killed(*args: Any, **options: Any) -> Any:
        calls.append(options["first_debate"])
        if len(calls) == 5:
            raise KeyboardInterrupt
        return play(*args, **options)

    monkeypatch.setattr(evaluate, "play", killed)
    assert maporl("eval", *flags, "--out", "cut.json") == 130
    assert json.loads(Path("cut.json").read_text())["finished"] is False
    assert len(Path("cut.jsonl").read_text().splitlines()) == 7
    with Path("cut.jsonl").open("a") as file:
        file.write('{"sample": 1, "tok')
    assert maporl("eval", *flags, "--out", "cut.json") == 0
    assert calls == [0, 2, 4, 0, 2, 2, 4, 0, 2, 4]
    assert "sampled: 7 of 10 debates are there already" in capsys.readouterr().out
    for name in ("{}.json", "{}.jsonl", "{}.greedy.jsonl"):
        cut, whole = (Path(name.format(one)).read_bytes() for one in ("cut", "whole"))
        assert cut == whole
    assert maporl("eval", *flags, "--out", "cut.json") == 0  # nothing is left to play
    assert len(calls) == 10
    assert maporl("eval", *flags, "--out", "cut.json", "--sampling.top-k", 5) == 2
    assert "differ in sampling.top_k" in capsys.readouterr().err


@pytest.mark.thorough
@pytest.mark.usefixtures("work_folder")
def test_several_debates_per_question(capsys) -> None:
    flags = (*SMALL, "--samples", 3, "--best-by", "key", "--no-greedy", "--out", "x.json")
    assert maporl("eval", *flags) == 0
    shown = capsys.readouterr().out
    assert "3 sampled debates of each question" in shown
    assert "best of k by key" in " ".join(shown.split())
    found = json.loads(Path("x.json").read_text())
    assert [row["k"] for row in found["repeated"]] == [1, 2, 3]
    first, *_, last = found["repeated"]
    assert first["pass"]["mean"] <= last["pass"]["mean"] <= last["best"]["mean"]
    assert "greedy" not in found
    lines = [json.loads(line) for line in Path("x.jsonl").read_text().splitlines()]
    assert [line["sample"] for line in lines] == [0] * 5 + [1] * 5 + [2] * 5
    texts = [[line["messages"][0]["text"] for line in lines[i : i + 5]] for i in (0, 5, 10)]
    assert texts[0] != texts[1] != texts[2]  # each sample has noise of its own
    assert maporl("eval", *SMALL, "--no-greedy", "--out", "one.json") == 0
    alone = [json.loads(line) for line in Path("one.jsonl").read_text().splitlines()]
    assert [line["messages"] for line in alone] == [line["messages"] for line in lines[:5]]
