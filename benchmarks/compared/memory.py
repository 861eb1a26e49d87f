"""Peak memory of a step in fresh processes, as agents, turns, debates and words grow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from compared.games import Work, settings
from compared.material import SHAPES, save_model
from compared.turns import ours

USUAL = {"agents": 2, "turns": 3, "debates": 16, "words": 8192}
GROWN = {
    "agents": (1, 2, 4, 8),
    "turns": (1, 2, 4, 6),
    "debates": (8, 32, 128),
    "words": (8192, 32_768, 152_064),
}
MIB = 2**20


@dataclass(frozen=True)
class Point:
    """A measured size.

    Attributes:
        name: what was grown.
        value: to what.
        growth: bytes, the peak of two steps over what was resident when the team was built.
        own: bytes of trained weights, their gradients and the optimiser's moments.
        planned: bytes that `maporl plan` expects on top of the models; None where it does not say.
    """

    name: str
    value: int
    growth: int
    own: int
    planned: float | None = None


GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""Lets GNU's malloc give freed blocks back: what it keeps between them differs by tens of MiB from
process to process, more than the state of several agents."""


def growth_of(work: Work, steps: int = 2, **variables: str) -> tuple[int, int]:
    """Return the growth of a fresh process over some steps, and the bytes of its own state."""
    process = ours(asdict(work), **variables)
    try:
        for _ in range(steps):
            _, growth = process.iterate()
    finally:
        process.close()
    return growth, process.about["own_bytes"]


def by_agents(model: Path, rows: int = 24) -> list[Point]:
    """G3: the same messages shared among more and more agents, freed blocks given back."""
    works = [Work("ppo", str(model), agents=agents, rows=rows) for agents in GROWN["agents"]]
    return [Point("agents", work.agents, *growth_of(work, **GIVEN_BACK)) for work in works]


def by_everything(folder: Path) -> Iterator[Point]:
    """G12: one size grown at a time, beside what is planned."""
    for name, values in GROWN.items():
        for value in values:
            size = USUAL | {name: value}
            model = folder / f"words-{size['words']}"
            if not model.exists():
                save_model(model, replace(SHAPES["tiny"], words=size["words"]))
            work = Work(
                "ppo",
                str(model),
                agents=size["agents"],
                rows=size["agents"] * size["debates"],
                turns=size["turns"],
                prompt=100,
                tokens=32,
                epochs=1,
                minibatches=4,
                warm=True,
            )
            yield Point(name, value, *growth_of(work), planned_bytes(work))


def planned_bytes(work: Work) -> float:
    """Return the bytes that a plan adds to the models: moments, experience, the highest phase."""
    from maporl_agents.planning.machine import Machine
    from maporl_agents.planning.plan import plan_of

    machine = Machine("any", 2.0**40, 1.0, 1.0, 1.0, False)
    with TemporaryDirectory() as place:
        plan = plan_of(settings(work, Path(place)), machine)
    there = ("base models, frozen", "trained policies", "critics")
    held = sum(size for part, size in plan.held.items() if part not in there)
    return held + max(size for phase, size in plan.phases.items() if phase != "evaluation")
