"""Names of splits, and which split a row or a file belongs to.

A split is known by the usual spellings of its name ("Train", "dev", "held-out"); any other name is
a split of its own. A column "split" must be filled in every row or in none: a row without a mark
would otherwise be trained on or measured on by accident. For the same reason, a column of another
name that holds nothing but names of splits is refused.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

from maporl_env.types import Question

SPELLINGS = {
    "train": ("train", "training", "trainset"),
    "validation": (
        *("validation", "valid", "val", "validate", "validset", "valset"),
        *("dev", "devset", "develop", "development", "eval", "evaluation"),
    ),
    "test": ("test", "testing", "testset", "tests", "heldout", "holdout"),
}
"""Known splits and their spellings; case, blanks, "-" and "_" are ignored."""

_STARTS = {"train": "train", "test": "test", "dev": "validation", "valid": "validation"}
_KNOWN = {spelling: name for name, spellings in SPELLINGS.items() for spelling in spellings}

FIELDS = frozenset(
    "split id uid kind prompt question answer private hidden premise hypothesis label".split()  # noqa: SIM905
)
"""Columns that mean something, in any capitalisation."""

Row = Mapping[str, Any]
Numbered = tuple[str, Row]
"""The place of a row ("file.jsonl, line 3"), and its columns."""
Splits = dict[str, Sequence[Question]]


def split_name(written: str) -> str:
    """Return the split that a name means: "train", "validation" or "test", else the name."""
    return _KNOWN.get(re.sub(r"[-_\s]", "", written.lower()), written)


def split_of_file(stem: str) -> str | None:
    """Return the split named by the first or last word of a file's name; None if it names none."""
    lower = stem.lower()
    words = re.findall("[a-z]+", lower)
    for word in (*words[:1], *words[-1:]):
        if word in _KNOWN:
            return _KNOWN[word]
    return next((name for start, name in _STARTS.items() if lower.startswith(start)), None)


def field_name(column: object) -> str:
    """Return the field that a column is for, in any capitalisation; else its own name."""
    name = str(column).strip().lower()
    return name if name in FIELDS else str(column)


def require_once(columns: Iterable[object], where: str) -> None:
    """Raise ValueError if two columns are for one field, of which only one would be read."""
    seen: dict[str, object] = {}
    for column in columns:
        name = field_name(column)
        if name in FIELDS and name in seen:
            raise ValueError(
                f"{where}: two columns {str(seen[name])!r} and {str(column)!r} for one field: "
                "keep one of them, and rename or remove the other"
            )
        seen[name] = column


def written_split(row: Row, where: str) -> str | None:
    """Return the value of a row's column "split" (in any capitalisation), None if it is empty.

    Raises:
        ValueError: it is no name, or a misspelled one, or there are two such columns; with its
            place.
    """
    columns = [column for column in row if field_name(column) == "split"]
    require_once(columns, where)
    value = row[columns[0]] if columns else None
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(
            f"{where}: the split {value!r} is no name: write train, validation or test"
        )
    written = str(value).strip()
    near = difflib.get_close_matches(written.lower(), list(SPELLINGS), n=1, cutoff=0.8)
    if near and split_name(written) == written != near[0]:
        raise ValueError(
            f"{where}: unknown split {written!r} (did you mean {near[0]!r}?): correct it, or give "
            "a split of your own a name that is less like it"
        )
    return written


class OtherMarks:
    """Watches the rows of a file for a column that names splits but is not called "split"."""

    def __init__(self, split: str | None) -> None:
        """`split`: what the name of the file tells; a column that says the same is harmless."""
        self._split = split
        self._found: dict[str, tuple[str, set[str]]] = {}
        self._others: set[str] = set()

    def see(self, where: str, row: Row) -> None:
        """Take note of a row's columns, if it has no split of its own."""
        if written_split(row, where) is not None:
            return
        for column, value in row.items():
            if column in self._others or value is None or value == "":
                continue
            written = value.strip() if isinstance(value, str) else None
            if written == "":
                continue
            known = written is not None and split_name(written) in SPELLINGS
            if written is None or not known or field_name(column) in FIELDS:
                self._others.add(column)
                self._found.pop(column, None)
            else:
                self._found.setdefault(column, (where, set()))[1].add(written)

    def refuse(self) -> None:
        """Raise ValueError if there is such a column, with its name and first place."""
        for column, (where, names) in self._found.items():
            if {split_name(name) for name in names} != {self._split}:
                raise ValueError(
                    f"{where}: column {column!r} holds names of splits "
                    f"({', '.join(sorted(names))}), but rows are divided only by a column "
                    "'split': rename it 'split', or remove it"
                )


def without_other_marks(rows: Iterable[Numbered], split: str | None) -> Iterator[Numbered]:
    """Yield the rows of a file; see :class:`OtherMarks` for what is refused at their end."""
    marks = OtherMarks(split)
    for where, row in rows:
        marks.see(where, row)
        yield where, row
    marks.refuse()


def rows_by_split(
    rows: Iterable[Numbered], split: str | None = None
) -> dict[str, list[Numbered]] | None:
    """Return rows by the split that their column "split" names; None if no row names any.

    Args:
        rows: of a file.
        split: what the name of the file tells.

    Raises:
        ValueError: some rows name a split and one does not, with the place of the first such row;
            or none does, but another column holds names of splits.
    """
    marked: dict[str, list[Numbered]] = {}
    marks = OtherMarks(split)
    gap = ""
    for where, row in rows:
        marks.see(where, row)
        written = written_split(row, where)
        if written is None:
            gap = gap or where
        else:
            marked.setdefault(split_name(written), []).append((where, row))
    if marked and gap:
        raise ValueError(
            f"{gap}: no split in column 'split', which other rows have: write train, validation "
            "or test there, or leave the column out of the whole file"
        )
    if not marked:
        marks.refuse()
    return marked or None


def require_unmarked(row: Row, where: str, split: str | None) -> None:
    """Raise ValueError if a row of a file names another split than the file does."""
    written = written_split(row, where)
    if written is not None and split_name(written) != split:
        raise ValueError(
            f"{where}: column 'split' says {written!r}, but "
            + (f"the file's name says {split!r}" if split else "rows before it name no split")
            + ": correct one of them, or leave the column out of the whole file"
        )


def with_stand_ins(splits: Splits) -> Splits:
    """Return splits with a validation set also as "dev", and as "test" where there is no other."""
    if "validation" in splits:
        stand_ins = {"dev": splits["validation"], "test": splits["validation"]}
        splits = stand_ins | splits
    return splits


def carve_validation(splits: Splits, count: int, least: int) -> Splits:
    """Return splits with the last training questions as "validation", which leave "train".

    Nothing changes where there is a validation set apart from the test set, or where "train" and
    "test" are one list or fewer than `least` questions are there to train on.

    Args:
        splits: of a task.
        count: questions of the validation set.
        least: questions that "train" must have to spare some.
    """
    if not _can_spare(splits, least):
        return splits
    train = splits["train"]
    return {**splits, "train": train[:-count], "validation": train[-count:]}


def _can_spare(splits: Splits, least: int) -> bool:
    train, test = splits.get("train", ()), splits.get("test")
    apart = "validation" in splits and splits["validation"] is not test
    return not (apart or train is test or len(train) < least)


def carve_spread_validation(splits: Splits, count: int, least: int) -> Splits:
    """Return splits with `count` training questions from all over as "validation".

    For sets that are sorted, by subject for instance: those with the least SHA-256 of their prompt
    are taken. Otherwise as :func:`carve_validation`.
    """
    if not _can_spare(splits, least):
        return splits
    train, validation = divided(splits["train"], count)
    return {**splits, "train": train, "validation": validation}


def divided(questions: Sequence[Question], count: int) -> tuple[list[Question], list[Question]]:
    """Return (the others, those with the `count` least SHA-256 of the prompt), each in order."""
    by_hash = sorted(
        range(len(questions)),
        key=lambda n: sha256(questions[n].prompt.encode("utf-8", "replace")).digest(),
    )
    taken = set(by_hash[:count])
    parts: tuple[list[Question], list[Question]] = ([], [])
    for place, question in enumerate(questions):
        parts[place in taken].append(question)
    return parts
