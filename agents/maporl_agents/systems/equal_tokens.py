"""Equal tokens for all systems: the budget per question, and the passes that spend it.

The budget is a number of single answers, times the tokens of one, which `rehearsal` measures on
validation questions before any job. Every system then answers in as many passes as come nearest to
it (`passes_within`); where even one pass costs far more, the result says so (`TOLERANCE`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from maporl_agents.records.storage import load_json, write_text
from maporl_agents.seeding import seed_of
from maporl_agents.systems.catalogue import Prepared, System
from maporl_agents.systems.playing import MEMBERS, one_answer, untrained
from maporl_agents.systems.tasks import BenchTask
from maporl_agents.systems.votes import Pass
from maporl_env.types import Question

TOLERANCE = 1.25
"""Tokens of a system, in times of the budget, up to which they count as equal."""
REHEARSED = 20
"""Validation questions of a rehearsal."""


def rehearsal(task: BenchTask, validation: int, folder: Path) -> dict[str, float]:
    """Return "tokens" of one answer of a member, and processor "seconds" for 1,000 of them.

    Made once: what it says of tokens is the budget of all jobs.

    Args:
        task: as it is played.
        validation: its validation questions, of which at most `REHEARSED` are asked.
        folder: of the jobs of the task, which keeps `rehearsal.json`.
    """
    path = folder / "rehearsal.json"
    if path.is_file():
        return dict(load_json(path))
    cast = untrained(task)
    questions = task.questions("validation", min(REHEARSED, validation))
    began = time.process_time()
    said = [one_answer(member)(cast, questions, 1.0, member) for member in range(MEMBERS)]
    tokens = sum(one.tokens for one in said) / MEMBERS
    spent = 1_000 * (time.process_time() - began) / max(1.0, tokens * len(questions) * MEMBERS)
    found = {"tokens": round(tokens, 3), "seconds": round(spent, 4)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(found))
    return found


def tokens_of_first(passes: Sequence[Pass]) -> list[float]:
    """Return the tokens per question of the first k = 1, 2, ... passes."""
    return [sum(one.tokens for one in passes[:count]) for count in range(1, len(passes) + 1)]


def passes_for(budget: float, tokens: float) -> int:
    """Return how many passes of a cost come nearest to a budget of tokens; at least 1.

    Where the nearest number is more than `TOLERANCE` times the budget, it is one less.
    """
    if tokens <= 0:
        return 1
    nearest = round(budget / tokens)
    return max(1, nearest - (nearest * tokens > TOLERANCE * budget))


def passes_within(
    budget: float,
    made: Prepared,
    what: System,
    questions: Sequence[Question],
    temperature: float,
    name: tuple[int, str],
) -> list[Pass]:
    """Let a system answer in as many passes as come nearest to a budget of tokens per question.

    Args:
        budget: tokens per question; see `passes_for`.
        made: the system, ready to answer.
        what: the system; says the largest number of its passes.
        questions: that are asked.
        temperature: of sampling.
        name: of the stream of random numbers.
    """

    def one(number: int) -> Pass:
        # The noise is named without the system: a vote and the best of N see the same samples.
        noise = seed_of(*name, "pass", number)
        return made.play(number)(made.cast, questions, temperature, noise)

    first = one(0)
    count = passes_for(budget, first.tokens)
    count = min(count, what.most or count)
    return [first, *(one(number) for number in range(1, count))]
