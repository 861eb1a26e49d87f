"""Corex's review, trained: agent 0 writes, agent 1 revises; the control reads another question.

    .venv/bin/python -m benchmarks.systems.review  # three seeds, a processor minute each
    .venv/bin/python -m benchmarks.systems.review --table  # only print the table of finished runs

Every run is an ordinary ``maporl train --game.protocol review``, by PPO; a run that is finished is
not repeated. The trained team is then asked again with the text that is revised taken from another
question. Equal numbers of messages everywhere. Accuracy of the first and of the last version on
held-out questions, sampled; median and range over seeds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.compared.over_seeds import main, spread
from maporl_agents.config import RunConfig
from maporl_agents.measure.evaluate import evaluate
from maporl_agents.models.team import Team
from maporl_agents.studies.controls import SwappedPeers
from maporl_agents.training.experiment import build, load_team
from maporl_agents.training.make_game import make_game
from maporl_env.batched import BatchedDebate

SEEDS = (0, 1, 2)
QUESTIONS = 200
FILE = "review.json"
FLAGS = ["--game.protocol", "review", "--game.num-turns", "1", "--steps", "30"]


def folder(runs: Path, seed: int) -> Path:
    """Return the run folder of a seed."""
    return runs / f"review-{seed}"


def train(runs: Path, seed: int) -> None:
    """Run one training unless its results are there."""
    target = folder(runs, seed)
    if (target / "results.json").exists():
        return
    words = [*FLAGS, "--runs", str(runs), "--name", target.name, "--seed", str(seed), "--overwrite"]
    words += ["--eval.questions", "100", "--eval.use", "last", "--eval.no-greedy"]
    subprocess.run([sys.executable, "-m", "maporl_agents.cli", "train", *words], check=True)


def accuracies(
    config: RunConfig, team: Team, way: Callable[..., BatchedDebate]
) -> tuple[float, float]:
    """Return the accuracy of the first and of the last version on held-out questions."""
    game = make_game(config.game)
    debates = way(game.debates(1).game, QUESTIONS)
    questions = game.questions(config.eval.split)[:QUESTIONS]
    result = evaluate(team, debates, questions, config.sampling, seed=config.eval.seed)
    first, *_, last = result.turns[0].accuracy
    return first, last


def measure(runs: Path, seed: int) -> dict[str, tuple[float, float]]:
    """Return the accuracies of a run, measured once."""
    kept = folder(runs, seed) / FILE
    if not kept.exists():
        config, team = load_team(folder(runs, seed), "last")
        untrained, _ = build(config, kept=config)
        found = {
            "untrained": accuracies(config, untrained, BatchedDebate),
            "trained": accuracies(config, team, BatchedDebate),
            "trained, revising the text of another question": accuracies(
                config, team, SwappedPeers
            ),
        }
        kept.write_text(json.dumps(found))
    told: dict[str, tuple[float, float]] = json.loads(kept.read_text())
    return told


def table(runs: Path) -> str:
    """Return the Markdown table."""
    each = [measure(runs, seed) for seed in SEEDS]
    rows = ["| team | first version | last version |", "|---|---|---|"]
    for name in each[0]:
        cells = [spread([one[name][place] for one in each]) for place in range(2)]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main(__doc__, SEEDS, QUESTIONS, train, table)
