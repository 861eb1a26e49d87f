"""ReAd's table: random proposals that a critic sends back, and the controls that would expose it.

    .venv/bin/python -m benchmarks.systems.revision matrix  # seconds: a game worked out by hand
    .venv/bin/python -m benchmarks.systems.revision boxes  # three seeds, half a minute each
    .venv/bin/python -m benchmarks.systems.revision overcooked  # needs the extra overcooked

mu takes legal actions at random; in the kitchen, half of its actions are those of a simple script
(`compared.chef`), since a random cook never serves a soup; in the matrix game it has chances of its
own. A critic is regressed on its episodes; alpha is chosen on validation games; then games of other
seeds are played: by mu alone; by ReAd-S and ReAd-J, whose proposals are mu's own; by both with a
critic whose scores are shuffled, each being that of another turn of mu's episodes; and by mu asked
as often as ReAd-S was, one proposal of an action drawn at random. Median and range over seeds.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.compared.chef import wanted
from benchmarks.compared.over_seeds import keep, spread
from benchmarks.systems.matrix_game import CHANCES, MatrixGame
from maporl_agents.revision.subset_network import Features, Regression, SubsetNetwork, fit
from maporl_agents.seeding import seed_of
from maporl_env.games.boxes_v0 import parallel_env as boxes
from maporl_env.revision.features import one_hot
from maporl_env.revision.revise import Threshold, Try
from maporl_env.revision.teams import Alone, Episode, InOrder, Jointly, Situation, Team, play
from maporl_env.revision.values import SubsetCritic

SEEDS = (0, 1, 2)
SCRIPTED = 0.5
"""Share of the cooks' actions that are those of the script."""


class Effort(NamedTuple):
    """How much is played and learnt.

    Attributes:
        collected: games of mu that the critic learns from.
        epochs: of the regression.
        validated: games for each alpha.
        played: games of each row of the table.
    """

    collected: int
    epochs: int
    validated: int
    played: int


@dataclass(frozen=True)
class Task:
    """What is played, and with what effort.

    Attributes:
        make: makes the environment.
        state: what the critic reads of the environment.
        success: share of what there was to do, from the environment and an episode.
        gamma: discount of a turn.
        effort: how much is played and learnt.
        alphas: one of which is chosen on validation games.
    """

    make: Callable[[], Any]
    state: Callable[[Any], Any]
    success: Callable[[Any, Episode], float]
    gamma: float
    effort: Effort
    alphas: tuple[float, ...]


def overcooked() -> Any:
    from maporl_env.bridges.overcooked import OvercookedGame

    return OvercookedGame("cramped_room", horizon=200)


KITCHEN = Task(
    make=overcooked,
    state=lambda env: env.state(),
    success=lambda env, episode: float(env.soups),
    gamma=0.95,
    effort=Effort(collected=200, epochs=4, validated=4, played=10),
    alphas=(0.0, 0.1, 0.5),
)
TASKS = {
    "matrix": Task(
        make=MatrixGame,
        state=lambda env: env.state(),
        success=lambda env, episode: episode.total / env.best,
        gamma=1.0,
        effort=Effort(collected=2_000, epochs=60, validated=100, played=400),
        alphas=(0.0, 0.2, 1.0),
    ),
    "boxes": Task(
        make=boxes,
        gamma=0.9,
        state=lambda env: env.state(),
        success=lambda env, episode: episode.total / env.number,
        effort=Effort(collected=600, epochs=6, validated=20, played=50),
        alphas=(0.0, 0.05, 0.2),
    ),
    "overcooked": KITCHEN,
    "overcooked-more": replace(
        KITCHEN,
        state=lambda env: env.state()[:-1],  # without the time
        gamma=0.9,
        effort=KITCHEN.effort._replace(collected=600, epochs=3),
    ),
}


class Mu:
    """Legal actions at random, in the kitchen half of them by a script."""

    def __init__(self, env: Any, seed: int) -> None:
        self.env, self.noise = env, np.random.default_rng(seed)

    def __call__(self, situation: Situation) -> int:
        return self.drawn(situation.agent, situation.observation, situation.fixed)

    def drawn(self, agent: str, seen: Any, fixed: tuple[Any, ...]) -> int:
        if isinstance(self.env, MatrixGame):
            return int(self.noise.choice(2, p=CHANCES[fixed]))
        if hasattr(self.env, "kitchen") and self.noise.random() < SCRIPTED:
            return wanted(self.env, self.env.possible_agents.index(agent))
        legal = (
            np.flatnonzero(seen["action_mask"])
            if isinstance(seen, Mapping)
            else np.arange(self.env.action_space(agent).n)
        )
        return int(self.noise.choice(legal))

    def plan(self, observations: Mapping[str, Any], tries: Sequence[Try]) -> dict[str, int]:
        found: dict[str, int] = {}
        for agent, seen in observations.items():
            found[agent] = self.drawn(agent, seen, tuple(found.values()))
        return found


class Shuffled(SubsetCritic):
    """A critic that gives the score of another turn: same scores, nothing in them."""

    def __init__(self, critic: SubsetCritic, episodes: Sequence[Episode], seed: int) -> None:
        self.critic, self.noise = critic, np.random.default_rng(seed)
        self.steps = [step for episode in episodes for step in episode.steps]

    def q(self, state: Any, actions: Sequence[Any] = ()) -> float | None:
        step = self.steps[int(self.noise.integers(len(self.steps)))]
        return self.critic.q(step.state, step.actions[: len(actions)])

    def _difference(self, state: Any, actions: Sequence[Any], fewer: Sequence[Any]) -> float | None:
        step = self.steps[int(self.noise.integers(len(self.steps)))]
        there = step.actions[: len(actions)]
        return self.critic._difference(step.state, there, there[: len(fewer)])


def learnt(task: Task, seed: int) -> tuple[SubsetNetwork, list[Episode]]:
    """Return a critic and the episodes of mu that it was regressed on."""
    env = task.make()
    alone = Alone(Mu(env, seed_of(seed, "mu")))
    episodes = [
        play(env, alone, task.state, seed=seed_of(seed, "collect", n))
        for n in range(task.effort.collected)
    ]
    count = int(env.action_space(env.possible_agents[0]).n)
    features = Features(
        len(env.possible_agents), lambda state: state, len(task.state(env)), one_hot(count), count
    )
    critic = SubsetNetwork(features, seed=seed)
    how = Regression(task.gamma, task.effort.epochs, batch_size=256, learning_rate=2e-3, seed=seed)
    errors = fit(critic, [episode.steps for episode in episodes], how)
    print(f"seed {seed}: error of the returns {errors[0]:.3f} -> {errors[-1]:.3f}", flush=True)
    return critic, episodes


Row = dict[str, float]


def measured(task: Task, made: Callable[[Any, Mu], Team], seed: int, games: int, split: str) -> Row:
    """Return the mean success, return, and proposals per turn of a team."""
    env = task.make()
    team = made(env, Mu(env, seed_of(seed, "play", split)))
    rows = []
    for game in range(games):
        episode = play(env, team, task.state, seed=seed_of(seed, split, game))
        turns = len(episode.steps)
        rows.append((task.success(env, episode), episode.total, episode.proposals / turns))
    return dict(
        zip(("success", "return", "proposals"), np.mean(rows, axis=0).tolist(), strict=True)
    )


def teams(critic: SubsetCritic, alpha: float) -> dict[str, Callable[[Any, Mu], Team]]:
    threshold = Threshold(alpha)
    return {
        "ReAd-S": lambda env, mu: InOrder(mu, critic, threshold, mu),
        "ReAd-J": lambda env, mu: Jointly(mu.plan, critic, threshold, mu),
    }


def asked_often(times: float) -> Callable[[Any, Mu], Team]:
    """Mu asked that often for each action on average, one of its proposals drawn at random."""

    def made(env: Any, mu: Mu) -> Team:
        def propose(situation: Situation) -> int:
            count = int(times) + (mu.noise.random() < times % 1)
            proposals = [mu(situation) for _ in range(max(count, 1))]
            return proposals[int(mu.noise.integers(len(proposals)))]

        return Alone(propose)

    return made


def run(task: Task, seed: int) -> dict[str, Row]:
    """Return the table of one seed."""
    critic, episodes = learnt(task, seed)
    wrong = Shuffled(critic, episodes, seed_of(seed, "shuffled"))
    effort = task.effort
    found = {"mu alone": measured(task, lambda env, mu: Alone(mu), seed, effort.played, "test")}
    for name in ("ReAd-S", "ReAd-J"):
        tried = {
            alpha: measured(task, teams(critic, alpha)[name], seed, effort.validated, "validation")[
                "return"
            ]
            for alpha in task.alphas
        }
        alpha = max(tried, key=lambda each: tried[each])
        for title, judge in ((name, critic), (f"{name}, scores shuffled", wrong)):
            found[title] = measured(task, teams(judge, alpha)[name], seed, effort.played, "test")
            found[title]["alpha"] = alpha
    times = found["ReAd-S"]["proposals"]
    per_action = times / len(task.make().possible_agents)
    again = measured(task, asked_often(per_action), seed, effort.played, "test")
    found["mu asked as often, one proposal at random"] = again | {"proposals": times}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--json", type=Path, help="where figures are written, too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    start, each = time.process_time(), []
    for seed in args.seeds:
        each.append(run(TASKS[args.task], seed))
        print(json.dumps(each[-1]), flush=True)
    print("\n| who acts | success | return | proposals per turn |\n|---|---|---|---|")
    for name in each[0]:
        cells = [spread([one[name][key] for one in each]) for key in each[0]["mu alone"]]
        print(f"| {name} | {' | '.join(cells)} |")
    print(
        f"\nMedian [range] over seeds {args.seeds}, {TASKS[args.task].effort.played} games a row; "
        f"{platform.machine()}, one thread, {time.process_time() - start:.0f} CPU-s in all."
    )
    keep(each, args.json)


if __name__ == "__main__":
    main()
