r"""Multiple choice: MMLU, MMLU-Pro, ARC-Challenge, and files of one's own in one of their forms.

    "mmlu"        57 subjects (Hendrycks et al., 2021)                       "cais/mmlu"
    "mmlu_pro"    up to ten options (Wang et al., 2024)                      "TIGER-Lab/MMLU-Pro"
    "arc"         science questions of grades 3 to 9 (Clark et al., 2018)    "allenai/ai2_arc"

The answer is the letter of an option, `\boxed{B}` (kind "choice" of `answers`). A row has a
question, its options ("choices" or "options": a list of texts; or ARC's `{"text": [...], "label":
[...]}`), and its answer ("answer", "answerKey" or "answer_index": a letter, ARC's own label, or a
number from 0).

Splits are the published ones: "train" (of MMLU its "auxiliary_train", of MMLU-Pro none),
"validation" and "test". A file of one's own without a validation set spares none.

Options, written as in "mmlu:subjects=anatomy+virology": see :class:`Options`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from maporl_env.answers import CHOICES
from maporl_env.prompts import Template
from maporl_env.tasks.base import Task
from maporl_env.tasks.hub import source
from maporl_env.tasks.published.rows import from_hub, list_of, questions_by_split, text_of
from maporl_env.tasks.splits import Row, Splits
from maporl_env.tasks.written_options import read_options
from maporl_env.types import Question

TEMPLATE = Template(instruction="Put the letter of the right answer in \\boxed{{}}.")
THREE = {"train": "train", "validation": "validation", "test": "test"}
HUB: dict[str, tuple[str, str | None, dict[str, str]]] = {
    "mmlu": ("cais/mmlu", "all", {**THREE, "train": "auxiliary_train"}),
    "mmlu_pro": ("TIGER-Lab/MMLU-Pro", None, {"validation": "validation", "test": "test"}),
    "arc": ("allenai/ai2_arc", "ARC-Challenge", THREE),
}
"""By task: name on the hub, configuration, and the hub's name of each split."""


@dataclass(frozen=True)
class Options:
    """Which questions are asked. Made by `load`.

    Attributes:
        subjects: values of the column "subject" (MMLU) or "category" (MMLU-Pro), in any
            capitalisation, with "_" for blanks; () for all.
    """

    subjects: tuple[str, ...] = ()

    def keep(self, row: Row) -> bool:
        """Whether a row is one of those that are asked."""
        subject = str(row.get("subject", row.get("category", "")))
        return not self.subjects or _plain(subject) in map(_plain, self.subjects)


def _plain(subject: str) -> str:
    return subject.strip().lower().replace(" ", "_")


def load(name: str, data: str | Path | None = None, options: str = "") -> Task:
    """Return the task of a name of `HUB`.

    Args:
        name: of the task.
        data: a .jsonl, .json or .csv file (lists as JSON), a folder of files with train, validation
            and test in their names, or the name on the hub. None: the folder `$MAPORL_DATA/NAME`
            if there is one, else the hub.
        options: as text.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a malformed row, with its place, or options that choose nothing.
    """
    hub_name, config, splits_there = HUB[name]
    place = source(name, data, hub_name)
    keep = read_options(name, Options, options, {}).keep
    splits: Splits
    if isinstance(place, Path):
        splits = questions_by_split(place, name, _question, keep)
    else:
        splits = from_hub(hub_name, config, splits_there, name, _question, keep)
    return Task(name=name, splits=splits, template=TEMPLATE)


LOADERS: dict[str, Callable[..., Task]] = {name: partial(load, name) for name in HUB}
"""By task: `load(data, options)`."""


def _question(row: Row, where: str, name: str) -> Question:
    texts, labels = _choices(row, where)
    if not 2 <= len(texts) <= len(CHOICES):
        raise ValueError(f"{where}: {len(texts)} options, not 2 to {len(CHOICES)}")
    place = _right(row, labels, where)
    listed = "\n".join(f"{letter}. {text}" for letter, text in zip(CHOICES, texts, strict=False))
    prompt = f"{text_of(row, 'question', where).strip()}\n{listed}"
    given = row.get("question_id", row.get("id"))
    return Question(
        name if given in (None, "") else str(given), prompt, CHOICES[place], kind="choice"
    )


def _choices(row: Row, where: str) -> tuple[list[str], list[str]]:
    """Return the options and their labels."""
    column = "choices" if "choices" in row else "options"
    both = row.get(column)
    if isinstance(both, dict):
        texts, labels = (list_of(both, part, where) for part in ("text", "label"))
    else:
        texts = list_of(row, column, where)
        labels = list(CHOICES[: len(texts)])
    if len(texts) != len(labels) or not all(isinstance(t, str) and t.strip() for t in texts):
        raise ValueError(f"{where}: the options must be texts, each with one label")
    return texts, [str(label).strip().upper() for label in labels]


def _right(row: Row, labels: list[str], where: str) -> int:
    """Return the place of the right option."""
    given: Any = next(
        (row[column] for column in ("answerKey", "answer", "answer_index") if column in row), None
    )
    written = str(given).strip().upper()
    if written in labels:
        return labels.index(written)
    if written.isdecimal() and not isinstance(given, bool) and int(written) < len(labels):
        return int(written)
    raise ValueError(f"{where}: the answer {given!r} is none of the options {', '.join(labels)}")
