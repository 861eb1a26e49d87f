"""MAGRPO on the built-in joint task, and its relatives, on as many generated answers.

    python benchmarks/magrpo.py [--seeds 0 1 2] [--arms magrpo crossed iac] [--steps 50]

Two clerks write the same bill unseen by each other and are paid where their lines agree; no answer
key is paid. Prints one line per arm and seed: on all 288 held-out questions, before and after
training, the share of right bills (by the key) and the share of lines that agree (what is paid).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from maporl_agents import experiment
from maporl_agents.config import IACConfig, MAGRPOConfig, RunConfig, Sampling
from maporl_agents.evaluate import evaluate
from maporl_agents.games import debates_of, questions_of
from maporl_agents.runlog import RunLog, read_metrics
from maporl_agents.team import Team

USUAL = MAGRPOConfig()


def with_settings(**settings: object) -> MAGRPOConfig:
    """Return a run of MAGRPO with other settings of the algorithm."""
    return replace(USUAL, magrpo=replace(USUAL.magrpo, **settings))  # type: ignore[arg-type]


ARMS: dict[str, Callable[[], RunConfig]] = {
    "magrpo": lambda: USUAL,
    "crossed": lambda: with_settings(joining="cross"),
    "leave one out": lambda: with_settings(comparison="leave_one_out"),
    "standardised": lambda: with_settings(comparison="standardised"),
    "raw": lambda: with_settings(comparison="raw"),
    "iac": IACConfig,
}


def right_and_agreed(team: Team) -> tuple[float, float]:
    """Return the share of right bills and of lines that agree, on the held-out questions."""
    questions = questions_of(USUAL.game, "test")
    game = debates_of(USUAL.game, len(questions))
    result = evaluate(team, game, questions, Sampling(), seed=1)
    scores = [debate.messages[0].score or 0.0 for debate in result.transcripts]
    return result.turns[0].mean_accuracy, sum(scores) / len(scores)


def run(config: RunConfig, folder: Path) -> dict[str, float]:
    """Train by a configuration; return what was measured before and after."""
    begin = time.process_time()
    team, learner = experiment.build(config)
    before = right_and_agreed(team)
    with RunLog.create(folder, config) as log:
        experiment.train(config, learner, questions_of(config.game, "train"), log)
    after = right_and_agreed(team)
    rows = read_metrics(folder)
    return {
        "right, before": before[0],
        "right, after": after[0],
        "agreed, before": before[1],
        "agreed, after": after[1],
        "answers": sum(row["answers"] for row in rows),
        "tokens": sum(row["tokens"] for row in rows),
        "CPU-seconds": time.process_time() - begin,
    }


def main() -> None:
    """Run arms by seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=["magrpo", "iac"], choices=list(ARMS))
    parser.add_argument("--steps", type=int, default=USUAL.steps)
    given = parser.parse_args()
    for seed in given.seeds:
        for name in given.arms:
            config = replace(ARMS[name](), seed=seed, steps=given.steps)
            with tempfile.TemporaryDirectory() as folder:
                result = run(config, Path(folder) / "run")
            shown = {key: round(value, 3) for key, value in result.items()}
            print(json.dumps({"arm": name, "seed": seed, **shown}), flush=True)


if __name__ == "__main__":
    main()
