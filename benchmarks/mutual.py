"""A language model and an agent without language teach each other: chain, and BabyAI's red ball.

    .venv/bin/python benchmarks/mutual.py                     # the chain, three seeds
    .venv/bin/python benchmarks/mutual.py --world red_ball    # minigrid; extra `mutual`

Eight runs per seed: both learn; likewise, with a student that learns from the first hints on, or
judged by a critic that reads hints, or both; the teacher's hints dealt out to other episodes; no
hints; the teacher frozen; the student frozen after its grounding. Means over the last ten segments;
median and range over seeds. A finished run is not repeated.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from compared.over_seeds import spread

from maporl_agents.mutual.teaching import Settings, run

ARMS: dict[str, dict[str, Any]] = {
    "both learn": {},
    "likewise, the student does not listen first": {"listening": 0},
    "likewise, the critic reads hints": {"critic_reads_hints": True},
    "both, without either": {"listening": 0, "critic_reads_hints": True},
    "hints shuffled": {"hints": "shuffled"},
    "no hints": {"hints": "none"},
    "teacher frozen": {"freeze_teacher": True},
    "student frozen": {"freeze_student": True},
}
WORLDS: dict[str, dict[str, Any]] = {
    "chain": {},
    "red_ball": {"world": "red_ball", "segments": 70, "steps": 16, "grounding": 25},
}
LAST = 10
COLUMNS = {"right": "hint right", "return": "return under a hint", "unhinted": "return without"}


def settings(world: str, arm: str, seed: int) -> Settings:
    """Return the settings of one run."""
    return Settings(**{**WORLDS[world], **ARMS[arm], "seed": seed})


def figures(runs: Path, world: str, arm: str, seed: int) -> dict[str, float]:
    """Return the means of a run over its last segments; carry the run out unless it is there."""
    name = f"mutual-{world}-{arm.replace(' ', '-').replace(',', '')}-{seed}"
    began = time.process_time()
    rows = run(settings(world, arm, seed), runs / name)
    if (spent := time.process_time() - began) > 1:
        print(f"{name}: {spent:.0f} CPU-s", flush=True)
    names = (*COLUMNS, "moved")
    return {one: mean([row[one] for row in rows[-LAST:]]) for one in names}


def mean(values: list[float]) -> float:
    """Return the mean of the numbers among some values; nan without any."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def table(runs: Path, world: str, arms: list[str], seeds: list[int]) -> str:
    """Return the Markdown table."""
    head = [*COLUMNS.values(), "policy moved by shuffling"]
    rows = [f"| {world} | {' | '.join(head)} |", "|---|" + "---|" * len(head)]
    for arm in arms:
        each = [figures(runs, world, arm, seed) for seed in seeds]
        cells = [_cell([one[name] for one in each]) for name in (*COLUMNS, "moved")]
        rows.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(values: list[float]) -> str:
    return "-" if np.isnan(values).any() else spread(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs")
    parser.add_argument("--world", choices=tuple(WORLDS), default="chain")
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args()
    print(table(args.runs, args.world, args.arms, args.seeds))


if __name__ == "__main__":
    main()
