"""Files of JSON lines that users give a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

R = TypeVar("R")


def given_lines(
    path: Path, read: Callable[[Any], R], *, setting: str, kind: str, writer: str
) -> list[tuple[int, R]]:
    """Return what the lines of a file are read as, with their numbers from 1; empty ones are none.

    Args:
        path: of the file.
        read: of a line's JSON; its errors are those of the line.
        setting: that names the file, for messages.
        kind: of what a line holds.
        writer: of such lines.

    Raises:
        ValueError: the file cannot be read, is empty, or a line is of another kind; names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{setting}: cannot read {str(path)!r}: {error}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found.append((number, read(json.loads(line))))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{setting}: line {number} of {str(path)!r} is no {kind}, as {writer} writes it: "
                f"{type(error).__name__}: {error}"
            ) from error
    if not found:
        raise ValueError(f"{setting}: {str(path)!r} holds no {kind}")
    return found
