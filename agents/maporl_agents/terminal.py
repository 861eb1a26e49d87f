"""The console of commands, their progress bars, and command lines that users can paste."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def console(*, quiet: bool = False) -> Console:
    """Return where commands print; silences transformers' own bars for reading small files."""
    from rich.console import Console
    from transformers.utils import logging

    logging.disable_progress_bar()

    made = Console(highlight=False, quiet=quiet)
    return made if made.is_terminal else Console(highlight=False, width=100, quiet=quiet)


def progress_of_steps(first: str, *, console: Console, bar_width: int | None = 40) -> Progress:
    """Return a progress display: a first column, bar, count, field `now`, elapsed and left time."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn(first),
        BarColumn(bar_width=bar_width),
        MofNCompleteColumn(),
        TextColumn("{task.fields[now]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


def shout(console: Console, warnings: Iterable[str]) -> None:
    """Print warnings in bold red."""
    from rich.text import Text

    for warning in warnings:
        console.print(Text(warning, style="bold red"), soft_wrap=True)


@contextmanager
def terminated_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C, so that what is under way is saved or removed; main thread only."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def maporl_command() -> str:
    """Return the command that starts `maporl` from the current folder, to be pasted into a shell.

    That is the bare word where the shell finds this very program under it, else the path of its
    script, else a call of this interpreter.
    """
    script = Path(sys.executable).parent / "maporl"
    found = shutil.which("maporl")
    if found and Path(found).parent.resolve() == script.parent.resolve():
        return "maporl"
    if script.is_file():
        here = Path.cwd()
        path = script.relative_to(here) if script.is_relative_to(here) else script
        return shlex.quote(str(path))
    return f"{shlex.quote(sys.executable)} -m maporl_agents.cli"


def command_line(*words: str | os.PathLike[str]) -> str:
    """Return a command of `maporl` with these words, as a user types it here."""
    return " ".join([maporl_command(), *(shlex.quote(os.fspath(word)) for word in words)])
