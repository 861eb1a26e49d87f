"""Reading a command line: short help first, mistakes in one sentence, whoever finds them."""

from __future__ import annotations

import ast
import contextlib
import errno
import inspect
import io
import itertools
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import tyro

from maporl_agents.commands import mistakes
from maporl_agents.config import RunConfig, learning_rate_flags, refuse_retired
from maporl_agents.training.keywords import places_of

HELP = ("-h", "--help")
HELP_ALL = "--help-all"
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
FLAT = (tyro.conf.AvoidSubcommands,)
"""For `parse`: groups of settings that may be absent are no commands of their own."""


def parse(kind: Any, given: Sequence[str], **options: Any) -> Any:
    """Parse a command line with `tyro.cli`.

    Raises:
        ValueError: it cannot be read; one sentence.
        SystemExit: help was asked for, and is printed.
    """
    words = ["--help" if word == HELP_ALL else word for word in given]
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            return tyro.cli(kind, args=words, **options)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        for word in words:
            if word.startswith("--"):
                refuse_retired(word.partition("=")[0])
        program = options.get("prog", "maporl")

        def again(others: list[str]) -> object:
            return tyro.cli(kind, args=others, **options)

        raise ValueError(mistakes.sentence(told.getvalue(), words, program, again)) from None


def sentence_of(error: BaseException) -> str:
    """Return an error in one line, what the system says about files in our own words."""
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return _about_file(error.errno, str(error.strerror), _shown(str(error.filename)))
    return " ".join(str(error).split()) or type(error).__name__


def _about_file(number: int, said: str, name: str) -> str:
    words = {
        errno.ENOENT: f"there is no file or folder {name}",
        errno.EACCES: f"{name} may not be read or written by this user",
        errno.EPERM: f"{name} may not be read or written by this user",
        errno.EISDIR: f"{name} is a folder, but a file is needed",
        errno.ENOTDIR: f"{name} is not below a folder: a part of its path is a file",
        errno.EEXIST: f"{name} is there already",
        errno.ENOSPC: f"{name} cannot be written: the disk is full",
        errno.EROFS: f"{name} cannot be written: the disk is read-only",
        errno.ENAMETOOLONG: f"the name {name[:60]}... is too long",
    }
    return words.get(number, f"{name}: {said.lower()}")


def _shown(name: str) -> str:
    """Return a path without the name of a file that is put in place only when it is whole."""
    path = Path(name)
    while path.name.startswith((".saving-", ".removing-")):
        path = path.parent
    return str(path)


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
