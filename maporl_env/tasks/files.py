"""Questions from files: JSONL or CSV, one question per row, columns recognised by name.

- Your own questions: prompt (or question), answer, and as wanted id, kind ("number" unless given)
  and split.
- GSM8K: question, and an answer that ends in "#### N".
- ANLI and other entailment sets: premise, hypothesis, label (0, 1, 2 or a word).

Every gold answer is read when it is loaded: one that cannot be read is an error with file and line.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from maporl_env.answers import NLI_LABELS, read_gold
from maporl_env.prompts import Template
from maporl_env.tasks.base import Task
from maporl_env.tasks.index import IndexedQuestions, open_index
from maporl_env.types import Question

NLI_TEMPLATE = Template(
    instruction="Put your final answer in \\boxed{{}}: entailment, neutral or contradiction."
)
SUFFIXES = (".jsonl", ".csv")
LARGE_BYTES = 1 << 25
"""A .jsonl file from this size on stays on disk: its questions are read one by one when asked."""

Row = Mapping[str, Any]
Numbered = tuple[str, Row]
"""Where a row stands ("file.jsonl, line 3"), and its columns."""


def read_rows(path: Path) -> Iterator[Numbered]:
    """Yield the rows of a JSONL or CSV file, which may be compressed (.gz), each with its place.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an ending other than .jsonl and .csv, text that is not UTF-8, or a malformed
            line (with file and line number).
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    packed = path.suffix.lower() == ".gz"
    suffix = Path(path.stem).suffix.lower() if packed else path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path} is neither .jsonl nor .csv: convert it to one of them")
    try:
        with (gzip.open if packed else open)(path, "rt", encoding="utf-8-sig", newline="") as lines:
            yield from _csv(path, lines) if suffix == ".csv" else _jsonl(path, lines)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason}): re-encode it") from error
    except (gzip.BadGzipFile, EOFError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _jsonl(path: Path, lines: Iterable[str]) -> Iterator[Numbered]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: not valid JSON ({error.msg})") from error
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected a JSON object with fields, not {line[:40]!r}")
        yield where, row


def _csv(path: Path, lines: Iterable[str]) -> Iterator[Numbered]:
    reader = csv.DictReader(lines, strict=True)
    try:
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise ValueError(f"{where}: the row does not have as many fields as the header")
            yield where, row
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not valid CSV ({error})") from error


def read_questions(rows: Iterable[Numbered], prefix: str) -> list[Question]:
    """Return the questions of some rows.

    Args:
        rows: from :func:`read_rows` or a hub data set.
        prefix: starts the id of a row that brings none, e.g. "gsm8k/test".

    Raises:
        ValueError: missing columns, a gold answer that cannot be read, or an id that stands twice;
            each with its place.
    """
    questions = []
    seen: dict[str, str] = {}
    for index, (where, row) in enumerate(rows):
        question = _question(row, where, f"{prefix}/{index}")
        if question.id in seen:
            raise ValueError(f"{where}: id {question.id!r} stands already in {seen[question.id]}")
        seen[question.id] = where
        questions.append(question)
    return questions


def _question(row: Row, where: str, name: str) -> Question:
    """The question of one row; ValueError names its place."""
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
    return Question(name if given in (None, "") else str(given), prompt, answer, kind)


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


def split_of(stem: str) -> str | None:
    """Return the split that a file's name tells: "train", "test", "dev", or None."""
    for split, starts in {
        "train": ("train",), "test": ("test",), "dev": ("dev", "valid")
    }.items():  # fmt: skip
        if stem.lower().startswith(starts):
            return split
    return None


def read_splits(path: Path, prefix: str) -> dict[str, Sequence[Question]]:
    """Return the questions of a file, or of a folder's files, by split.

    A file whose rows have a column "split" is divided by it; else its name may tell the split
    (train..., test..., dev...). A development set stands in where there is no test set. A single
    file that tells nothing is one set of questions under both names, "train" and "test".

    Raises:
        FileNotFoundError: no such file or folder, or a folder without a data file.
        ValueError: see :func:`read_rows` and :func:`read_questions`.
    """
    splits = _splits_of_folder(path, prefix) if path.is_dir() else _splits_of_file(path, prefix)
    if "dev" in splits and "test" not in splits:
        splits["test"] = splits.pop("dev")
    return splits


def _splits_of_folder(path: Path, prefix: str) -> dict[str, Sequence[Question]]:
    files = sorted(f for f in path.iterdir() if f.suffix.lower() in SUFFIXES)
    files = [file for file in files if split_of(file.stem)]
    if not files:
        raise FileNotFoundError(f"no train or test file (.jsonl or .csv) in folder {path}")
    splits: dict[str, Sequence[Question]] = {}
    for file in files:
        name = str(split_of(file.stem))
        more = _read_file(file, f"{prefix}/{name}")
        splits[name] = [*splits[name], *more] if name in splits else more
    return splits


def _read_file(path: Path, prefix: str) -> Sequence[Question]:
    if _is_large(path):
        return open_index(path, prefix, _question)
    return read_questions(read_rows(path), prefix)


def _is_large(path: Path) -> bool:
    return path.suffix.lower() == ".jsonl" and path.is_file() and path.stat().st_size >= LARGE_BYTES


def _splits_of_file(path: Path, prefix: str) -> dict[str, Sequence[Question]]:
    name = split_of(path.stem)
    if _is_large(path) and not next(read_rows(path))[1].get("split"):
        questions: Sequence[Question] = open_index(
            path, f"{prefix}/{name}" if name else prefix, _question
        )
        return {name: questions} if name else {"train": questions, "test": questions}
    rows = list(read_rows(path))
    if not rows:
        raise ValueError(f"{path} holds no question")
    if all(row.get("split") for _, row in rows):
        names = dict.fromkeys(str(row["split"]) for _, row in rows)
        return {
            name: read_questions(
                [r for r in rows if str(r[1]["split"]) == name], f"{prefix}/{name}"
            )
            for name in names
        }
    if name is not None:
        return {name: read_questions(rows, f"{prefix}/{name}")}
    questions = read_questions(rows, prefix)
    return {"train": questions, "test": questions}


def template_for(questions: Sequence[Question]) -> Template:
    """Return the words that suit the questions' kind."""
    return NLI_TEMPLATE if all(q.kind == "nli" for q in questions) else Template()


def load(path: Path) -> Task:
    """Return the task made of a user's own file or folder; see :func:`read_splits`."""
    splits = read_splits(path, path.stem)
    everything = [question for questions in splits.values() for question in _some(questions)]
    return Task(name=path.stem, splits=splits, template=template_for(everything))


def _some(questions: Sequence[Question]) -> Sequence[Question]:
    """Enough of them to tell their kind: all, unless they lie on disk."""
    return questions[:1000] if isinstance(questions, IndexedQuestions) else questions
