"""GSM8K: grade-school word problems with a number as the answer (Cobbe et al., 2021).

Splits
    train, test    as published: 7,473 and 1,319 problems
    verifier       the first 7,463 training problems: what the paper trains its verifier on
    rl             the paper's 12,800 problems of TinyGSM (final answers only), if the folder has a
                   file tinygsm.jsonl (see `tasks.tinygsm`); none of them in `verifier`
    first_half, second_half
                   of `train`, disjoint: a verifier part and an RL part where there is no TinyGSM
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from maporl_env.tasks import tinygsm
from maporl_env.tasks.base import Task
from maporl_env.tasks.files import read_questions, read_splits
from maporl_env.tasks.hub import read_hub, source
from maporl_env.types import Question

HUB_NAME = "openai/gsm8k"
NUM_VERIFIER = 7_463


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
    splits: dict[str, Sequence[Question]] = {}
    if isinstance(place, Path):
        splits.update(read_splits(place, "gsm8k"))
    else:
        for name in ("train", "test"):
            splits[name] = read_questions(read_hub(place, "main", name), f"gsm8k/{name}")
    if "train" in splits and splits["train"] is not splits.get("test"):
        splits |= _parts(splits["train"], place)
    return Task(name="gsm8k", splits=splits)


def _parts(train: Sequence[Question], place: Path | str) -> dict[str, Sequence[Question]]:
    half = len(train) // 2
    verifier = train[:NUM_VERIFIER]
    parts = {"verifier": verifier, "first_half": train[:half], "second_half": train[half:]}
    tiny = Path(place) / tinygsm.FILE
    if tiny.is_file():
        known = {question.prompt for question in verifier}
        parts["rl"] = tinygsm.read(tiny, tinygsm.NUM_RL, without=known)
    return parts
