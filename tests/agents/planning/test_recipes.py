"""Recipes: those that are shipped, files of one's own, and the command line from them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from maporl_agents import cli, recipes
from maporl_agents.commands import train
from maporl_agents.config import MALTConfig, TrainConfig
from maporl_agents.recipes import recipe
from maporl_agents.training import experiment

PAPER = ("phi3-gsm8k", "phi3-anli", "phi3-qwen-gsm8k", "phi3-llama-gsm8k")


def written(folder: Path, text: str) -> Path:
    file = folder / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_says_what_it_is_for_and_has_a_folder_of_its_own(name: str) -> None:
    assert recipes.about(name).endswith(".")
    others = [recipe(other).name for other in recipes.names() if other != name]
    assert recipe(name).name not in others


def test_the_command_line_names_every_recipe() -> None:
    """Dashes are written as they are typed; line breaks of the help are not words."""
    text = Path(train.__file__).read_text(encoding="utf-8")
    start = text.index("shopping (the defaults)")
    listed = " ".join(text[start : text.index('"""', start)].split())
    assert all(name in listed for name in recipes.names())


def test_shopping_is_what_training_does_by_itself() -> None:
    assert recipe("shopping") == TrainConfig()


def test_sharing_is_the_homogeneous_experiment() -> None:
    config = recipe("sharing")
    assert (config.team.sharing, config.team.train_turns) == ("one", ">=2")
    assert config.game.reward_feedback
    assert config.game.feedback_verifier == "noisy_key"
    assert config.game.verifier == "key"
    assert recipe("coins").game.task == "coins"
    assert recipe("coins").team == config.team


@pytest.mark.parametrize("name", PAPER)
def test_what_the_paper_states_is_what_its_recipes_say(name: str) -> None:
    config = recipe(name)
    assert isinstance(config, TrainConfig)
    assert (config.game.num_agents, config.game.num_turns, config.game.gamma) == (2, 3, 0.3)
    assert (config.team.lora_rank, config.team.lora_alpha) == (8, 16)
    assert config.sampling.max_new_tokens == (250 if config.game.task == "anli" else 300)
    assert (config.ppo.epochs, config.ppo.kl_coef, config.ppo.learning_rate) == (4, 0.002, 1e-5)
    assert (config.ppo.gae_lambda, config.ppo.critic_coef, config.ppo.clip_coef) == (0.95, 0.1, 0.2)
    assert config.steps * config.questions_per_step == 12_800  # one pass over the paper's data
    assert config.game.train_split == "rl"


def test_experiment_1_leaves_the_first_turn_as_it_began() -> None:
    for name in ("phi3-gsm8k", "phi3-anli"):
        assert recipe(name).team.train_turns == ">=2"
    for name in ("phi3-qwen-gsm8k", "phi3-llama-gsm8k"):
        assert len(set(recipe(name).team.model)) == 2


def test_a_file_of_ones_own_changes_what_it_names(tmp_path: Path) -> None:
    text = "steps: 7\nppo:\n  learning_rate: 1e-4\n  target_kl: null\ngame:\n  alpha: [1, 2]\n"
    config = recipe(written(tmp_path, text))
    assert (config.steps, config.ppo.learning_rate) == (7, 1e-4)  # YAML takes 1e-4 for text
    assert config.game.alpha == (1.0, 2.0)
    assert config.game.task == TrainConfig().game.task


def test_another_scheme_keeps_its_own_defaults(tmp_path: Path) -> None:
    config = recipe(written(tmp_path, "scheme: malt\ngame:\n  num_turns: 1\n"))
    assert config == MALTConfig()
    assert recipe(written(tmp_path, "malt:\n  branching: 2\n")).malt.branching == 2


@pytest.mark.parametrize("config", [TrainConfig(steps=3), MALTConfig()])
def test_the_settings_of_a_run_are_a_recipe(tmp_path: Path, config: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps(asdict(config)), encoding="utf-8")
    assert recipe(tmp_path / "config.json") == config
    plain = json.loads(json.dumps(asdict(config)))
    assert recipe(written(tmp_path, yaml.safe_dump(plain))) == config


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stps: 3", r"unknown setting stps \(did you mean 'steps'\?\)"),
        ("ppo:\n  learning_rat: 1", r"unknown setting ppo.learning_rat .*'learning_rate'"),
        ("game: shopping", "game is a group of settings"),
        ("steps: many", "steps is 'many', but it must be a whole number"),
        ("steps: true", "steps is True, but it must be a whole number"),
        ("ppo:\n  learning_rate: fast", "ppo.learning_rate is 'fast', but it must be a number"),
        ("team:\n  model: tiny", r"team.model is 'tiny', but it is a list: write \[tiny\]"),
        ("team:\n  sharing: all", "team.sharing is 'all': choose one of agent, turn"),
        ("game:\n  alpha: [1]", "game.alpha has 1 entries, and must have 2"),
        ("ppo:\n  epochs: 0", "epochs must be at least 1"),
        ("scheme: maprl", "unknown scheme 'maprl'"),
        ("- steps", "must hold settings"),
        ("a: [", "as a recipe, settings in YAML"),
        ("a: " + "[" * 5_000, "as a recipe, settings in YAML"),
        ("steps: " + "7" * 5_000, "as a recipe, settings in YAML"),
        ('steps: !!int ""', "as a recipe, settings in YAML"),
        ("steps: !!bool x", "as a recipe, settings in YAML"),
        ("name: 2026-13-45", "as a recipe, settings in YAML"),
        ("ppo:\n  learning_rate: 0x" + "f" * 400, "ppo.learning_rate is .*must be a number"),
        ("!!python/object/apply:os.system ['true']", "as a recipe, settings in YAML"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        recipe(written(tmp_path, text))


def test_an_unknown_recipe_is_named_with_its_neighbour() -> None:
    with pytest.raises(
        ValueError, match=r"did you mean 'sharing'\?.*coins, dialogue, leader, phi3"
    ):
        recipe("sharin")


def parsed(monkeypatch: pytest.MonkeyPatch, *argv: str) -> tuple[TrainConfig, Path]:
    """Return the settings and the folder of the run that the command line would start."""
    seen: list[Any] = []
    monkeypatch.setattr(
        experiment,
        "run",
        lambda config, folder, *_, **__: seen.append(folder) or seen.append(config),
    )
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", *argv])
    assert stop.value.code == 0
    return seen[1], seen[0]


def test_flags_change_a_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config, folder = parsed(monkeypatch, "--recipe", "sharing", "--steps", "7")
    assert config.steps == 7
    assert config.game == recipe("sharing").game
    assert config.team == recipe("sharing").team
    assert folder == Path("runs/maporl-sharing")
    mine = written(tmp_path, "name: mine\nquestions_per_step: 5\n")
    config, folder = parsed(monkeypatch, "--recipe", str(mine), "--seed", "3")
    assert (config.questions_per_step, config.seed, folder) == (5, 3, Path("runs/mine"))
    assert parsed(monkeypatch)[0] == TrainConfig()


def test_a_wrong_recipe_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, words in (
        (["--recipe", "share"], "there is no recipe 'share'"),
        (["--recipe", "sharing", "--resume", "runs/none"], "leave out --recipe"),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(["train", *argv])
        assert stop.value.code == 2
        assert words in capsys.readouterr().err
