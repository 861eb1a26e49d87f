"""What a run prints and draws besides its progress: what it is about, and its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from maporl_agents.config import RunConfig
from maporl_agents.measure import learning_curve, terminal_report
from maporl_agents.models.mixed_precision import slow_arithmetic
from maporl_agents.phases import shares
from maporl_agents.play.window_check import some
from maporl_agents.records import checkpoint_folder, questions_record
from maporl_agents.records.log_lines import read_seconds
from maporl_agents.records.run_log import RunLog
from maporl_agents.terminal import command_line, shout
from maporl_agents.training.make_game import training_split
from maporl_agents.training.validation import curve_of
from maporl_env.types import Question, Transcript


def show_beginning(
    config: RunConfig, questions: Sequence[Question], noted: Mapping[str, Any], console: Console
) -> str:
    """Print what is trained on, and warnings; return what the measured questions are called.

    Args:
        config: of the run.
        questions: that are trained on.
        noted: of its questions, as `run_questions.fitting_parts` returns it.
        console: where it is printed.
    """
    warnings: Sequence[str] = noted.get("warnings", ())
    source = questions_record.source(config.game, questions)
    split = f"split {training_split(config.game)!r} of {source}"
    console.print(f"training on {len(questions):,} questions: {split}")
    shared = questions_record.shared_with_verifiers(config.game, questions)
    for warning in (*shared, *slow_arithmetic(config.team)):
        console.print(f"warning: {warning}", soft_wrap=True)
    for part, ids in noted.get("left_out", {}).items():
        console.print(f"left out as too long: {len(ids):,} {part} questions ({some(ids)})")
    shout(console, warnings)
    return "held-out questions" if not warnings else f"questions of split {config.eval.split!r}"


def show_seconds(log: RunLog, console: Console) -> None:
    """Print the share of each phase in the time of the steps."""
    if spent := read_seconds(log.folder):
        console.print(f"time of the steps: {shares(spent)}")


def warn(console: Console, transcripts: Sequence[Transcript]) -> None:
    """Print what is wrong with some debates."""
    for warning in terminal_report.warnings_of(transcripts):
        console.print(warning)


def show_results(
    config: RunConfig,
    stages: dict[str, Any],
    before: Sequence[Transcript],
    after: Sequence[Transcript],
    which: str,
    warnings: Sequence[str],
    log: RunLog,
    console: Console,
) -> None:
    """Write results.json and curve.png, and print the results.

    Args:
        config: of the run.
        stages: the results, as in results.json.
        before: sampled debates of the untrained team.
        after: those of the trained team.
        which: what the measured questions are called.
        warnings: about them, which are printed once more.
        log: of the run.
        console: where it is printed.
    """
    checkpoint_folder.save_json(log.folder / "results.json", stages)
    rows, picture = curve_of(log.folder), log.folder / "curve.png"
    learning_curve.draw_curve(rows, stages["before"], stages["after"], picture, which)
    title = f"{config.game.task}, {which}: {terminal_report.asked_words(stages)}"
    console.print(terminal_report.result_table(stages, title))
    warn(console, after)
    shout(console, warnings)
    index = terminal_report.telling_question(before, after)
    console.print(terminal_report.before_and_after(before[index], after[index]))
    console.print(f"\nrun folder: {log.folder}    picture: {picture}")
    for words in (("report",), ("play", "--run")):
        console.print(f"next: {command_line(*words, log.folder)}", soft_wrap=True)
