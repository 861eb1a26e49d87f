"""Tools by name, as on the command line: python, search:FOLDER, or one's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from maporl_env.sandbox import SandboxUnavailable
from maporl_env.tools.python import Python
from maporl_env.tools.search import FolderSearch
from maporl_env.tools.toolbox import Tool, Toolbox
from maporl_env.user_functions import FORMS, function_named, is_own_name, whole_name

SEARCH = "search"
NAMES = "python, search:FOLDER, or your own function as " + FORMS


@dataclass(frozen=True)
class OwnTool:
    """A user's function `text -> text` as a tool. Nothing limits its time.

    Attributes:
        name: of the function, in small letters.
        function: of one text.
    """

    name: str
    function: Callable[[str], Any]

    @property
    def use(self) -> str:
        """The first line of the function's docstring."""
        words = (self.function.__doc__ or "").strip().partition("\n")[0]
        return words or "a text; you get what the tool says to it."

    def run(self, inputs: Sequence[str]) -> list[str]:
        """Return what the function says to each text; its errors are results."""
        return [self._answer(text) for text in inputs]

    def _answer(self, text: str) -> str:
        try:
            return str(self.function(text))
        except Exception as error:
            return f"error: {type(error).__name__}: {error}"


def toolbox_named(
    names: Sequence[str],
    *,
    calls: int = 3,
    chars: int = 1000,
    seconds: float = 5.0,
    shown: bool = True,
) -> Toolbox | None:
    """Return a toolbox of tools by their names; None for no names.

    Args:
        names: "python", "search:FOLDER", or one's own function `text -> text` as module:function or
            file.py:function, which is called by the name of the function.
        calls: as of `Toolbox`, as are `chars` and `shown`.
        chars: see there.
        seconds: limit of a program.
        shown: see there.

    Raises:
        ValueError: an unknown name, a folder without passages, or no sandbox on this machine.
    """
    if not names:
        return None
    tools = tuple(_tool(name, seconds, 4 * chars) for name in names)
    return Toolbox(tools, calls, chars, shown)


def whole_tool(name: str) -> str:
    """Return the name of a tool that is found from any folder."""
    kind, colon, folder = name.partition(":")
    if kind == SEARCH and colon and not is_function(name):
        return f"{SEARCH}:{Path(folder).expanduser().resolve()}"
    return whole_name(name)


def is_function(name: str) -> bool:
    """Return whether a name is that of a user's function; "search:x" is that of a folder."""
    return is_own_name(name) and name.partition(":")[0] != SEARCH


def _tool(name: str, seconds: float, output_chars: int) -> Tool:
    """Return a tool by its name; ValueError as `toolbox_named`."""
    kind, _, argument = name.partition(":")
    if name == Python.name:
        try:
            return Python(seconds, output_chars)
        except SandboxUnavailable as error:
            raise ValueError(f"the tool 'python' cannot run: {error}") from error
    if kind == SEARCH:
        if not argument:
            raise ValueError("the tool 'search' needs its folder: search:FOLDER")
        return _search(argument)
    if is_function(name):
        try:
            function = function_named(name)
        except ValueError as error:
            raise ValueError(f"tool {error}") from error
        return OwnTool(name.rpartition(":")[2].rpartition(".")[2].lower(), function)
    raise ValueError(f"unknown tool {name!r}: choose among {NAMES}")


@lru_cache(maxsize=4)
def _search(folder: str) -> FolderSearch:
    """Return the search in a folder, which is read once per process."""
    try:
        return FolderSearch(Path(folder).expanduser()).load()
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"the tool 'search:{folder}' cannot be used: {error}") from error
