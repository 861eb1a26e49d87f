"""The command line, ``maporl COMMAND``; the commands stand at the end of this file.

Mistakes of the user end with one sentence and exit code 2, without a traceback (set MAPORL_DEBUG=1
to see one).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from maporl_agents.commands import bench, verifier
from maporl_agents.commands.command_line import HELP, basic_help, parse, sentence_of
from maporl_agents.commands.play_options import Eval, Play
from maporl_agents.config import RunConfig, TrainConfig, config_of, scheme_of
from maporl_agents.config.typed_text import prepared
from maporl_agents.recipes import recipe
from maporl_agents.records.run_folder import folder_of
from maporl_agents.records.saved_settings import SettingsDiffer
from maporl_agents.records.storage import CheckpointError
from maporl_agents.terminal import command_line, console
from maporl_env.sandbox import SandboxUnavailable
from maporl_env.tasks import load_task
from maporl_env.user_functions import whole_name

RUNS = Path("runs")
WELCOME = """Language models that learn to collaborate, by multi-agent reinforcement learning.

Start with `maporl train` (two tiny models learn to debate, minutes on a CPU), then look at what
became of them: `maporl play --run runs/maporl-shopping`, `maporl report runs/maporl-shopping`.
Every command explains itself with --help; `maporl --version` says which version this is."""


@dataclass(frozen=True)
class Train:
    """Train agents to work together; with no arguments they learn to debate a built-in task.

    Writes everything to runs/NAME: settings, metrics, transcripts, checkpoints, curve.png.
    """

    config: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    scheme: str = "maporl"
    """How agents collaborate and learn: maporl, magrpo, malt, iac, or your own as module:name or
    file.py:name (docs/explanation/schemes/own.md). Each has settings of its own; see them with
    --scheme NAME --help-all."""
    recipe: str = ""
    """Start from these settings: a YAML file, or shopping (the defaults), sharing, coins,
    phi3-gsm8k, phi3-anli, phi3-qwen-gsm8k, phi3-llama-gsm8k or small-gpu. Flags change them."""
    runs: Path = RUNS
    """Folder of all runs."""
    overwrite: bool = False
    """Replace a run of the same name."""
    resume: Path | None = None
    """Continue this run folder from its newest checkpoint, with the settings it has."""
    force: bool = False
    """With --resume: go on with the settings given here although the run has others, and with
    questions that have changed since it began."""
    log_to: tuple[str, ...] = ()
    """Send metrics there too, besides TensorBoard: wandb, if it is installed."""

    def __call__(self) -> int:
        """Run the command; return the exit code."""
        if self.force and self.resume is None:
            raise ValueError("--force belongs to --resume: give the folder of the run to change")
        if self.recipe and self.resume is not None:
            raise ValueError("--resume goes on with the run's own settings: leave out --recipe")
        load_task(self.config.game.task, self.config.game.data or None)  # before torch is
        from maporl_agents.training import experiment

        terminal = console()
        folder = self.resume or folder_of(self.runs, self.config.name)
        try:
            if self.resume:
                experiment.resume(
                    folder, terminal, self.config, force=self.force, log_to=self.log_to
                )
            else:
                experiment.run(
                    self.config, folder, terminal, overwrite=self.overwrite, log_to=self.log_to
                )
        except experiment.Interrupted as stop:
            terminal.print(
                f"\nstopped after step {stop.step}; saved. "
                f"Go on with: {command_line('train', '--resume', folder)}",
                soft_wrap=True,
            )
            return 128 + stop.signal_number
        return 0


@dataclass(frozen=True)
class Plan:
    """Say what a training run would hold in memory and how long a step would take.

    Reads settings and tokenizers, never weights. Takes the flags of `maporl train`, and short ones.
    Example: maporl plan --recipe phi3-gsm8k --gib 80
    """

    config: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    scheme: str = "maporl"
    """As for `maporl train`."""
    recipe: str = ""
    """As for `maporl train`."""
    model: tuple[str, ...] = ()
    """Short for --team.model."""
    agents: int = 0
    """Short for --game.num-agents."""
    turns: int = 0
    """Short for --game.num-turns."""
    message_tokens: int = 0
    """Tokens of each message; 0 takes the limit, which is the worst case."""
    question_tokens: int = 0
    """Plan with questions of so many tokens instead of reading the task's."""
    gib: float = 0.0
    """Memory of a device that is not here, in GiB; 0 for what this one has."""
    tflops: float = 0.0
    """Its matrix products in the models' dtype, 10^12 operations a second; 0 measures this one."""
    gb_per_second: float = 0.0
    """What its memory reads and writes together; 0 measures this one."""
    rehearsal_seconds: float = 20.0
    """To forecast the time of a step, spend about so long on a rehearsal: the run is built with
    random weights and takes steps with growing numbers of debates, every message at its limit. On
    an idle machine this was within 15 percent of measured steps; on a busy one the plan says so,
    and its range is wide. 0 leaves it out; time is then a wide range, as it is for runs that need
    longer and for devices that are not here."""

    def __call__(self) -> int:
        """Run the command; return the exit code: 1 if the run would not fit."""
        from maporl_agents.planning.page import run_command

        return run_command(self, console())


@dataclass(frozen=True)
class Export:
    """Write a run's trained policies as plain adapters or models, for peft or transformers alone.

    Example: maporl export runs/NAME --to models, then load models/agent_0.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    to: Path
    """A new folder; each policy becomes a sub-folder of its name."""
    merge: bool = False
    """Add the adapters to their base model: whole models for transformers."""

    def __call__(self) -> int:
        """Run the command; return the exit code."""
        from maporl_agents.commands.export import export

        terminal = console()
        for folder in export(self.run, self.to, merge=self.merge):
            terminal.print(f"wrote {folder}")
        return 0


@dataclass(frozen=True)
class Compare:
    """Carry out studies: many trainings and controls with several seeds, then one table.

    What was finished before is not run again, and what was cut goes on where it was. Writes
    runs/studies/STUDY/study.json; ``maporl report runs/studies/STUDY`` makes a page of it.
    """

    studies: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[STUDY ...]")
    ] = ()
    """Names of studies, or "all"."""
    list: bool = False
    """Only explain the studies: claim, arms, expected core-minutes."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One result per seed; intervals are over them."""
    quick: bool = False
    """Tiny trainings that show that everything runs; the figures mean nothing."""
    jobs: int = 0
    """Processes at once, one core each; 0 takes one per core."""
    runs: Path = RUNS
    """Folder of all runs."""
    docs: Path | None = None
    """Write a summary of all finished studies to this Markdown file, and their tables and plots to
    the folder of the same name beside it."""

    def __call__(self) -> int:
        """Run the command; return the exit code: 1 if a job failed."""
        from maporl_agents.commands.compare import run_command

        return run_command(self, console())


@dataclass(frozen=True)
class Verifier:
    """Make a learned verifier: sample data for it, train it, measure it, serve it."""

    action: Annotated[verifier.Action, tyro.conf.arg(name="")]

    def __call__(self) -> int:
        """Run the command; return the exit code."""
        return self.action(console())


@dataclass(frozen=True)
class Bench:
    """Score anyone's agents on the environment benchmark, and make its tables."""

    action: Annotated[bench.Action, tyro.conf.arg(name="")]

    def __call__(self) -> int:
        """Run the command; return the exit code."""
        return self.action(console())


@dataclass(frozen=True)
class Report:
    """Make one self-contained HTML page of a run or a study; it opens offline.

    Example: maporl report runs/NAME
    """

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_STUDY")]
    """A run folder, the folder of a study, or its study.json."""
    out: Path | None = None
    """The page; by default report.html in the folder."""

    def __call__(self) -> int:
        """Run the command; return the exit code."""
        from maporl_agents.webpage import write_page

        print(write_page(self.source, self.out))
        return 0


Command = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Plan, tyro.conf.subcommand("plan")]
    | Annotated[Eval, tyro.conf.subcommand("eval")]
    | Annotated[Play, tyro.conf.subcommand("play")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Verifier, tyro.conf.subcommand("verifier")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, run, and exit: 0 done, 2 the user's mistake, 130 / 143 interrupted and saved."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # warns of kernels nobody asked for
    try:
        command = _command(prepared(sys.argv[1:] if argv is None else argv))
        code = 0 if command is None else command()
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # whoever read the output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    except SettingsDiffer as error:  # its lines are a diff
        print(f"maporl: {error}", file=sys.stderr)
        code = 2
    except (
        *(ValueError, OSError, ImportError, FloatingPointError),
        *(CheckpointError, SandboxUnavailable),
    ) as error:
        if os.environ.get("MAPORL_DEBUG"):
            raise
        print(f"maporl: {sentence_of(error)}", file=sys.stderr)
        code = 2
    sys.exit(code)


def _command(given: Sequence[str]) -> Command | None:
    """Return the command that is asked for; None where a text was, which is printed."""
    if list(given) == ["--version"]:
        print(f"maporl {importlib.metadata.version('maporl')}")
        return None
    if given[:1] not in (["train"], ["plan"]):
        chosen: Command = parse(Command, given, prog="maporl", description=WELCOME)
        return chosen
    kind: type[Train] | type[Plan] = Train if given[0] == "train" else Plan
    config, scheme = _settings_from(given[1:])
    start = kind(config=config, scheme=scheme)
    program = f"maporl {given[0]}"
    if kind is Train and not {*HELP}.isdisjoint(given):
        print(basic_help(start, config, program))
        return None
    made: Train | Plan = parse(kind, given[1:], prog=program, default=start)
    return made


def _settings_from(given: Sequence[str]) -> tuple[RunConfig, str]:
    """Return what flags start from, a scheme's settings, a recipe's or a run's, and the scheme."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--scheme", "--recipe", "--resume"):
        parser.add_argument(flag, nargs="?")
    start = parser.parse_known_args(given)[0]
    config: RunConfig
    if start.recipe:
        config = recipe(start.recipe)
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


if __name__ == "__main__":
    main()
