"""Files of published data sets in formats of their own: rows by split, and questions of rows."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from maporl_env.tasks.base import Deferred
from maporl_env.tasks.files import read_questions, read_rows
from maporl_env.tasks.hub import read_hub
from maporl_env.tasks.line_index import Reader
from maporl_env.tasks.splits import (
    Numbered,
    Row,
    Splits,
    rows_by_split,
    split_of_file,
    with_stand_ins,
)
from maporl_env.types import Question

Keep = Callable[[Row], bool]
"""Whether a row is asked for by the options of a task."""

ENDINGS = (".jsonl", ".csv", ".json", ".jsonl.gz", ".csv.gz", ".json.gz")


def read_any(path: Path) -> Iterator[Numbered]:
    """Yield the rows of a .jsonl, .csv or .json file (an array of objects), each with its place.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: what is in it cannot be read as such; with its place.
    """
    if not path.name.lower().endswith((".json", ".json.gz")) or not path.is_file():
        yield from read_rows(path)
        return
    try:
        packed = path.suffix.lower() == ".gz"
        rows = json.loads((gzip.decompress if packed else bytes)(path.read_bytes()))
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    for number, row in enumerate(rows if isinstance(rows, list) else [rows], start=1):
        if not isinstance(row, dict):
            raise ValueError(f"{path}, entry {number}: expected an object, not {str(row)[:40]!r}")
        yield f"{path}, entry {number}", row


def files_of(folder: Path) -> list[Path]:
    """Return the data files of a folder; FileNotFoundError if there is none."""
    found = [
        file
        for file in sorted(folder.iterdir())
        if file.is_file() and file.name[0] != "." and file.name.lower().endswith(ENDINGS)
    ]
    if not found:
        raise FileNotFoundError(f"no {', '.join(ENDINGS[:3])} file (also .gz) in folder {folder}")
    return found


def _split_told(file: Path) -> str | None:
    return split_of_file(file.name.partition(".")[0])


def every_row(row: Row) -> bool:
    """Return True: the choice of a task whose options choose nothing."""
    return True


def made(
    rows: Iterable[Numbered], prefix: str, read: Reader, keep: Keep, seen: dict[str, str]
) -> list[Question]:
    """Return the questions of the rows that are kept; ValueError if there is none."""
    kept = ((where, row) for where, row in rows if keep(row))
    questions = read_questions(kept, prefix, read, seen)
    if not questions:
        raise ValueError(f"{prefix}: no question is as the options of the task ask for")
    return questions


def questions_by_split(place: Path, prefix: str, read: Reader, keep: Keep = every_row) -> Splits:
    """Return the questions of a file, or of the files of a folder whose names tell a split.

    As `files.read_splits`, for rows of another form: a file without any sign of a split is the
    training and the test set; a validation set is also the test set where there is no other.

    Args:
        place: the file or folder.
        prefix: starts the ids of rows that bring none.
        read: makes a question of a row.
        keep: which rows are read.

    Raises:
        FileNotFoundError: no file.
        ValueError: a row that cannot be read, or no row at all; with its place.
    """
    if not place.is_dir():
        rows = list(read_any(place))
        if not rows:
            raise ValueError(f"{place} holds no question")
        name = _split_told(place)
        marked = rows_by_split(rows, name) or {name or "": rows}
        seen: dict[str, str] = {}
        splits: Splits = {
            split: made(part, f"{prefix}/{split}".rstrip("/"), read, keep, seen)
            for split, part in marked.items()
        }
        if "" in splits:
            splits = {"train": splits[""], "test": splits[""]}
        return with_stand_ins(splits)
    files = [file for file in files_of(place) if _split_told(file)]
    if not files:
        raise FileNotFoundError(
            f"no file in folder {place} has train, validation or test in its name"
        )
    splits, known = {}, dict[str, dict[str, str]]()
    for file in files:
        name = str(_split_told(file))
        seen = known.setdefault(name, {})
        more = made(read_any(file), f"{prefix}/{name}", read, keep, seen)
        splits[name] = [*splits.get(name, ()), *more]
    return with_stand_ins(splits)


def from_hub(
    name: str,
    config: str | None,
    splits: Mapping[str, str],
    prefix: str,
    read: Reader,
    keep: Keep = every_row,
) -> Splits:
    """Return the splits of a data set on the hub, each downloaded when it is first used.

    Args:
        name: of the data set.
        config: its configuration, None for the only one.
        splits: the hub's name of each split.
        prefix: starts the ids of rows that bring none.
        read: makes a question of a row.
        keep: which rows are read.
    """

    def loader(split: str, theirs: str) -> Callable[[], Sequence[Question]]:
        where = f"{prefix}/{split}"
        return lambda: made(read_hub(name, config, theirs), where, read, keep, {})

    return {split: Deferred(loader(split, theirs)) for split, theirs in splits.items()}


def deferred_parts(
    make: Callable[[], Mapping[str, Sequence[Question]]], names: Sequence[str]
) -> Splits:
    """Return splits that are made together, when one of them is first used."""
    made = lru_cache(maxsize=1)(make)

    def part(name: str) -> Callable[[], Sequence[Question]]:
        return lambda: made()[name]

    return {name: Deferred(part(name)) for name in names}


def text_of(row: Row, column: str, where: str) -> str:
    """Return the text in a column; ValueError with its place if there is none."""
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        have = ", ".join(map(str, row)) or "nothing"
        raise ValueError(f"{where}: no text in column {column!r}; the row has {have}")
    return value


def list_of(row: Row, column: str, where: str) -> list[Any]:
    """Return the list in a column, in a .csv file as JSON; ValueError with its place."""
    value = row.get(column)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, list):
        raise ValueError(f"{where}: column {column!r} must hold a list (in a .csv file as JSON)")
    return value
