"""Banks of lessons in a file, so that later episodes on the same questions begin with them.

    remember("banks.jsonl", protocol, batch.transcripts)          # after episodes; adds lines
    Lessons(bank_file="banks.jsonl")                              # reads them

A line per episode: the question's id, a digest of its words, and its lessons; of several lines on
one question the last counts. Lines are only ever added. What a killed process left of its last line
is cut off into a file beside it when the next line is added. A line that is damaged otherwise is an
error that names file and line, and the file stays as it is.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from maporl_env.protocols.lesson_bank import Lesson
from maporl_env.types import Question, Transcript

NUMBERS = ("speedup", "quality", "factor")
Banks = Mapping[str, tuple[str, tuple[Lesson, ...]]]
"""By id of the question: the digest of its words, and its lessons."""


class Banking(Protocol):
    """A protocol with a bank, such as `Lessons`."""

    def judged_bank(self, history: Transcript) -> tuple[Lesson, ...]:
        """Return the bank after the complete turns."""


def digest(question: Question) -> str:
    """Return what tells the words of a question from those of another one under the same id."""
    return hashlib.sha256(question.prompt.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def remember(path: str | Path, protocol: Banking, transcripts: Iterable[Transcript]) -> None:
    """Add the banks of finished episodes to a file; it is made if there is none.

    Raises:
        ValueError: the file holds something else than banks; nothing is written.
    """
    place = Path(path)
    rows = [
        {
            "question": one.question.id,
            "words": digest(one.question),
            "lessons": [
                {"text": lesson.text, **{name: getattr(lesson, name) for name in NUMBERS}}
                for lesson in protocol.judged_bank(one)
            ],
        }
        for one in transcripts
    ]
    if place.exists():
        read_banks(place)
        _cut_broken_line(place)
    with place.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
        file.flush()
        os.fsync(file.fileno())
    _read_once.cache_clear()


def read_banks(path: str | Path) -> Banks:
    """Return the banks of a file; a last line without its end counts as never written.

    Raises:
        ValueError: there is no such file, or a line is no bank; names the line, and what to do.
    """
    place = Path(path)
    try:
        text = place.read_bytes()
    except OSError as error:
        raise ValueError(
            f"cannot read the bank file {str(place)!r} ({error.strerror}): leave it out, or let "
            "bank_file.remember write one"
        ) from error
    *lines, _ = text.split(b"\n")
    banks: dict[str, tuple[str, tuple[Lesson, ...]]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            banks[_text(row, "question")] = (_text(row, "words"), _lessons(row))
        except (ValueError, RecursionError) as error:
            told = "not valid JSON" if isinstance(error, json.JSONDecodeError) else error
            raise ValueError(
                f"bank file {str(place)!r}, line {number}: {told}; take that line out, and all "
                "others are read"
            ) from error
    return banks


def earlier(path: str, question: Question) -> tuple[Lesson, ...]:
    """Return the lessons that a bank file has on a question; () without a file or without any.

    A file is read once in a process, so that views do not change while a debate is played.

    Raises:
        ValueError: as of `read_banks`; or the lessons are about other words under the same id.
    """
    if not path:
        return ()
    words, lessons = _read_once(path).get(question.id, ("", ()))
    if lessons and words != digest(question):
        raise ValueError(
            f"bank file {path!r} has lessons on another question that is called {question.id!r}, "
            "too: name the bank file of this task"
        )
    return lessons


_read_once = lru_cache(maxsize=8)(read_banks)


def _cut_broken_line(place: Path) -> None:
    """Move what stands after the last line break to a file beside it."""
    text = place.read_bytes()
    end = text.rfind(b"\n") + 1
    if end == len(text):
        return
    with place.with_name(place.name + ".broken").open("ab") as aside:
        aside.write(text[end:] + b"\n")
    os.truncate(place, end)


def _text(row: Any, name: str) -> str:
    if not isinstance(row, dict):
        raise ValueError(f"expected an object, not {type(row).__name__}")
    if not isinstance(row.get(name), str):
        raise ValueError(f"no text in field {name!r}")
    found: str = row[name]
    return found


def _lessons(row: Mapping[str, Any]) -> tuple[Lesson, ...]:
    if not isinstance(row.get("lessons"), list):
        raise ValueError("no list in field 'lessons'")
    return tuple(_lesson(one) for one in row["lessons"])


def _lesson(row: Any) -> Lesson:
    text = _text(row, "text")
    for name in NUMBERS:
        value = row.get(name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value < 0:
            raise ValueError(f"{name} of a lesson must be a finite number >= 0, not {value!r}")
    return Lesson(text, *(float(row[name]) for name in NUMBERS))
