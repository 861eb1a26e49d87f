"""Which questions are asked in which step of a run."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from maporl_agents.seeding import seed_of
from maporl_env.types import Question


def questions_of_step(
    questions: Sequence[Question], step: int, count: int, seed: int
) -> list[Question]:
    """Return the questions of one step: every pass over them is in a new random order.

    A function of the step alone, so that a resumed run asks what the uninterrupted one would have.
    """
    chosen = []
    orders: dict[int, list[int]] = {}
    for position in range(step * count, (step + 1) * count):
        epoch, place = divmod(position, len(questions))
        if epoch not in orders:
            generator = torch.Generator().manual_seed(seed_of(seed, "questions", epoch))
            orders[epoch] = torch.randperm(len(questions), generator=generator).tolist()
        chosen.append(questions[orders[epoch][place]])
    return chosen
