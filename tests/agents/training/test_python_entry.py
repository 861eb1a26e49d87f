"""The Python entry: objects of the user's, in few lines, and a run like any other afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import maporl_agents
from maporl_agents import tiny
from maporl_agents.algorithms.maporl import SCHEME
from maporl_agents.cli import main
from maporl_agents.commands.train import settings_from
from maporl_agents.config import GameConfig, PPOConfig, TeamConfig, TrainConfig
from maporl_agents.recipes import recipe
from maporl_agents.records.run_log import RunLog, SettingsDiffer
from maporl_agents.terminal import console
from maporl_agents.training import experiment, python_entry
from maporl_agents.training.resume import resume
from maporl_env import user_functions
from maporl_env.types import Question

SMALL = {
    "steps": 1,
    "questions_per_step": 2,
    "num_turns": 2,
    "max_new_tokens": 5,
    "minibatches": 1,
    "eval.questions": 2,
}
WORDS = r"Tom buys 2 ink and 1 bag . how much ? in \boxed{ }"
QUESTIONS = [Question(f"mine/{i}", WORDS, "31") for i in range(3)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiment, "share_cores", lambda num_bases: None)
    return tmp_path


def loaded():
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    folder = str(tiny.checkpoint(0))
    model = AutoModelForCausalLM.from_pretrained(folder)
    return model, PreTrainedTokenizerFast.from_pretrained(folder)


def test_a_run_of_objects(here: Path, capsys, monkeypatch) -> None:
    """Questions, a loaded model and a closure; afterwards a run that the command line plays."""
    seen = []

    def reward(questions, responses):
        seen.extend(questions)
        return [0.75 for _ in responses]

    model = loaded()
    before = {name: p.detach().clone() for name, p in model[0].named_parameters()}
    run = maporl_agents.train(
        task=QUESTIONS, model=model, verifier=reward, name="mine", quiet=True, **SMALL
    )
    assert capsys.readouterr().out == ""
    assert set(seen) <= set(QUESTIONS)
    assert [row["score/turn_1"] for row in run.metrics] == [0.75]
    assert run.results["after"]["sampled"]["num_questions"] == 2
    assert run.team.num_agents == 2
    assert all((p == before[name]).all() for name, p in model[0].named_parameters())
    assert run.folder == Path("runs/mine")
    assert (here / "runs/mine/task.jsonl").read_text().count("\n") == 3

    results = maporl_agents.evaluate(run, verifier="key", questions=1)
    assert results["greedy"].num_questions == 1
    more = maporl_agents.train(
        task=QUESTIONS,
        model=model,
        verifier=reward,
        name="mine",
        quiet=True,
        resume=True,
        **SMALL,
    )
    assert more.results["after"] == run.results["after"]

    # In another process: the questions are there, the closure and the model are not.
    monkeypatch.setattr(user_functions, "_GIVEN", {})
    assert experiment.held_out(run.config)[0] in QUESTIONS
    with pytest.raises(ValueError, match=r"'python:\w+' was an object of the Python"):
        resume(run.folder, console())
    with pytest.raises(ValueError, match=r"'python:model_.* was an object of the Python program"):
        maporl_agents.load_team(run.folder)


@dataclass(frozen=True)
class OwnConfig(TrainConfig):
    name: str = "own"
    ppo: PPOConfig = field(default_factory=lambda: PPOConfig(minibatches=1))
    loud: bool = False


OWN = replace(SCHEME, settings=OwnConfig)
TAKEN = SCHEME


class Half:
    settings = OwnConfig


def test_a_scheme_of_ones_own(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "my_scheme.py").write_text(
        "from dataclasses import dataclass, replace\n"
        "from maporl_agents.config import TrainConfig\n"
        "from maporl_agents.algorithms.maporl import SCHEME\n"
        "@dataclass(frozen=True)\n"
        "class Settings(TrainConfig):\n"
        "    name: str = 'own'\n"
        "    loud: bool = False\n"
        "OWN = replace(SCHEME, settings=Settings)\n"
    )
    flags = [
        *("--steps", "1", "--questions-per-step", "2", "--game.num-turns", "2"),
        *("--sampling.max-new-tokens", "5", "--ppo.minibatches", "1", "--eval.questions", "2"),
    ]
    with pytest.raises(SystemExit) as stop:
        main(["train", "--scheme", "my_scheme.py:OWN", "--loud", *flags])
    assert stop.value.code == 0, capsys.readouterr()
    saved = json.loads((here / "runs/own/config.json").read_text())
    assert (saved["scheme"], saved["loud"]) == (f"{here}/my_scheme.py:OWN", True)
    config = experiment.read_config(here / "runs/own")
    assert type(config).__name__ == "Settings"
    RunLog.resume(here / "runs/own", config).close()  # its settings are those that it has
    assert recipe("runs/own/config.json") == config
    with pytest.raises(SystemExit) as stop:
        main(["train", "--resume", "runs/own", "--scheme", "malt"])
    assert stop.value.code == 2
    assert "contradicts the settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("scheme", "match"),
    [
        (TAKEN, "must be a dataclass of its own"),
        (Half, "has no check, learner, train_step"),
        ("malt2", "unknown scheme 'malt2'"),
        ("nowhere.py:OWN", "scheme .*there is no file"),
    ],
)
def test_a_scheme_that_cannot_be_had(scheme: object, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        maporl_agents.train(scheme=scheme, quiet=True)


def test_what_is_no_model() -> None:
    with pytest.raises(ValueError, match=r"a model is a name, a folder, or a pair .* not tuple"):
        maporl_agents.train(model=(object(), object()), quiet=True, **SMALL)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"model": []}, r"^model=\[\] is empty: give a name, a folder, or a pair"),
        ({"model": 7}, r"^model=7 is an int: give a name, a folder"),
        ({"verifier": 7}, r"^verifier=7 is an int: give a name, a function .* or an object with"),
    ],
)
def test_what_is_no_part_of_a_run(given: dict[str, Any], match: str) -> None:
    for entry in (maporl_agents.train, maporl_agents.evaluate):
        with pytest.raises(ValueError, match=match):
            entry(**given)


def test_a_name_that_is_taken_is_told_in_keywords(here: Path) -> None:
    (here / "runs/b").mkdir(parents=True)
    (here / "runs/b/config.json").touch()
    words = r"b is not empty: .*\(resume=True\), .*\(overwrite=True\), or choose another name\."
    with pytest.raises(ValueError, match=words):
        maporl_agents.train(name="b", quiet=True, **SMALL)


@pytest.mark.thorough
def test_other_settings_of_a_run_are_told_in_keywords_and_can_be_insisted_on(here: Path) -> None:
    maporl_agents.train(name="c", quiet=True, **SMALL)
    longer = {**SMALL, "steps": 2}
    with pytest.raises(SettingsDiffer) as refused:
        maporl_agents.train(name="c", quiet=True, resume=True, **longer)
    words = str(refused.value)
    assert "+ steps: 2" in words
    assert "go on with the new ones (force=True), or start another run (name)" in words
    assert "--" not in words
    run = maporl_agents.train(name="c", quiet=True, resume=True, force=True, **longer)
    assert [row["step"] for row in run.metrics] == [1, 2]
    with pytest.raises(ValueError, match="at least as many steps, or start another run"):
        maporl_agents.train(name="c", quiet=True, resume=True, force=True, **SMALL)
    with pytest.raises(ValueError, match="force belongs to resume"):
        maporl_agents.train(name="d", quiet=True, force=True, **SMALL)
    with pytest.raises(ValueError, match="overwrite begins it anew: choose one"):
        maporl_agents.train(name="c", quiet=True, resume=True, overwrite=True, **SMALL)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--overwrite"], "--overwrite begins it anew: choose one"),
        (["--runs", "elsewhere"], "--resume names the folder of the run: leave out --runs"),
    ],
)
def test_flags_that_a_resumed_run_would_ignore_are_refused(
    here: Path, capsys: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    RunLog.create(here / "runs/r", TrainConfig(name="r")).close()
    with pytest.raises(SystemExit) as stop:
        main(["train", "--resume", "runs/r", *flags])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


def test_a_recipe_keeps_file_words_and_split_for_its_own_task_alone(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "mine.yaml").write_text(
        "game: {task: gsm8k, data: old.jsonl, template: w.json, train_split: rl}"
    )
    seen: list[GameConfig] = []
    monkeypatch.setattr(experiment, "run", lambda config, *_, **__: seen.append(config.game))
    for given in (
        {"task": "gsm8k"},
        {"task": "shopping"},
        {"task": "anli", "data": "a.jsonl", "train_split": "train"},
        {},
        {"task": QUESTIONS},
    ):
        maporl_agents.train(recipe="mine.yaml", quiet=True, **given)
    old = ("old.jsonl", "w.json", "rl")
    assert [(game.data, game.template, game.train_split) for game in seen] == [
        old,
        ("", "", ""),
        ("a.jsonl", "", "train"),
        old,
        ("", "", ""),
    ]
    for flags, game in (([], old), (["--game.task", "shopping"], ("", "", ""))):
        config, _ = settings_from(["--recipe", "mine.yaml", *flags])
        assert (config.game.data, config.game.template, config.game.train_split) == game


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"steps": 3}, "steps"),
        ({"learning_rate": 0.1}, "warmup.learning_rate"),
        ({"gamma": 0.5}, "game.gamma"),
        ({"too_short": 0.5}, "game.penalties.too_short"),
        ({"train_split": "rl"}, "game.train_split"),
        ({"questions_before": 50}, "eval.questions_before"),
        ({"sharing": "one"}, "team.sharing"),
        ({"lora_rank": 2}, "team.lora_rank"),
        ({"eval.seed": 1, "checkpoint_every": 3}, "checkpoint_every"),
    ],
)
def test_evaluate_refuses_what_is_about_training(given: dict[str, Any], name: str) -> None:
    words = f"^{name} would do nothing here: evaluate trains"
    with pytest.raises(ValueError, match=words):
        maporl_agents.evaluate(**given)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"history": "last", "num_turns": 2}, "game.history"),
        ({"reward_feedback": True, "num_turns": 1}, "game.reward_feedback"),
        ({"agent_max_new_tokens": (5, 5, 5)}, "sampling.agent_max_new_tokens"),
        (
            {"double_quant": True, "quantization": "nf4", "device": "cpu", "device_map": "auto"},
            "team.device",
        ),
    ],
)
def test_evaluate_refuses_what_does_nothing_in_its_game(given: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}=.* would do nothing here: "):
        maporl_agents.evaluate(**given)


def test_evaluate_loads_models_as_it_is_told(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[TeamConfig] = []

    def made(config: TeamConfig, **_: Any) -> None:
        seen.append(config)
        raise KeyError

    monkeypatch.setattr(python_entry, "make_team", made)
    loading = {"dtype": "bfloat16", "attention": "eager", "quantization": "nf4"}
    with pytest.raises(KeyError):
        maporl_agents.evaluate(model="tiny", device="cpu", **loading)
    assert seen == [TeamConfig(tuning="none", device="cpu", **loading)]
    maporl_agents.train(name="e", quiet=True, **SMALL)
    with pytest.raises(ValueError, match=r"team\.dtype would do nothing.* and the run has its mod"):
        maporl_agents.evaluate("runs/e", dtype="bfloat16")


def test_a_model_that_is_handed_over_keeps_its_attention(here: Path) -> None:
    with pytest.raises(ValueError, match="computes attention as it did: name its folder"):
        maporl_agents.evaluate(model=loaded(), attention="eager", questions=1)


def test_evaluate_finds_what_is_too_long_before_the_first_debate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(experiment, "measure", lambda config, team, asked, made: list(asked))
    long = Question("mine/long", "ink " * 600 + WORDS, "31")
    asked = [*QUESTIONS, long]
    few = {"questions": 4, "num_turns": 1, "max_new_tokens": 8}
    with pytest.raises(ValueError, match="held-out question 'mine/long' is too long: in turn 1"):
        maporl_agents.evaluate(task=asked, **few)
    kept = maporl_agents.evaluate(task=asked, long_questions="leave_out", **few)
    assert sorted(question.id for question in kept) == [q.id for q in QUESTIONS]
    assert len(maporl_agents.evaluate(task=asked, long_questions="keep", **few)) == 4


def test_evaluate_takes_the_file_and_the_words_that_it_is_given(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a run are for the task of the run alone."""
    run = replace(TrainConfig(), game=GameConfig(task="gsm8k", data="old.jsonl", template="t.json"))
    monkeypatch.setattr(experiment, "read_config", lambda folder: run)
    seen: list[GameConfig] = []

    def made(game: GameConfig) -> None:
        seen.append(game)
        raise KeyError

    monkeypatch.setattr(python_entry, "make_game", made)
    for source, given in (
        (None, {"task": "gsm8k", "data": "g.jsonl", "template": "w.json"}),
        ("run", {"task": "anli", "data": "g.jsonl"}),
        ("run", {"task": "anli"}),
        ("run", {"task": "gsm8k"}),
    ):
        with pytest.raises(KeyError):
            maporl_agents.evaluate(source, **given)
    assert [(game.task, game.data, game.template) for game in seen] == [
        ("gsm8k", "g.jsonl", "w.json"),
        ("anli", "g.jsonl", ""),
        ("anli", "", ""),
        ("gsm8k", "old.jsonl", "t.json"),
    ]


def test_importing_the_package_is_light() -> None:
    code = "import sys, maporl_agents; dir(maporl_agents); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        maporl_agents.trian  # noqa: B018
