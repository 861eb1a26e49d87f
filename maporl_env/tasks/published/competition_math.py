r"""MATH: problems of mathematics competitions, answered in LaTeX (Hendrycks et al., 2021).

A published solution ends in `\boxed{...}`, whose content is the gold answer; a column "answer"
goes before it (MATH-500 has one). Answers are compared by value with `math_verify` (the extra
"math").

Splits:

    test           as published: 5,000 problems
    validation     500 of the 7,500 published training problems, from all subjects (of a training
                   set of less than 5,000: none)
    train          the others

Options, written as in "math:levels=1+2,subjects=Algebra": see :class:`Options`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from maporl_env.answers import last_box, read_gold
from maporl_env.tasks.base import Task
from maporl_env.tasks.hub import read_hub, source
from maporl_env.tasks.published.rows import (
    Keep,
    deferred_parts,
    made,
    questions_by_split,
    read_any,
    text_of,
)
from maporl_env.tasks.splits import Numbered, Row, Splits, carve_spread_validation, with_stand_ins
from maporl_env.tasks.written_options import read_options
from maporl_env.types import Question
from maporl_env.verifiers import MathVerifier

HUB_NAME = "EleutherAI/hendrycks_math"
SUBJECTS = (
    *("algebra", "counting_and_probability", "geometry", "intermediate_algebra"),
    *("number_theory", "prealgebra", "precalculus"),
)
NUM_VALIDATION = 500
LEVELS = ("1", "2", "3", "4", "5")


@dataclass(frozen=True)
class Options:
    """Which problems are asked. Made by `load`.

    Attributes:
        levels: of difficulty, some of 1 to 5; () for all.
        subjects: some of `SUBJECTS`, in any capitalisation; () for all.

    Raises:
        ValueError: a level or subject that there is not.
    """

    levels: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, given, known in (
            ("levels", self.levels, LEVELS),
            ("subjects", tuple(map(_plain, self.subjects)), SUBJECTS),
        ):
            if not set(given) <= set(known):
                raise ValueError(f"{name} are some of {', '.join(known)}, not {'+'.join(given)}")

    def keep(self, row: Row) -> bool:
        """Whether a row is one of those that are asked."""
        level = str(row.get("level", "")).removeprefix("Level").strip()
        subject = _plain(str(row.get("type", row.get("subject", ""))))
        return (not self.levels or level in self.levels) and (
            not self.subjects or subject in map(_plain, self.subjects)
        )


def _plain(subject: str) -> str:
    return subject.strip().lower().replace(" ", "_").replace("&", "and")


def load(data: str | Path | None = None, options: str = "") -> Task:
    """Return the task.

    Args:
        data: a .jsonl, .json or .csv file with "problem" and "solution" (or "answer"), a folder of
            such files with train and test in their names, the published folder of
            train/SUBJECT/N.json and test/SUBJECT/N.json, or "EleutherAI/hendrycks_math". None: the
            folder `$MAPORL_DATA/math` if there is one, else the hub.
        options: as text.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a malformed row, a solution without a box, or options that choose nothing.
    """
    place = source("math", data, HUB_NAME)
    keep = read_options("math", Options, options, {}).keep
    splits: Splits
    if isinstance(place, str):
        splits = deferred_parts(lambda: _of_hub(place, keep), ("train", "validation", "test"))
    else:
        splits = _of_files(place, keep)
    return Task(name="math", splits=splits, make_verifier=MathVerifier)


def _of_hub(name: str, keep: Keep) -> Splits:
    splits: Splits = {}
    for split in ("train", "test"):
        rows = [row for subject in SUBJECTS for row in read_hub(name, subject, split)]
        splits[split] = made(rows, f"math/{split}", _question, keep, {})
    return {"validation": (), **_carved(splits)}


def _of_files(place: Path, keep: Keep) -> Splits:
    folders = [place / name for name in ("train", "test") if (place / name).is_dir()]
    if not folders:
        return _carved(questions_by_split(place, "math", _question, keep))
    splits: Splits = {}
    for folder in folders:
        splits[folder.name] = made(_published(folder), f"math/{folder.name}", _question, keep, {})
    return _carved(with_stand_ins(splits))


def _published(folder: Path) -> list[Numbered]:
    files = sorted(
        folder.glob("*/*.json"), key=lambda file: (file.parent.name, len(file.name), file.name)
    )
    return [row for file in files for row in read_any(file)]


def _carved(splits: Splits) -> Splits:
    return carve_spread_validation(splits, NUM_VALIDATION, 10 * NUM_VALIDATION)


def _question(row: Row, where: str, name: str) -> Question:
    prompt = text_of(row, "problem" if "problem" in row else "question", where)
    answer = row.get("answer")
    if answer is None or not str(answer).strip():
        answer = last_box(text_of(row, "solution", where))
    if answer is None:
        raise ValueError(f"{where}: the solution holds no \\boxed answer")
    try:
        read_gold(answer, "scored")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    given = row.get("unique_id", row.get("id"))
    return Question(name if given in (None, "") else str(given), prompt, str(answer), "scored")
