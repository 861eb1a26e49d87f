"""Runs that are not of debates: how one begins, and how it is resumed.

`experiment` carries out runs of debates, with their questions, ranks and servers. Other kinds
(`self_play.run`, `bridges.outside_run`) need the settings, a learner and what to do with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from maporl_agents.config import RunConfig
from maporl_agents.play.model_defaults import kept_open, with_model_defaults
from maporl_agents.records.loggers import require_loggers
from maporl_agents.records.run_log import RunLog
from maporl_agents.training.first_folder import add_loggers
from maporl_agents.training.resume import go_back_to_checkpoint
from maporl_agents.training.saved_run import read_config
from maporl_agents.update.optimiser import PolicyLearner


@dataclass(frozen=True)
class RunKind:
    """A kind of run that is not one of debates, in one process.

    Attributes:
        settled: the settings as they are saved.
        make_learner: from the settings, and those saved of a run that is resumed; raises
            ValueError where they make no such run.
        finish: measures, trains, shows, from a number of steps done; returns the results.
    """

    settled: Callable[[RunConfig], RunConfig]
    make_learner: Callable[[RunConfig, RunConfig | None], PolicyLearner]
    finish: Callable[[RunConfig, PolicyLearner, RunLog, Console, int], dict[str, Any]]

    def run(
        self,
        config: RunConfig,
        folder: Path,
        console: Console,
        *,
        overwrite: bool = False,
        log_to: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Carry out a whole run in a fresh folder; return its results.

        Args:
            config: the settings.
            folder: of the run.
            console: where progress is shown.
            overwrite: remove an earlier run of that name.
            log_to: names of further loggers.

        Raises:
            ValueError: the settings contradict each other, or make no such run.
            Interrupted: a signal came; the run is saved, and `resume` goes on with it.
        """
        require_loggers(log_to)
        sampling, told = with_model_defaults(config.sampling, config.team.model)
        config = replace(self.settled(config), sampling=sampling)
        learner = self.make_learner(config, None)
        if told:
            console.print(told)
        with RunLog.create(folder, config, overwrite=overwrite) as log:
            add_loggers(log, config, log_to)
            return self.finish(config, learner, log, console, 0)

    def resume(
        self,
        folder: Path,
        console: Console,
        config: RunConfig | None = None,
        *,
        force: bool = False,
        log_to: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Continue a run from its newest checkpoint; arguments as for `resume.resume`.

        Raises:
            ValueError: the settings differ and `force` is False, or fewer steps are asked for than
                are done. The run is then as it was.
        """
        require_loggers(log_to)
        saved = read_config(folder)
        config = config or saved
        sampling = kept_open(config.sampling, saved.sampling, config.team.model)
        config = replace(self.settled(config), sampling=sampling)
        learner = self.make_learner(config, saved)
        with RunLog.resume(folder, config, force=force) as log:
            start = go_back_to_checkpoint(log, learner, config)
            add_loggers(log, config, log_to)
            console.print(f"resuming {folder} after step {start} of {config.steps}")
            return self.finish(config, learner, log, console, start)
