"""The questions of a run: which are trained on and measured on, which fit, and what is noted.

`experiment` asks for them before it trains.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maporl_agents.config import RunConfig
from maporl_agents.models.team import Team
from maporl_agents.play.questions import questions_of_step
from maporl_agents.play.window_check import fitting
from maporl_agents.records import questions_record
from maporl_agents.records.storage import write_text
from maporl_agents.training.make_game import LoadedGame, questions_of
from maporl_env.types import Question
from maporl_env.user_functions import given_as

TASK_FILE = "task.jsonl"
"""In a run's folder: questions that a Python program handed over."""
LOOKED_AT = 1_000
"""Training questions that are looked at for a reference."""


def held_out(config: RunConfig, game: LoadedGame | None = None) -> list[Question]:
    """Return the questions of the evaluation: the same for every run with the same settings."""
    split = config.eval.split
    questions = game.questions(split) if game else questions_of(config.game, split)
    return questions_of_step(questions, 0, min(config.eval.questions, len(questions)), 0)


def asked_before(config: RunConfig, held: Sequence[Question]) -> Sequence[Question]:
    """Return the held-out questions that are also asked before training: the first of them."""
    return held[: config.eval.questions_before]


def parts_of(config: RunConfig, game: LoadedGame) -> questions_record.Parts:
    """Return the questions that are trained on, and those that are measured on."""
    return {"training": game.training_questions(), "held-out": held_out(config, game)}


def fitting_parts(
    config: RunConfig,
    game: LoadedGame,
    team: Team,
    parts: questions_record.Parts,
    known: Mapping[str, Any],
) -> tuple[questions_record.Parts, dict[str, Any]]:
    """Return the questions that fit the team's models, and what the run's folder notes of them.

    `known` is the note of all `parts`: that of questions which all fit is not made again.

    Raises:
        ValueError: some do not fit, and `game.long_questions` does not leave them out.
    """
    choice = config.game.long_questions
    kept, left_out = fitting(team, game.config, config.sampling, parts, choice)
    held, split = kept["held-out"], config.eval.split
    seen = questions_record.seen_in_training(held, game.questions(split), kept["training"])
    warning = questions_record.memory_warning(seen, len(held), split)
    fewer = {name: kept[name] for name in kept if kept[name] is not parts[name]}
    noted: dict[str, Any] = {**known, **questions_record.note(fewer)}
    for name, value in (("left_out", left_out), ("warnings", [warning] * bool(warning))):
        if value:
            noted[name] = value
    return kept, noted


def require_references(config: RunConfig, parts: questions_record.Parts) -> None:
    """Raise ValueError where a privileged critic would find nothing to read."""
    asked = parts["training"][:LOOKED_AT]
    if config.team.critic == "privileged" and not any(question.hidden for question in asked):
        raise ValueError(
            "team.critic='privileged' reads the hidden reference of questions, and the first "
            f"{len(asked):,} training questions have none: choose critic='central', or questions "
            "with a column hidden"
        )


def save_given_questions(config: RunConfig, folder: Path) -> None:
    """Write the questions that only this process has into the run's folder, to be read later."""
    path = (folder / TASK_FILE).resolve()
    if config.game.task == str(path) and (given := given_as(str(path))) is not None:
        lines = (json.dumps(question.to_dict()) for question in given)
        write_text(path, "".join(f"{line}\n" for line in lines))
