"""ANLI, round 3: does a premise entail a hypothesis, contradict it, or neither (Nie et al., 2020).

Splits
    train, test    as published; where there is no test file, the development set is the test set
    verifier       the first 10,000 training pairs: what the paper trains its verifier on
    rl             the next 12,800: what it trains the agents on
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from maporl_env.tasks.base import Task
from maporl_env.tasks.files import NLI_TEMPLATE, read_questions, read_splits
from maporl_env.tasks.hub import read_hub, source
from maporl_env.types import Question

HUB_NAME = "facebook/anli"
NUM_VERIFIER = 10_000
NUM_RL = 12_800


def load(data: str | Path | None = None) -> Task:
    """Return the task; see `gsm8k.load` for `data` and errors (hub name "facebook/anli")."""
    place = source("anli", data, HUB_NAME)
    splits: dict[str, Sequence[Question]] = {}
    if isinstance(place, Path):
        splits.update(read_splits(place, "anli"))
    else:
        for name in ("train", "test"):
            splits[name] = read_questions(read_hub(place, None, f"{name}_r3"), f"anli/{name}")
    train = splits.get("train", ())
    if len(train) > NUM_VERIFIER and train is not splits.get("test"):
        splits["verifier"] = train[:NUM_VERIFIER]
        splits["rl"] = train[NUM_VERIFIER : NUM_VERIFIER + NUM_RL]
    return Task(name="anli", splits=splits, template=NLI_TEMPLATE)
