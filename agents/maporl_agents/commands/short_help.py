"""``maporl COMMAND --help`` shows few flags, written here; ``--help-all`` shows all, by tyro.

The text below a field of a settings class is the help of its flag (`field_docs`).
"""

from __future__ import annotations

import ast
import inspect
import itertools
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Any, get_type_hints

from maporl_agents.commands import verifier
from maporl_agents.commands.command_line import HELP, HELP_ALL
from maporl_agents.commands.compare_systems import WORD, CompareSystems
from maporl_agents.commands.plan import Plan
from maporl_agents.commands.play import Play
from maporl_agents.commands.verifier_data import Data
from maporl_agents.commands.watch import Watch
from maporl_agents.config import RunConfig, learning_rate_flags
from maporl_agents.training.keywords import places_of

BASIC = (
    "name",
    "seed",
    "steps",
    "questions_per_step",
    "game.task",
    "game.num_agents",
    "game.num_turns",
    "game.verifier",
    "team.model",
    "team.tuning",
)
"""Settings that ``maporl train --help`` shows, besides `BASIC_OF_COMMAND` and the learning rate of
the policies: fewer than 15 in all."""
BASIC_OF_COMMAND = ("scheme", "recipe", "resume")
WIDEST = 100

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


def basic_help(command: Any, config: RunConfig, program: str) -> str:
    """Return the help of `maporl train`: the flags that most runs need.

    Args:
        command: the command with its defaults; its docstring is the beginning.
        config: the settings to start from, whose values are the defaults.
        program: what is typed before the flags.
    """
    width = min(shutil.get_terminal_size((WIDEST, 24)).columns, WIDEST)
    places = places_of(type(config))
    rates = [flag.strip("-").replace("-", "_") for flag in learning_rate_flags(config)]
    lines = [f"usage: {program} [OPTIONS]", "", inspect.cleandoc(type(command).__doc__ or ""), ""]
    lines += textwrap.wrap(
        f"The options that most runs need; {program} {HELP_ALL} shows all {len(places)} and more.",
        width,
    )
    for name in BASIC_OF_COMMAND:
        default = getattr(command, name)
        about = field_docs(type(command))[name] or _help_of(type(command), name)
        lines += _option(name, default, about, width)
    for place in (*BASIC, *rates[:1]):
        *groups, last = place.split(".")
        holder: Any = config
        for group in groups:
            holder = getattr(holder, group)
        lines += _option(place, getattr(holder, last), field_docs(type(holder))[last], width)
    return "\n".join(lines)


def help_of_flags(
    command: type[Any], flags: Sequence[str], program: str, more: str, arguments: Sequence[str] = ()
) -> str:
    """Return the help of a command: its docstring and some of its flags.

    Args:
        command: its class.
        flags: the fields to show; with a dot, those of a group whose name is not typed.
        program: what is typed before the flags.
        more: paragraphs between the docstring and the flags; the last is wrapped.
        arguments: fields that are typed without a flag, in their order.
    """
    width = min(shutil.get_terminal_size((WIDEST, 24)).columns, WIDEST)
    usage = " ".join((f"usage: {program} [OPTIONS]", *(name.upper() for name in arguments)))
    lines = [usage, "", inspect.cleandoc(command.__doc__ or ""), ""]
    *whole, last = more.split("\n\n")
    lines += [f"{each}\n" for each in whole]
    lines += textwrap.wrap(last, width, break_on_hyphens=False)
    for name in arguments:
        lines += _option(name, None, field_docs(command)[name], width, typed=name.upper())
    for place in flags:
        *group, name = place.split(".")
        cls = type(_default(command, group[0])) if group else command
        lines += _option(name, _default(cls, name), field_docs(cls)[name], width)
    return "\n".join(lines)


def _default(cls: type[Any], name: str) -> Any:
    """Return the default of a field."""
    [field] = [field for field in fields(cls) if field.name == name]
    return field.default if field.default_factory is MISSING else field.default_factory()


def _help_of(cls: type[Any], name: str) -> str:
    """Return the help in the annotation of an option, which has no text below it."""
    notes = get_type_hints(cls, include_extras=True)[name].__metadata__
    return next(note.help for note in notes if getattr(note, "help", None))


def _option(place: str, value: Any, about: str, width: int, typed: str = "") -> list[str]:
    """Return the lines of an option, or of an argument that is `typed` without a flag."""
    shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
    default = "" if shown in ("", None) else f" (default: {shown})"
    text = " ".join(about.split()) + default
    indent = " " * 6
    wrapped = textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    return ["", f"  {typed or '--' + place.replace('_', '-')}", *wrapped]


def field_docs(cls: type[Any]) -> dict[str, str]:
    """Return the text below each field of a settings dataclass, inherited ones included."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        found |= _docs_of_module(base.__module__).get(base.__qualname__, {})
    return {field.name: found.get(field.name, "") for field in fields(cls)}


@cache
def _docs_of_module(name: str) -> dict[str, dict[str, str]]:
    """Return the texts below the fields of a module's classes, by class and field."""
    tree = ast.parse(inspect.getsource(sys.modules[name]))
    return {node.name: dict(_docs(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _docs(body: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for here, below in itertools.pairwise(body.body):
        match here, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, text.strip()
