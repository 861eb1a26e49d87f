"""MLPO's table: a leader trained among a frozen peer, and the controls that would expose it.

    .venv/bin/python -m benchmarks.systems.leader  # three seeds, about 3 processor minutes each
    .venv/bin/python -m benchmarks.systems.leader --table  # only print the table of finished runs

Every run is an ordinary ``maporl train --scheme mlpo``; a run that is finished is not repeated. The
trained leader is then asked again with its peers' answers taken from other questions, and once more
with peers that say nothing. Equal numbers of messages everywhere. Accuracy of the leader's answer
in turn 1 on held-out questions, sampled; median and range over seeds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
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
FILE = "leader.json"


class MutePeers(BatchedDebate):
    """Debates in which the messages of all agents but the last become empty."""

    def step(self, texts: Sequence[str], cut: Sequence[bool] | None = None) -> list[bool]:
        """Post the leader's texts as they are, and nothing for its peers."""
        leader = len(self.agents) - 1
        return super().step(
            [
                text if prompt.agent_index == leader else ""
                for prompt, text in zip(self.prompts(), texts, strict=True)
            ]
        )


WAYS: dict[str, Callable[..., BatchedDebate]] = {
    "its peer": BatchedDebate,
    "peer of another question": SwappedPeers,
    "a peer that says nothing": MutePeers,
}


def folder(runs: Path, seed: int) -> Path:
    """Return the run folder of a seed."""
    return runs / f"leader-{seed}"


def train(runs: Path, seed: int) -> None:
    """Run one training unless its results are there."""
    target = folder(runs, seed)
    if (target / "results.json").exists():
        return
    words = ["--scheme", "mlpo", "--runs", str(runs), "--name", target.name, "--seed", str(seed)]
    words += ["--eval.questions", "100", "--eval.use", "last", "--eval.no-greedy", "--overwrite"]
    subprocess.run([sys.executable, "-m", "maporl_agents.cli", "train", *words], check=True)


def accuracy(config: RunConfig, team: Team, way: Callable[..., BatchedDebate]) -> float:
    """Return the accuracy of the leader in turn 1 on held-out questions."""
    game = make_game(config.game)
    debates = way(game.debates(1, num_turns=1).game, QUESTIONS)
    questions = game.questions(config.eval.split)[:QUESTIONS]
    result = evaluate(team, debates, questions, config.sampling, seed=config.eval.seed)
    return result.turns[0].accuracy[-1]


def measure(runs: Path, seed: int) -> dict[str, float]:
    """Return the accuracies of a run, measured once."""
    kept = folder(runs, seed) / FILE
    if not kept.exists():
        config, team = load_team(folder(runs, seed), "last")
        untrained, _ = build(config, kept=config)
        found = {f"trained, {name}": accuracy(config, team, way) for name, way in WAYS.items()}
        found = {"untrained, its peer": accuracy(config, untrained, BatchedDebate)} | found
        kept.write_text(json.dumps(found))
    told: dict[str, float] = json.loads(kept.read_text())
    return told


def table(runs: Path) -> str:
    """Return the Markdown table."""
    each = [measure(runs, seed) for seed in SEEDS]
    rows = ["| leader | accuracy in turn 1 |", "|---|---|"]
    for name in each[0]:
        values = [one[name] for one in each]
        rows.append(f"| {name} | {spread(values)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main(__doc__, SEEDS, QUESTIONS, train, table)
