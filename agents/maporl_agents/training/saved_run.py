"""The settings of a run that is in a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from maporl_agents.config import RunConfig, SelfPlayConfig, read_settings
from maporl_agents.records import checkpoint_folder
from maporl_agents.records.storage import CheckpointError
from maporl_agents.training.make_game import unjudged


def spoken(config: RunConfig) -> RunConfig:
    """Return settings of a run by which its team speaks, and which need no verdict.

    A team of self-play speaks in debates of its two players, with as many turns.
    """
    game, played = unjudged(config.game), config.self_play
    if played.game:
        game = replace(game, num_agents=2, num_turns=played.turns)
    return replace(config, game=game, self_play=SelfPlayConfig())


def read_config(folder: Path) -> RunConfig:
    """Return the settings of a run.

    Raises:
        FileNotFoundError: the folder is no run.
        CheckpointError: its config.json does not hold settings.
    """
    path = folder / "config.json"
    if not path.is_file():
        there = sorted(str(path.parent) for path in folder.parent.glob("*/config.json"))
        raise FileNotFoundError(
            f"{folder} is no run: "
            + ("it has no config.json" if folder.is_dir() else "there is no such folder")
            + (f"; runs beside it: {', '.join(there)}" if there else "")
        )
    try:
        return read_settings(checkpoint_folder.load_json(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except (TypeError, AttributeError, KeyError) as error:
        raise CheckpointError(
            f"{path} does not hold the settings of a run ({error}): restore it from a copy"
        ) from error
