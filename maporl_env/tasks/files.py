"""Questions from files: JSONL or CSV, one question per row, columns recognised by name.

Columns are known in any capitalisation; files may be compressed (.gz).

- Your own questions: prompt (or question), answer, and as wanted id, kind ("number" unless given)
  and split (train, validation, test in their usual spellings, or a name of your own), private (a
  list with a text per agent, which it alone reads; as JSON in a .csv file) and hidden (a reference
  for verifiers and simulated users); each of these texts may be {"file": "name.txt"}, a file
  beside the .jsonl file (`private_files`).
- GSM8K: question, and an answer that ends in "#### N".
- ANLI and other entailment sets: premise, hypothesis, label (0, 1, 2 or a word).

Every gold answer is read when it is loaded: one that cannot be read is an error with file and line.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from maporl_env.answers import NLI_LABELS, read_gold
from maporl_env.prompts import Template
from maporl_env.tasks.base import Task
from maporl_env.tasks.line_index import IndexedQuestions, Reader, json_object, open_index
from maporl_env.tasks.private_files import with_files
from maporl_env.tasks.splits import (
    Numbered,
    Row,
    Splits,
    field_name,
    require_once,
    require_unmarked,
    rows_by_split,
    split_of_file,
    with_stand_ins,
    without_other_marks,
    written_split,
)
from maporl_env.types import Question

NLI_TEMPLATE = Template(
    instruction="Put your final answer in \\boxed{{}}: entailment, neutral or contradiction."
)
SUFFIXES = (".jsonl", ".csv")
UNREAD = (
    *(".json", ".ndjson", ".tsv", ".parquet", ".arrow", ".feather", ".orc", ".avro"),
    *(".xlsx", ".xls", ".ods", ".pkl", ".pickle", ".npy", ".npz", ".h5", ".db", ".sqlite"),
    *(".zip", ".tar", ".tgz", ".bz2", ".xz", ".zst", ".7z"),
)
"""Endings of other formats that data come in, which would be missed if they were passed over."""
LARGE_BYTES = 1 << 25
"""A .jsonl file from this size on stays on disk: its questions are read one by one when asked."""
MAX_FIELD = (1 << 31) - 1
"""Largest number of characters of a CSV field that Python's reader accepts on all platforms."""


def read_rows(path: Path) -> Iterator[Numbered]:
    """Yield the rows of a JSONL or CSV file, which may be compressed (.gz), each with its place.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an ending other than .jsonl and .csv, text that is not UTF-8, or a malformed
            line (with file and line number).
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    packed, suffix = path.suffix.lower() == ".gz", _unpacked(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path} is neither .jsonl nor .csv: convert it to one of them")
    try:
        with (gzip.open if packed else open)(path, "rt", encoding="utf-8-sig", newline="") as lines:
            rows = _csv(path, lines) if suffix == ".csv" else _jsonl(path, lines)
            for where, row in rows:
                yield where, with_files(row, path.parent, where)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason}): re-encode it") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _unpacked(path: Path) -> Path:
    """The path without the ending .gz."""
    return path.with_suffix("") if path.suffix.lower() == ".gz" else path


def _split_told(path: Path) -> str | None:
    """The split that a file's name tells, without its endings."""
    return split_of_file(_unpacked(path).stem)


def _jsonl(path: Path, lines: Iterable[str]) -> Iterator[Numbered]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        yield where, json_object(line, where)


def _csv(path: Path, lines: Iterable[str]) -> Iterator[Numbered]:
    csv.field_size_limit(MAX_FIELD)  # for all readers of this process; the default is 131,072
    reader = csv.DictReader(lines, strict=True)
    start = 1  # where the row that is read begins: a quote that never closes goes on to the end
    try:
        require_once(reader.fieldnames or (), f"{path}, line {reader.line_num}")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise ValueError(f"{where}: the row does not have as many fields as the header")
            yield where, row
            start = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {start}: not valid CSV in the row that begins here ({error})"
        ) from error


def read_questions(
    rows: Iterable[Numbered],
    prefix: str,
    read: Reader | None = None,
    seen: dict[str, str] | None = None,
) -> list[Question]:
    """Return the questions of some rows.

    Args:
        rows: from :func:`read_rows` or a hub data set.
        prefix: starts the id of a row that brings none, e.g. "gsm8k/test".
        read: makes a question of a row; by its columns, if None.
        seen: places of ids that may not come again; those of the rows are added.

    Raises:
        ValueError: missing columns, two for one field, a gold answer that cannot be read, or an id
            that stands twice; each with its place.
    """
    read = read or _question
    questions = []
    seen = {} if seen is None else seen
    for index, (where, row) in enumerate(rows):
        question = read(row, where, f"{prefix}/{index}")
        if question.id in seen:
            raise ValueError(f"{where}: id {question.id!r} stands already in {seen[question.id]}")
        seen[question.id] = where
        questions.append(question)
    return questions


def _question(row: Row, where: str, name: str) -> Question:
    """The question of one row; ValueError names its place."""
    require_once(row, where)
    row = {field_name(column): value for column, value in row.items()}
    if {"premise", "hypothesis", "label"} <= row.keys():
        prompt, answer, kind = _entailment(row), _label(row["label"], where), "nli"
    else:
        prompt = _text(row, "prompt" if "prompt" in row else "question", where)
        answer, kind = _text(row, "answer", where), str(row.get("kind") or "number")
        if kind == "number" and "####" in answer:
            answer = answer.rpartition("####")[2].strip()
    try:
        read_gold(answer, kind)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    given = row.get("id", row.get("uid"))
    name = name if given in (None, "") else str(given)
    private, hidden = _private(row.get("private"), where), row.get("hidden")
    try:
        return Question(name, prompt, answer, kind, private, "" if hidden is None else hidden)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


def _private(value: Any, where: str) -> tuple[str, ...]:
    """Return the texts of a column "private": () where it is empty."""
    if isinstance(value, str) and value:
        try:
            value = json.loads(value)
        except ValueError:
            value = ""
        if not isinstance(value, list):
            raise ValueError(f"{where}: private must be a list of texts, in a .csv file as JSON")
    return value or ()


def _text(row: Row, column: str, where: str) -> str:
    value = row.get(column)
    if isinstance(value, int | float) and not isinstance(value, bool) and column == "answer":
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(
            f"{where}: no text in column {column!r}; a row needs prompt (or question) and answer, "
            f"or premise, hypothesis and label; it has {', '.join(map(str, row)) or 'nothing'}"
        )
    return value


def _entailment(row: Row) -> str:
    return (
        f"Premise: {row['premise']}\nHypothesis: {row['hypothesis']}\n"
        "Given the premise, is the hypothesis an entailment, neutral, or a contradiction?"
    )


def _label(label: object, where: str) -> str:
    names = dict(zip(("0", "1", "2"), NLI_LABELS, strict=True)) | {n: n for n in NLI_LABELS}
    short = {"e": "entailment", "n": "neutral", "c": "contradiction"}
    name = (names | short).get(str(label).strip().lower())
    if name is None:
        raise ValueError(
            f"{where}: label {label!r} is none of 0, 1, 2, {', '.join(NLI_LABELS)}: "
            "leave out unlabelled rows"
        )
    return name


def published_splits(
    place: Path | str, task: str, read_hub_split: Callable[[str, str], Sequence[Question]]
) -> Splits:
    """Return the training and test questions of a published set; errors as :func:`read_splits`.

    Args:
        place: its file or folder, or its name on the hub.
        task: starts the ids of rows that bring none.
        read_hub_split: returns the questions of a split ("train", "test") of a name on the hub.
    """
    if isinstance(place, Path):
        return read_splits(place, task, published=True)
    return {name: read_hub_split(place, name) for name in ("train", "test")}


def read_splits(path: Path, prefix: str, *, published: bool = False) -> Splits:
    """Return the questions of a file, or of a folder's files, by split.

    A file whose rows have a column "split" is divided by it; else its name may tell the split
    (train..., test..., dev...). Usual spellings of train, validation and test are recognised (see
    `splits`). A validation set stands in where there is no test set, and goes by "dev", too. A
    single file that tells nothing is one set of questions under both names, "train" and "test".

    Args:
        path: of the file or folder.
        prefix: starts the ids of rows that bring none.
        published: the folder of a published set may hold files for other purposes, which are
            left out; in a user's own folder they are refused.

    Raises:
        FileNotFoundError: no such file or folder, or a folder without a data file.
        ValueError: see :func:`read_rows` and :func:`read_questions`; or a row without a split where
            others have one, or with another one than the name of its file in the folder tells; an
            id in two splits of a file; a column of names of splits that is not called "split"; a
            data file in the folder whose name tells no split, that is there twice, or that has
            another format.
    """
    splits = (
        _splits_of_folder(path, prefix, published)
        if path.is_dir()
        else _splits_of_file(path, prefix)
    )
    return with_stand_ins(splits)


def _files_of_folder(path: Path, published: bool) -> list[Path]:
    """The data files of a folder, each of which tells its split by its name."""
    there = sorted(f for f in path.iterdir() if f.is_file() and f.name[0] != ".")
    files = [f for f in there if _unpacked(f).suffix.lower() in SUFFIXES]
    others = ", ".join(file.name for file in files if not _split_told(file))
    unread = ", ".join(f.name for f in there if _unpacked(f).suffix.lower() in UNREAD)
    rename = "rename it with train, validation or test as its first word, or move it elsewhere"
    convert = "convert it to .jsonl or .csv, or move it elsewhere"
    if not any(map(_split_told, files)):
        raise FileNotFoundError(
            f"no train or test file (.jsonl or .csv, also .gz) in folder {path}"
            + (f"; there is {others}: {rename}" if others else "")
            + (f"; there is {unread}: {convert}" if unread else "")
        )
    if unread and not published:
        raise ValueError(f"folder {path}: {unread} would not be read: {convert}")
    if others and not published:
        raise ValueError(f"folder {path}: no split in the name of {others}: {rename}")
    for file in files:
        if _unpacked(file) != file and _unpacked(file) in files:
            raise ValueError(
                f"folder {path}: {_unpacked(file).name} and {file.name} would be read as two "
                "files: remove one of them"
            )
    return [file for file in files if _split_told(file)]


def _splits_of_folder(path: Path, prefix: str, published: bool) -> Splits:
    splits: Splits = {}
    for file in _files_of_folder(path, published):
        name = str(_split_told(file))
        read = partial(_question_of_split, name)
        more: Sequence[Question] = (
            open_index(file, f"{prefix}/{name}", read, checked_as=name, split=name)
            if _is_large(file)
            else read_questions(
                without_other_marks(read_rows(file), name), f"{prefix}/{name}", read
            )
        )
        splits[name] = [*splits[name], *more] if name in splits else more
    return splits


def _question_of_split(split: str | None, row: Row, where: str, name: str) -> Question:
    """The question of a row that may not name another split than its file does (None for none)."""
    require_unmarked(row, where, split)
    return _question(row, where, name)


def _is_large(path: Path) -> bool:
    return path.suffix.lower() == ".jsonl" and path.is_file() and path.stat().st_size >= LARGE_BYTES


def _splits_of_file(path: Path, prefix: str) -> Splits:
    name = _split_told(path)
    start = f"{prefix}/{name}" if name else prefix
    first = next(read_rows(path), None)
    if first is None:
        raise ValueError(f"{path} holds no question")
    questions: Sequence[Question]
    if _is_large(path) and written_split(first[1], first[0]) is None:
        questions = open_index(path, start, partial(_question_of_split, None), split=name)
    else:
        rows = list(read_rows(path))
        if marked := rows_by_split(rows, name):
            seen: dict[str, str] = {}
            return {
                split: read_questions(part, f"{prefix}/{split}", seen=seen)
                for split, part in marked.items()
            }
        questions = read_questions(rows, start)
    return {name: questions} if name else {"train": questions, "test": questions}


def template_for(questions: Sequence[Question]) -> Template:
    """Return the template for the questions' kind."""
    return NLI_TEMPLATE if all(q.kind == "nli" for q in questions) else Template()


def load(path: Path) -> Task:
    """Return the task made of a user's own file or folder; see :func:`read_splits`."""
    splits = read_splits(path, path.stem)
    everything = [question for questions in splits.values() for question in _some(questions)]
    return Task(name=path.stem, splits=splits, template=template_for(everything))


def _some(questions: Sequence[Question]) -> Sequence[Question]:
    """Return enough questions to know their kind: all, unless they are on disk."""
    return questions[:1000] if isinstance(questions, IndexedQuestions) else questions
