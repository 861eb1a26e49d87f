"""Private texts and references that stand in files of their own, beside the file of questions.

A row may have `{"file": "notes/ann.txt"}` in place of a text: for an agent in the list `private`,
or as `hidden`. The agent (the user, the verifier) reads the name and what the file holds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from maporl_env import prompts
from maporl_env.tasks.splits import Row, field_name

MAX_CHARS = 100_000
"""Characters of one such file."""


def with_files(row: Row, folder: Path, where: str) -> Row:
    """Return a row in which the files that it names have become texts.

    Args:
        row: of a file of questions.
        folder: of that file; what is named must lie in it or below.
        where: place of the row, for errors.

    Raises:
        ValueError: a file is elsewhere, cannot be read, or is too long; with the place.
    """
    found = dict(row)
    for column, value in row.items():
        if field_name(column) == "private" and isinstance(value, list):
            found[column] = [_text(one, folder, where) for one in value]
        elif field_name(column) == "hidden":
            found[column] = _text(value, folder, where)
    return found


def _text(value: Any, folder: Path, where: str) -> Any:
    """Return a value as it is, or the text of the file that it names."""
    if not isinstance(value, dict) or value.keys() != {"file"}:
        return value
    name = value["file"]
    inside = isinstance(name, str) and (folder / name).resolve().is_relative_to(folder.resolve())
    if not inside or not name.strip():
        raise ValueError(f"{where}: file must name a file in or below {folder}, not {name!r}")
    try:
        text = (folder / name).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ValueError(f"{where}: the file {name} cannot be read: {reason}") from error
    if len(text) > MAX_CHARS:
        raise ValueError(
            f"{where}: the file {name} has {len(text):,} characters, and may have {MAX_CHARS:,}"
        )
    fence = prompts.fence(text)
    return f"the file {name}:\n{fence}\n{text.rstrip()}\n{fence}"
