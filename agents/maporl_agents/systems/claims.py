"""What the results of the bench say: every system against the vote at equal tokens, corrected.

One family of tests, corrected by Holm: each system on each task against the vote, and, where the
task has a verifier, each trained system against the best of N by that verifier, which needs no
training. A system that spends far more tokens than the budget is compared, and marked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from maporl_agents.studies.multiple_testing import holm
from maporl_agents.systems.catalogue import SYSTEMS
from maporl_agents.systems.equal_tokens import TOLERANCE
from maporl_agents.systems.jobs import BenchResult
from maporl_agents.systems.two_way_intervals import TwoWay, paired, two_way

LEVEL = 0.05
Found = Literal["ahead", "behind", "not shown", "not measured"]
Results = Mapping[str, Mapping[str, Sequence[BenchResult]]]
"""Results by task and system, one per seed."""


@dataclass(frozen=True)
class Row:
    """One system on one task.

    Attributes:
        system: its name.
        seeds: that were measured.
        accuracy: at the budget, over seeds and questions.
        tokens: per test question.
        passes: that were combined.
        train_tokens: mean over seeds.
        temperatures: that were chosen, by seed.
        dear: whether it spends more than the budget allows.
    """

    system: str
    seeds: tuple[int, ...]
    accuracy: TwoWay
    tokens: float
    passes: int
    train_tokens: float
    temperatures: tuple[float, ...]
    dear: bool


@dataclass(frozen=True)
class Comparison:
    """One test of the family.

    Attributes:
        task: on which.
        system: that is tested.
        against: the system it is tested against.
        difference: of accuracies on common seeds; None if there are none.
        p: corrected by Holm; None where there was no test.
        found: what it says at 5 %.
        dear: whether the system spends more than the budget.
    """

    task: str
    system: str
    against: str
    difference: TwoWay | None
    p: float | None
    found: Found
    dear: bool


def by_task(results: Sequence[BenchResult]) -> dict[str, dict[str, list[BenchResult]]]:
    """Return results by task and system, seeds ascending."""
    found: dict[str, dict[str, list[BenchResult]]] = {}
    for one in sorted(results, key=lambda result: result.seed):
        found.setdefault(one.task, {}).setdefault(one.system, []).append(one)
    return found


def at_budget(result: BenchResult) -> tuple[float, ...]:
    """Return the accuracy on each question of all passes together."""
    return result.right[-1]


def row_of(results: Sequence[BenchResult]) -> Row:
    """Return the row of a system on a task from its results, one per seed."""
    tokens = sum(one.tokens[-1] for one in results) / len(results)
    return Row(
        results[0].system,
        tuple(one.seed for one in results),
        two_way([at_budget(one) for one in results]),
        tokens,
        max(len(one.tokens) for one in results),
        sum(one.train_tokens for one in results) / len(results),
        tuple(one.temperature for one in results),
        tokens > TOLERANCE * results[0].budget,
    )


def rows_of(results: Mapping[str, Sequence[BenchResult]]) -> list[Row]:
    """Return the rows of a task, in the order of the catalogue."""
    return [row_of(results[name]) for name in SYSTEMS if results.get(name)]


def difference(first: Sequence[BenchResult], second: Sequence[BenchResult]) -> TwoWay | None:
    """Return the difference of two systems on the seeds that both have; None without any."""
    others = {one.seed: one for one in second}
    common = [(one, others[one.seed]) for one in first if one.seed in others]
    if not common:
        return None
    return paired([at_budget(one) for one, _ in common], [at_budget(other) for _, other in common])


def comparisons(results: Results) -> list[Comparison]:
    """Return the whole family of tests, with corrected p-values."""
    made = []
    for task, found in results.items():
        for name, system in SYSTEMS.items():
            against = [other for other in ("vote", "best_of_n") if other != name]
            for other in against:
                of_family = other == "vote" or system.trained
                if name != "one" and of_family and found.get(name) and found.get(other):
                    made.append((task, name, other, difference(found[name], found[other])))
    corrected = holm([None if one is None or len_of(one) < 2 else one.p for *_, one in made])
    return [
        Comparison(task, name, other, gap, p, judged(gap, p), row_of(results[task][name]).dear)
        for (task, name, other, gap), p in zip(made, corrected, strict=True)
    ]


def len_of(gap: TwoWay) -> int:
    """Return the number of seeds behind a difference; one seed is no test of a system."""
    return gap.seeds


def judged(gap: TwoWay | None, p: float | None) -> Found:
    """Return what a difference says."""
    if gap is None or p is None:
        return "not measured"
    if p >= LEVEL:
        return "not shown"
    return "ahead" if gap.mean > 0 else "behind"


def points_of(results: Sequence[BenchResult]) -> list[tuple[float, float]]:
    """Return (tokens per question, accuracy) of the first k = 1, 2, ... passes, mean over seeds."""
    count = min(len(one.tokens) for one in results)
    return [
        (
            sum(one.tokens[k] for one in results) / len(results),
            sum(sum(one.right[k]) / len(one.right[k]) for one in results) / len(results),
        )
        for k in range(count)
    ]


def front(points: Mapping[str, Sequence[tuple[float, float]]]) -> list[tuple[float, float, str]]:
    """Return the best choices: what no other choice beats at as few tokens or fewer."""
    every = sorted(
        ((tokens, accuracy, name) for name, own in points.items() for tokens, accuracy in own),
        key=lambda point: (point[0], -point[1]),
    )
    found: list[tuple[float, float, str]] = []
    for point in every:
        if not found or point[1] > found[-1][1]:
            found.append(point)
    return found
