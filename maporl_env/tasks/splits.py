"""Names of splits, and which split a row or a file belongs to.

A split is known by the usual spellings of its name ("Train", "dev", "held-out"); any other name is
a split of its own. A column "split" must be filled in every row or in none: a row without a mark
would otherwise be trained on or measured on by accident.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
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


def written_split(row: Row, where: str) -> str | None:
    """Return the value of a row's column "split" (in any capitalisation), None if it is empty.

    Raises:
        ValueError: it is no name, or a misspelled one; with its place.
    """
    column = next((name for name in row if str(name).strip().lower() == "split"), None)
    value = None if column is None else row[column]
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


def rows_by_split(rows: Iterable[Numbered]) -> dict[str, list[Numbered]] | None:
    """Return rows by the split that their column "split" names; None if no row names any.

    Raises:
        ValueError: some rows name a split and one does not; with the place of the first such row.
    """
    marked: dict[str, list[Numbered]] = {}
    gap = ""
    for where, row in rows:
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
    train, test = splits.get("train", ()), splits.get("test")
    apart = "validation" in splits and splits["validation"] is not test
    if apart or train is test or len(train) < least:
        return splits
    return {**splits, "train": train[:-count], "validation": train[-count:]}
