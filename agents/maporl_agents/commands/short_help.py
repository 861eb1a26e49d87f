"""What ``maporl COMMAND --help`` shows where a command has many flags; ``--help-all`` shows all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from maporl_agents.commands import verifier
from maporl_agents.commands.command_line import HELP, HELP_ALL, help_of_flags
from maporl_agents.commands.compare_systems import WORD, CompareSystems
from maporl_agents.commands.plan import Plan
from maporl_agents.commands.play import Play
from maporl_agents.commands.verifier_data import Data
from maporl_agents.commands.watch import Watch

TEAM = ("run", "model", "task", "agents", "turns", "protocol")


@dataclass(frozen=True)
class Shown:
    """Flags of a command that its short help shows.

    Attributes:
        command: the class of the command.
        flags: its fields; with a dot those of a group of its settings.
        arguments: its fields that are typed without a flag.
    """

    command: type[Any]
    flags: tuple[str, ...]
    arguments: tuple[str, ...] = ()


SHOWN = {
    ("play",): Shown(
        Play, (*TEAM, "human", "replay", "split", "index", "max_new_tokens", "temperature", "seed")
    ),
    ("watch",): Shown(
        Watch,
        (*TEAM, "players", "resume", "out", "index", "temperature", "host", "port", "who"),
    ),
    ("plan",): Shown(
        Plan,
        (
            *("scheme", "recipe", "model", "agents", "turns", "message_tokens", "question_tokens"),
            *("gib", "tflops", "gb_per_second", "rehearsal_seconds", "gpus", "servers"),
        ),
    ),
    ("compare", WORD): Shown(
        CompareSystems,
        (
            *("only", "tasks", "seeds", "model", "questions", "answers", "train_scale", "jobs"),
            *("results", "work", "page", "docs", "dry_run", "collect"),
        ),
    ),
    ("verifier", "data"): Shown(
        Data,
        (
            *("task", "data", "recordings", "questions", "test_questions", "agents", "turns"),
            *("debates", "verifier", "seed", "answerers.model", "answerers.device"),
            *("sampling.max_new_tokens", "sampling.temperature"),
        ),
        arguments=("out",),
    ),
    ("verifier", "train"): Shown(
        verifier.Train,
        (
            *("balance", "config.model", "config.tuning", "config.lora_rank", "config.dtype"),
            *("config.device", "config.quantization", "fit.steps", "fit.rows_per_step"),
            *("fit.learning_rate", "fit.head_learning_rate", "fit.seed"),
        ),
        arguments=("data", "out"),
    ),
}
"""Commands of more than 14 flags, train and eval apart, which have short helps of their own."""


def short_help(given: Sequence[str]) -> str | None:
    """Return the short help that the words after ``maporl`` ask for, else None."""
    if {*HELP}.isdisjoint(given):
        return None
    for words, shown in SHOWN.items():
        if tuple(given[: len(words)]) == words:
            program = " ".join(("maporl", *words))
            more = f"The flags that most uses need; {program} {HELP_ALL} shows all."
            return help_of_flags(shown.command, shown.flags, program, more, shown.arguments)
    return None
