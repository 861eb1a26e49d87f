"""Reads the JSON lines of a run folder: metrics, seconds, alarms, transcripts."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the metrics of a run, one dict per line; a value that was not finite is None.

    A torn last line, which a kill leaves, is left out with a warning.

    Raises:
        ValueError: if there is no metrics.jsonl, or a line is damaged; names file and line.
    """
    path = Path(folder) / "metrics.jsonl"
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give the folder of a run, like runs/<name>.")
    records, end = [], 0
    for record, end in log_lines(path):  # noqa: B007
        records.append(record)
    if path.stat().st_size > end:
        warnings.warn(f"{path}: the last line is torn and left out.", stacklevel=2)
    return records


def last_step(path: Path) -> int:
    """Return the step of the last complete line, 0 without any; ValueError as `log_lines`."""
    step = 0
    for record, _ in log_lines(path):
        step = record["step"]
    return step


def read_seconds(folder: Path) -> dict[str, float]:
    """Return the seconds of each phase summed over a run's steps; {} for a run without them.

    Raises:
        ValueError: a line of seconds.jsonl is damaged; names file and line.
    """
    total: Counter[str] = Counter()
    for record, _ in log_lines(Path(folder) / "seconds.jsonl"):
        total.update({name: spent for name, spent in record.items() if name != "step"})
    return dict(total)


def log_lines(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield each complete line's object, and the size of the file up to the end of that line.

    Raises:
        ValueError: a line is damaged; names file and line.
    """
    if not path.exists():
        return
    end = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            end += len(line)
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _damaged_line(path, number, f"is not JSON ({error})") from error
            if not isinstance(record, dict) or type(record.get("step")) is not int:
                raise _damaged_line(path, number, 'is not an object with a whole number "step"')
            yield record, end


def _damaged_line(path: Path, number: int, what: str) -> ValueError:
    return ValueError(f"{path}, line {number} {what}. Mend or remove that line.")
