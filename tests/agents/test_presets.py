"""Settings by name, and how the command line starts from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from maporl_agents import cli, experiment
from maporl_agents.config import TrainConfig
from maporl_agents.games import debates_of
from maporl_agents.presets import PRESETS, preset


def test_every_preset_makes_a_game_and_has_a_folder_of_its_own() -> None:
    for name in PRESETS:
        debates_of(preset(name).game, 1)
    assert len({config.name for config in PRESETS.values()}) == len(PRESETS)
    assert preset("shopping") == TrainConfig()


def test_sharing_is_the_homogeneous_experiment() -> None:
    config = preset("sharing")
    assert (config.team.sharing, config.team.train_turns) == ("one", ">=2")
    assert config.game.reward_feedback
    assert config.game.feedback_verifier == "noisy_key"
    assert config.game.verifier == "key"
    assert preset("coins").game.task == "coins"
    assert preset("coins").team == config.team


def test_an_unknown_preset_is_named_with_its_neighbour() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'sharing'\?.*shopping, sharing, coins"):
        preset("sharin")


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


def test_flags_change_a_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    config, folder = parsed(monkeypatch, "--preset", "sharing", "--steps", "7")
    assert config.steps == 7
    assert config.game == preset("sharing").game
    assert config.team == preset("sharing").team
    assert folder == Path("runs/maporl-sharing")
    assert parsed(monkeypatch)[0] == TrainConfig()


def test_a_wrong_preset_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, words in (
        (["--preset", "share"], "unknown preset 'share'"),
        (["--preset", "sharing", "--resume", "runs/none"], "leave out --preset"),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(["train", *argv])
        assert stop.value.code == 2
        assert words in capsys.readouterr().err
