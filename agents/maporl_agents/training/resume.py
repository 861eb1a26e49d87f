"""Resume a run from its newest checkpoint, as if it had never stopped.

The weights and the optimiser come back by `checkpointing.load_checkpoint`, `RunLog.resume` refuses
other settings than the saved ones, `RunLog.truncate_after` cuts the log to the checkpoint, and
`experiment.finish` goes on. Random streams are named by step, so they hold no state to restore.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from maporl_agents import distributed
from maporl_agents.config import RunConfig
from maporl_agents.play.model_defaults import kept_open
from maporl_agents.records import checkpoint_folder, questions_record
from maporl_agents.records.loggers import require_loggers
from maporl_agents.records.run_log import RunLog
from maporl_agents.training import experiment
from maporl_agents.training.checkpointing import load_checkpoint
from maporl_agents.training.first_folder import add_loggers, log_of
from maporl_agents.training.make_game import make_game, with_whole_names
from maporl_agents.training.run_questions import fitting_parts, parts_of
from maporl_agents.training.same_start import require_same_start
from maporl_agents.training.saved_run import read_config
from maporl_agents.update.optimiser import PolicyLearner
from maporl_env.tasks import Task


def resume(
    folder: Path,
    console: Console,
    config: RunConfig | None = None,
    *,
    force: bool = False,
    log_to: Sequence[str] = (),
    task: Task | None = None,
) -> dict[str, Any]:
    """Continue a run from its newest checkpoint.

    Args:
        folder: of the run.
        console: where progress is shown.
        config: other settings than those of the run, e.g. more steps; None for its own.
        force: use them although they differ, and data that changed since; else both are refused.
        log_to: as for `experiment.run`.
        task: as for `experiment.run`.

    Raises:
        ValueError: the settings differ (`SettingsDiffer`), do not fit the checkpoint, or ask for
            fewer steps than are done; or the questions are others. The run is then as it was.
    """
    require_loggers(log_to)
    saved = distributed.first(lambda: read_config(folder))
    config = config or saved
    sampling = kept_open(config.sampling, saved.sampling, config.team.model)
    config = replace(config, game=with_whole_names(config.game), sampling=sampling)
    game = make_game(config.game, task)
    parts = parts_of(config, game)
    known = questions_record.note(parts)
    require_same_start(config, known)
    team, learner = experiment.build(config, kept=saved, game=game)
    parts, noted = fitting_parts(config, game, team, parts, known)
    open_log = partial(RunLog.resume, folder, config, force=force)
    with experiment.serving_of(team, config, folder), log_of(open_log, folder, config) as log:
        changes = partial(questions_record.changes, folder, config.game, parts, force=force)
        for change in distributed.first(changes):
            console.print(f"going on although {change}")
        start = go_back_to_checkpoint(log, learner, config)
        if force and distributed.is_first():
            checkpoint_folder.save_json(folder / questions_record.FILE, noted)
        add_loggers(log, config, log_to)
        console.print(f"resuming {folder} after step {start} of {config.steps}")
        return experiment.finish(config, game, learner, parts, noted, log, console, start=start)


def go_back_to_checkpoint(log: RunLog, learner: PolicyLearner, config: RunConfig) -> int:
    """Load the newest checkpoint of a run; return its step, after which nothing is recorded.

    Raises:
        ValueError: fewer steps are asked for than are done. The run is then as it was.
        CheckpointError: the checkpoint is damaged, or of another team.
    """
    start = load_checkpoint(log.folder, learner)
    if start > config.steps:
        raise ValueError(
            f"{log.folder} has done {start} steps, more than the {config.steps} asked for: give at "
            "least as many --steps, or start another run (--name)"
        )
    log.truncate_after(start)
    return start
