"""GSM8K: grade-school word problems with a number as the answer (Cobbe et al., 2021).

The published answers end in "#### N"; `tasks.files` reads N from them.

Splits:

    test           as published: 1,319 problems
    validation     the last 500 of the 7,473 published training problems (of a training set of your
                   own of less than 5,000 problems: none)
    train          the others, 6,973
    verifier       the first 7,463 training problems as published: what the paper trains its
                   verifier on. It shares 490 problems with `validation`
    rl             what the paper trains its agents on: the first 12,800 problems of TinyGSM that
                   have a final answer and are not in `verifier` (see `tinygsm`). From the hub
                   where GSM8K is; else from tinygsm.jsonl, in the folder or in one named tinygsm
                   beside it, and without that file there is no such split. Read when asked for
    first_half, second_half
                   of `train`, disjoint: a verifier part and an RL part where there is no TinyGSM
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

from maporl_env.tasks.base import Deferred, Task
from maporl_env.tasks.files import published_splits, read_questions, read_rows
from maporl_env.tasks.hub import read_hub, source
from maporl_env.tasks.published import tinygsm
from maporl_env.tasks.splits import Splits, carve_validation
from maporl_env.tasks.worked import marked
from maporl_env.types import Question

HUB_NAME = "openai/gsm8k"
NUM_VERIFIER = 7_463
NUM_VALIDATION = 500
_CALCULATION = re.compile(r"<<[^<>]*>>")


def load(data: str | Path | None = None) -> Task:
    """Return the task.

    Args:
        data: a .jsonl or .csv file, a folder with train.jsonl and test.jsonl, or "openai/gsm8k".
            None: the folder `$MAPORL_DATA/gsm8k` if there is one, else the hub.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a malformed row or an unreadable gold answer, with file and line number.
    """
    place = source("gsm8k", data, HUB_NAME)
    splits = published_splits(place, "gsm8k", _published)
    if "train" in splits and splits["train"] is not splits.get("test"):
        verifier = splits["train"][:NUM_VERIFIER]
        splits = carve_validation(splits, NUM_VALIDATION, 10 * NUM_VALIDATION)
        splits |= _parts(splits["train"], verifier, place)
    return Task(name="gsm8k", splits=splits, worked=partial(_worked, place))


def _worked(place: Path | str, question: Question, agents: int) -> list[list[str]]:
    """Return the published solution for every agent, in one turn; see `Task.worked`."""
    solution = _solutions(place).get(question.prompt, "")
    return [[f"{solution}\n{marked(question.answer, question.kind)}".lstrip()] * agents]


@lru_cache(maxsize=2)
def _solutions(place: Path | str) -> dict[str, str]:
    """Return the published solutions by question, without their notes for a calculator."""
    if isinstance(place, Path):
        files = [place] if place.is_file() else sorted(place.glob("train*.jsonl*"))
        rows = [row for file in files for _, row in read_rows(file)]
    else:
        rows = [row for _, row in read_hub(place, "main", "train")]
    return {
        str(row["question"]): _CALCULATION.sub("", str(row["answer"]).rpartition("####")[0]).strip()
        for row in rows
        if {"question", "answer"} <= row.keys()
    }


def _parts(train: Sequence[Question], verifier: Sequence[Question], place: Path | str) -> Splits:
    half = len(train) // 2
    parts: Splits = {"verifier": verifier, "first_half": train[:half], "second_half": train[half:]}
    if (tiny := _tinygsm(place)) is not None:
        parts["rl"] = Deferred(partial(_rl, tiny, verifier))
    return parts


def _tinygsm(place: Path | str) -> Path | str | None:
    """Where the RL questions are, None for nowhere."""
    if isinstance(place, str):
        return tinygsm.HUB_NAME
    folders = (place, place.resolve().parent / "tinygsm") if place.is_dir() else ()
    return next((folder for folder in folders if (folder / tinygsm.FILE).is_file()), None)


def _rl(tiny: Path | str, verifier: Sequence[Question]) -> Sequence[Question]:
    known = {question.prompt for question in verifier}
    return tinygsm.take(tiny, tinygsm.NUM_RL, without=known)


def _published(place: str, name: str) -> list[Question]:
    return read_questions(read_hub(place, "main", name), f"gsm8k/{name}")
