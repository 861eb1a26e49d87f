"""What one step of lag does to learning: the same trainings with and without it, three seeds.

    .venv/bin/python benchmarks/served_lag.py                    # 6 trainings of the tiny model
    .venv/bin/python benchmarks/served_lag.py --steps 20 --seeds 0

The servers are in this process: a second copy of the team that is sent the weights when they are
published, and speaks in the background while the first learns, as `training.ahead` lets servers do.
Texts, weights and importance weights are those of a run with servers of vLLM's API; the times are
not. Prints the score of the last turn over the run, the share of capped tokens and the KL to the
reference, by lag and seed.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from maporl_agents.config import EvalConfig, GameConfig, PPOConfig, Sampling, TrainConfig
from maporl_agents.models.team import Team
from maporl_agents.play.local_engine import complete
from maporl_agents.records.run_log import RunLog, read_metrics
from maporl_agents.training import experiment
from maporl_agents.training.make_game import training_questions
from maporl_agents.types import Completion, Request


@dataclass(frozen=True)
class Copied:
    """An engine that speaks with a copy of a team's weights."""

    own: Team

    def __call__(
        self, team: Team, asked: Sequence[Request], sampling: Sampling, seed: int
    ) -> list[Completion]:
        bare = [replace(one, critic=None) for one in asked]
        return [replace(one, served=True) for one in complete(self.own, bare, sampling, seed)]


class Copies:
    """Servers in this process: `speak.Publishing` by a second team."""

    def __init__(self, team: Team) -> None:
        self.team = team
        self.copy = copy.deepcopy(team)

    def pinned(self) -> Copied:
        """Copy the weights of now; nothing is played while this is called."""
        with torch.no_grad():
            for policy, named in self.team.trainable().items():
                for name, own in self.copy.trainable()[policy].items():
                    own.copy_(named[name])
        self.copy.refresh()
        return Copied(self.copy)

    def check(self) -> None:
        """There is nothing to doubt."""


def train(
    seed: int, lag: int, steps: int, questions: int, rate: float, folder: Path
) -> list[dict[str, Any]]:
    """Train once; return the metrics of every step."""
    config = TrainConfig(
        name=f"lag-{lag}-{seed}",
        seed=seed,
        steps=steps,
        questions_per_step=questions,
        checkpoint_every=steps,
        game=GameConfig(num_agents=2, num_turns=2),
        sampling=Sampling(lag=lag),
        ppo=PPOConfig(learning_rate=rate),
        eval=EvalConfig(questions=1),
    )
    team, learner = experiment.build(config, kept=config)
    team.engine = Copies(team)  # type: ignore[assignment]
    with RunLog.create(folder / config.name, config) as log:
        experiment.train(config, learner, training_questions(config.game), log)
    return read_metrics(folder / config.name)


def line_of(lag: int, seed: int, metrics: Sequence[dict[str, Any]]) -> str:
    """Return the figures of a training as a row of a table."""
    third = max(1, len(metrics) // 3)
    parts = [metrics[i * third : (i + 1) * third] for i in range(3)]
    scores = " | ".join(f"{fmean(one['score/turn_2'] for one in part):.3f}" for part in parts)
    last = parts[-1]
    capped = fmean(one["importance_capped"] for one in metrics)
    kl = fmean(one["kl"] for one in last)
    best = max(one["score/turn_2"] for one in metrics)
    return f"| {lag} | {seed} | {scores} | {best:.3f} | {kl:.3f} | {capped:.2%} |"


def main() -> None:
    """Train and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{args.steps} steps of {args.questions} questions; score of turn 2 by thirds of the run")
    print("| lag | seed | first | second | last | best step | KL, last | capped |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds:
            for lag in (0, 1):
                found = train(seed, lag, args.steps, args.questions, args.rate, Path(folder))
                print(line_of(lag, seed, found), flush=True)


if __name__ == "__main__":
    main()
