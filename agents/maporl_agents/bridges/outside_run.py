"""``maporl train --game.env``: a run in an environment that others wrote, with a policy per agent.

The run folder is that of any run (settings, metrics, checkpoints), with ``returns.json`` in place
of ``results.json``: each agent's mean return over held-out games, before and after training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from rich.console import Console

from maporl_agents.algorithms import scheme_for
from maporl_agents.bridges.outside import OutsideGames
from maporl_agents.config import RunConfig, Sampling, scheme_of
from maporl_agents.models.loading import make_team
from maporl_agents.models.team import Team
from maporl_agents.play.rollout import play
from maporl_agents.records.run_log import RunLog
from maporl_agents.records.storage import save_json
from maporl_agents.seeding import seed_of
from maporl_agents.training import loop
from maporl_agents.training.progress import progress_bar
from maporl_agents.training.run_kind import RunKind
from maporl_agents.update.optimiser import PolicyLearner
from maporl_env.bridges.textarena import PREFIX, env_maker
from maporl_env.types import Question
from maporl_env.user_functions import whole_name

SCHEMES = ("maporl", "grpo")
"""Schemes that learn from single games. With "grpo" a group is games from one seed."""
READ = ("env", "num_agents", "num_turns", "gamma")
"""Settings of the game that such a run reads."""
TRAINING_GAMES = 100_000
FILE = "returns.json"


@dataclass(frozen=True)
class Returns:
    """The returns of a team in a number of games.

    Attributes:
        mean: of each agent.
        interval: half width of its 95 % interval over games.
        num_games: how many were played.
        messages: mean number of messages of a game.
    """

    mean: tuple[float, ...]
    interval: tuple[float, ...]
    num_games: int
    messages: float

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __str__(self) -> str:
        figures = zip(self.mean, self.interval, strict=True)
        each = ", ".join(f"{mean:.3f} ± {half:.3f}" for mean, half in figures)
        return f"{each} ({self.num_games} games)"


def games_of_step(config: RunConfig) -> int:
    """Return how many games a step plays, here and in self-play."""
    settings = getattr(config, "grpo", None)
    return config.questions_per_step * (settings.group_size if settings else 1)


def make_games(config: RunConfig, batch_size: int) -> OutsideGames:
    """Return copies of the environment of a run.

    Raises:
        ValueError: a scheme or settings that it cannot use, or another number of agents.
    """
    scheme, game = scheme_of(config), config.game
    if scheme not in SCHEMES:
        raise ValueError(
            f"game.env learns by {' or '.join(SCHEMES)}, from single games, and scheme {scheme} "
            "from joint answers, trees or roles: choose another --scheme"
        )
    settings = getattr(config, "grpo", None)
    if settings and settings.chosen().baseline == "greedy":
        raise ValueError(
            "a greedy game is no baseline in game.env, as it may end before the game that it is "
            "compared with: choose another --grpo.variant"
        )
    usual = type(game)()
    for field in fields(game):
        if field.name not in READ and getattr(game, field.name) != getattr(usual, field.name):
            raise ValueError(
                f"game.{field.name} would do nothing: the environment {game.env} has its own rules"
            )
    games = OutsideGames(env_maker(game.env), batch_size, game.num_turns, gamma=game.gamma)
    if len(games.agents) != game.num_agents:
        raise ValueError(
            f"{game.env} has {len(games.agents)} agents ({', '.join(games.agents)}): set "
            f"game.num_agents to {len(games.agents)}"
        )
    return games


def _with_whole_name(config: RunConfig) -> RunConfig:
    """Return settings whose environment is found from any folder."""
    game = config.game
    if game.env.startswith(f"{PREFIX}:"):
        return config
    return replace(config, game=replace(game, env=whole_name(game.env)))


def _finish(
    config: RunConfig, learner: PolicyLearner, log: RunLog, console: Console, start: int
) -> dict[str, Any]:
    """Measure, train, measure: what a fresh and a resumed run share; returns `FILE`'s content."""
    untrained = make_learner(config).team if start else learner.team
    before = measure_returns(config, untrained)
    console.print(f"returns before training: {before}")
    games = make_games(config, games_of_step(config))
    questions = games.draw(TRAINING_GAMES, seed=seed_of(config.seed, "games") % 2**31)
    with progress_bar(config, console, start) as (on_step, _):
        loop.train(config, learner, games, questions, log, start=start, on_step=on_step)
    after = measure_returns(config, learner.team)
    stages = {"env": config.game.env, "before": before.to_dict(), "after": after.to_dict()}
    save_json(log.folder / FILE, stages)
    console.print(f"returns after training:  {after}")
    console.print(f"\nrun folder: {log.folder}")
    return stages


def make_learner(config: RunConfig, _kept: RunConfig | None = None) -> PolicyLearner:
    """Return a fresh team, a policy per agent unless `team.sharing` says otherwise, to train.

    Raises:
        ValueError: settings that make no such run.
    """
    if config.team.partners:
        raise ValueError(
            "team.partners speak in debates, and game.env is played by models alone: leave it out"
        )
    make_games(config, 1)
    scheme = scheme_for(config)
    team = make_team(
        config.team,
        num_agents=config.game.num_agents,
        num_turns=config.game.num_turns,
        seed=seed_of(config.seed, "team"),
        critics=scheme.critics,
    )
    return scheme.learner(config, team)


def measure_returns(config: RunConfig, team: Team) -> Returns:
    """Play `eval.questions` held-out games, sampled; their seeds are apart from training's."""
    count = config.eval.questions
    games = make_games(config, min(count, config.questions_per_step))
    held = held_out_games(games, count, config.eval.seed)
    return returns_of(team, games, held, config.sampling, seed=config.eval.seed)


def held_out_games(games: OutsideGames, count: int, seed: int) -> list[Question]:
    """Return games by seeds that training does not draw: training's are below 2**31."""
    return [
        Question(f"held-out/{one.answer}", "", str(2**31 + int(one.answer)), one.kind)
        for one in games.draw(count, seed=seed)
    ]


def returns_of(
    team: Team, games: OutsideGames, held: Sequence[Question], sampling: Sampling, *, seed: int
) -> Returns:
    """Return what each agent was paid in games that a team plays, without any discount."""
    paid, messages = [], 0
    for first in range(0, len(held), len(games.games)):
        part = held[first : first + len(games.games)]
        rollouts = play(team, games, part, sampling, seed=seed, first_debate=first)
        paid.append(games.returns())
        messages += sum(len(rollout.completions) for rollout in rollouts)
    table = np.concatenate(paid)
    spread = table.std(axis=0, ddof=1) if len(table) > 1 else np.zeros(table.shape[1])
    return Returns(
        tuple(table.mean(axis=0).tolist()),
        tuple((1.96 * spread / math.sqrt(len(table))).tolist()),
        len(table),
        messages / len(table),
    )


OUTSIDE = RunKind(settled=_with_whole_name, make_learner=make_learner, finish=_finish)
run, resume = OUTSIDE.run, OUTSIDE.resume
