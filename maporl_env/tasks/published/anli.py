"""ANLI, round 3: does a premise entail a hypothesis, contradict it, or neither (Nie et al., 2020).

Splits:

    train, test    as published; where there is no test file, the development set is the test set
    validation     the development set; where that is the test set, the last 1,200 training pairs,
                   which leave `train`, if it is large enough for them and the next two
    verifier       the first 10,000 training pairs: what the paper trains its verifier on
    rl             the next 12,800: what it trains the agents on
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from maporl_env.tasks.base import Deferred, Task
from maporl_env.tasks.files import NLI_TEMPLATE, published_splits, read_questions
from maporl_env.tasks.hub import read_hub, source
from maporl_env.tasks.splits import carve_validation
from maporl_env.types import Question

HUB_NAME = "facebook/anli"
NUM_VERIFIER = 10_000
NUM_RL = 12_800
NUM_VALIDATION = 1_200


def load(data: str | Path | None = None) -> Task:
    """Return the task; see `gsm8k.load` for `data` and errors (hub name "facebook/anli")."""
    place = source("anli", data, HUB_NAME)
    splits = published_splits(place, "anli", _published)
    if isinstance(place, str):
        splits["validation"] = Deferred(partial(_published, place, "dev"))
    splits = carve_validation(splits, NUM_VALIDATION, NUM_VERIFIER + NUM_RL + NUM_VALIDATION)
    train = splits.get("train", ())
    if len(train) > NUM_VERIFIER and train is not splits.get("test"):
        splits["verifier"] = train[:NUM_VERIFIER]
        splits["rl"] = train[NUM_VERIFIER : NUM_VERIFIER + NUM_RL]
    return Task(name="anli", splits=splits, template=NLI_TEMPLATE)


def _published(place: str, name: str) -> list[Question]:
    return read_questions(read_hub(place, None, f"{name}_r3"), f"anli/{name}")
