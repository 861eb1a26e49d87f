"""MALT on the built-in task, against what it has to beat at as many generations.

    python benchmarks/malt.py [--seeds 0 1 2] [--arms malt star ...] [--trees 58] [--rounds 4]

Every arm samples as many generations per question in training (39 where it trains) and nine per
question at test time: three passes of three roles, or nine answers of one agent, which then vote.
Prints one line per arm and seed: accuracy of a single pass, and of the vote.
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
from maporl_agents.config import MALTConfig
from maporl_agents.games import debates_of, questions_of
from maporl_agents.passes import vote_of_passes
from maporl_agents.runlog import RunLog, read_metrics
from maporl_agents.scheme_studies import single, star

Arm = Callable[[MALTConfig], MALTConfig]


def untrained(config: MALTConfig, passes: int) -> MALTConfig:
    """Train nothing."""
    return replace(config, steps=0, eval=replace(config.eval, passes=passes))


def alone(config: MALTConfig) -> MALTConfig:
    """One agent that answers alone, and whose nine answers vote."""
    return replace(single(config), eval=replace(config.eval, passes=9))


ARMS: dict[str, Arm] = {
    "untrained single": lambda config: untrained(alone(config), 9),
    "untrained pipeline": lambda config: untrained(config, 3),
    "single": alone,
    "star": star,
    "sft": lambda c: replace(c, malt=replace(c.malt, prefer=())),
    "malt": lambda config: config,
    "generator dpo": lambda c: replace(c, malt=replace(c.malt, prefer=c.malt.roles)),
    "soft labels": lambda c: replace(c, malt=replace(c.malt, labels="soft")),
    "generator untrained": lambda c: replace(c, team=replace(c.team, train_agents=(1, 2))),
    "verifier untrained": lambda c: replace(c, team=replace(c.team, train_agents=(0, 2))),
    "refiner untrained": lambda c: replace(c, team=replace(c.team, train_agents=(0, 1))),
}


def run(config: MALTConfig, folder: Path) -> dict[str, float]:
    """Train by a configuration and measure the team."""
    begin = time.process_time()
    team, learner = experiment.build(config)
    with RunLog.create(folder, config) as log:
        if config.steps:
            experiment.train(config, learner, questions_of(config.game, "train"), log)
    held = experiment.held_out(config)
    result = vote_of_passes(
        team,
        debates_of(config.game, experiment.EVAL_BATCH),
        held,
        config.sampling,
        passes=config.eval.passes,
        seed=config.eval.seed,
    )
    [turn] = result.turns
    sampled = sum(row.get("answers", 0) for row in read_metrics(folder)) if config.steps else 0
    return {
        "pass": turn.mean_accuracy,
        "vote": turn.vote,
        "generations": sampled,
        "test tokens": result.num_tokens / len(held),
        "CPU-seconds": time.process_time() - begin,
    }


def main() -> None:
    """Run arms by seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--arms",
        nargs="+",
        default=["untrained single", "untrained pipeline", "single", "star", "malt"],
        choices=list(ARMS),
    )
    parser.add_argument("--trees", type=int, default=MALTConfig().questions_per_step)
    parser.add_argument("--rounds", type=int, default=MALTConfig().steps // 3)
    parser.add_argument("--questions", type=int, default=500)
    given = parser.parse_args()
    for seed in given.seeds:
        for name in given.arms:
            base = MALTConfig(seed=seed, steps=3 * given.rounds, questions_per_step=given.trees)
            base = replace(base, eval=replace(base.eval, questions=given.questions))
            config = ARMS[name](base)
            with tempfile.TemporaryDirectory() as folder:
                result = run(config, Path(folder) / "run")
            shown = {key: round(value, 3) for key, value in result.items()}
            print(json.dumps({"arm": name, "seed": seed, **shown}), flush=True)


if __name__ == "__main__":
    main()
