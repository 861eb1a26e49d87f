"""Parsing a command line: all of the help by tyro, mistakes in one sentence, whoever finds them.

The short help, which comes first, is in `short_help`.
"""

from __future__ import annotations

import contextlib
import errno
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from maporl_agents.commands import usage_errors
from maporl_agents.config import refuse_retired
from maporl_env.missing_extra import missing_extra

HELP = ("-h", "--help")
HELP_ALL = "--help-all"
TRAIN_PACKAGES = ("torch", "transformers", "peft", "safetensors", "yaml", "rich", "matplotlib")
"""Packages of the extra `train`, by import name, that commands import only when they need them."""
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

        raise ValueError(usage_errors.sentence(told.getvalue(), words, program, again)) from None


def sentence_of(error: BaseException) -> str:
    """Return an error in one line, what the system says about files in our own words."""
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return _about_file(error.errno, str(error.strerror), _shown(str(error.filename)))
    if isinstance(error, ModuleNotFoundError) and error.name in TRAIN_PACKAGES:
        return missing_extra("this command", error.name, "train")
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
