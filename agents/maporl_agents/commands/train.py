"""``maporl train``: its options, and what settings they start from."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from maporl_agents import distributed
from maporl_agents.config import (
    CONFIGS,
    RunConfig,
    TrainConfig,
    asking,
    config_of,
    scheme_of,
)
from maporl_agents.recipes import recipe
from maporl_agents.records.run_folder import folder_of
from maporl_agents.terminal import command_line, console
from maporl_env.bridges.textarena import env_maker
from maporl_env.tasks import load_task
from maporl_env.user_functions import whole_name

SCHEME_HELP = (
    f"How agents collaborate and learn: {', '.join(CONFIGS)}, or your own as module:name or "
    "file.py:name (docs/how-to/add-an-algorithm.md). Each has settings of its own; see them with "
    "--scheme NAME --help-all."
)


@dataclass(frozen=True)
class Train:
    """Train agents to work together; with no arguments they learn to debate a built-in task.

    Writes everything to runs/NAME: settings, metrics, transcripts, checkpoints, curve.png.
    """

    config: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    scheme: Annotated[str, tyro.conf.arg(help=SCHEME_HELP)] = "maporl"
    recipe: str = ""
    """Start from these settings: a YAML file, or shopping (the defaults), sharing, coins, leader,
    dialogue, teams_and_judge, review, retrieve, smollm2-notes, phi3-gsm8k, phi3-anli,
    phi3-qwen-gsm8k, phi3-llama-gsm8k or small-gpu. Flags change them."""
    runs: Path = Path("runs")
    """Folder of all runs."""
    overwrite: bool = False
    """Replace a run of the same name."""
    resume: Path | None = None
    """Continue this run folder from its newest checkpoint, with the settings it has."""
    force: bool = False
    """With --resume: go on with the settings given here although the run has others, and with
    questions that have changed since it began."""
    processes: int = 1
    """Processes on this machine that share the work, with the same result; as torchrun starts
    them. Each takes a GPU of its own, or its share of the cores."""
    log_to: tuple[str, ...] = ()
    """Send metrics there too, besides TensorBoard: wandb, trackio or mlflow, if installed. A
    resumed run goes on there, no step twice."""

    def __call__(self) -> int:
        """Run the command; return the exit code."""
        if self.processes < 1:
            raise ValueError(f"processes must be at least 1, not {self.processes}")
        if self.force and self.resume is None:
            raise ValueError("--force belongs to --resume: give the folder of the run to change")
        if self.overwrite and self.resume is not None:
            raise ValueError(
                "--resume goes on with a run and --overwrite begins it anew: choose one"
            )
        if self.runs != Train.runs and self.resume is not None:
            raise ValueError("--resume names the folder of the run: leave out --runs")
        if self.recipe and self.resume is not None:
            raise ValueError("--resume goes on with the run's own settings: leave out --recipe")
        if self.config.self_play.game and (self.processes > 1 or distributed.launched()):
            raise ValueError("--self-play.game trains in one process: leave out --processes")
        with distributed.together():
            return self._run()

    def _run(self) -> int:
        game = self.config.game
        given: dict[str, Any] = {"log_to": self.log_to}
        run: Callable[..., Any]
        go_on: Callable[..., Any]
        if game.env:
            env_maker(game.env)()  # a mistake is told before torch is loaded
        elif not self.config.self_play.game:
            given["task"] = load_task(game.task, game.data or None)
        if game.env:
            from maporl_agents.bridges import outside_run

            run, go_on = outside_run.run, outside_run.resume
        elif self.config.self_play.game:
            from maporl_agents.self_play import run as self_play_run

            run, go_on = self_play_run.run, self_play_run.resume
        else:
            from maporl_agents.training import experiment, resume

            run, go_on = experiment.run, resume.resume
        from maporl_agents.training.loop import Interrupted

        terminal = console(quiet=not distributed.is_first())
        folder = self.resume or folder_of(self.runs, self.config.name)
        try:
            if self.resume or distributed.begun(str(folder)):  # a launcher has restarted it
                go_on(folder, terminal, self.config, force=self.force, **given)
            else:
                run(self.config, folder, terminal, overwrite=self.overwrite, **given)
        except Interrupted as stop:
            terminal.print(
                f"\nstopped after step {stop.step}; saved. "
                f"Go on with: {command_line('train', '--resume', folder)}",
                soft_wrap=True,
            )
            distributed.tell(stop)
            return 128 + stop.signal_number
        return 0


def settings_from(given: Sequence[str]) -> tuple[RunConfig, str]:
    """Return the settings that flags change, and the name of their scheme.

    They are those of a recipe, of a run that is resumed, or the defaults of the scheme.

    Raises:
        ValueError: --scheme names another scheme than the recipe or the run has.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--scheme", "--recipe", "--resume"):
        parser.add_argument(flag, nargs="?")
    parser.add_argument("--game.task", dest="task", nargs="?")
    start = parser.parse_known_args(given)[0]
    config: RunConfig
    if start.recipe:
        config = recipe(start.recipe)
        config = replace(config, game=asking(config.game, start.task or config.game.task))
    elif start.resume:
        from maporl_agents.training.experiment import read_config

        config = read_config(Path(start.resume))
    else:
        config = config_of(start.scheme or "maporl")()
    scheme = scheme_of(config)
    if start.scheme and whole_name(start.scheme) != scheme:
        raise ValueError(
            f"--scheme {start.scheme} contradicts the settings to start from, which are of "
            f"{scheme}: leave one of them out"
        )
    return config, scheme
