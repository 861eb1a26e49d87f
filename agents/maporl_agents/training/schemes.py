"""Schemes: how settings of each kind are trained. To add one: its settings, then an entry here.

One's own needs no entry: a `Scheme` in any module or file is chosen by its name, module:name or
file.py:name.

A scheme is a published way to collaborate and to learn from it. Everything around the training
itself (team, evaluation, run folder, report) is shared and stands in `experiment`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from maporl_agents.algorithms import iac, magrpo, malt, maporl
from maporl_agents.algorithms.maporl import questions_of_step
from maporl_agents.config import (
    GameConfig,
    IACConfig,
    MAGRPOConfig,
    MALTConfig,
    RunConfig,
    TrainConfig,
    scheme_of,
    turns_of,
)
from maporl_agents.models.team import Team
from maporl_agents.records.run_log import RunLog
from maporl_agents.seeding import seed_of
from maporl_agents.training import loop
from maporl_agents.training.make_game import debates_of
from maporl_agents.update.optimiser import Learner, PolicyLearner
from maporl_env.types import Question
from maporl_env.user_functions import object_named


@dataclass(frozen=True)
class Scheme:
    """How a run is trained.

    Attributes:
        settings: the dataclass of its runs, derived from `config.RunConfig`.
        check: raises ValueError for settings that contradict each other; those that would do
            nothing are refused by `effects`.
        learner: makes what is trained, from settings and a fresh team.
        train: `(config, learner, questions, log, *, start, on_step, on_alarm)`, as `loop.train`.
    """

    settings: type[RunConfig]
    check: Callable[[Any], None]
    learner: Callable[[Any, Team], PolicyLearner]
    train: Callable[..., None]


def training_game(config: TrainConfig) -> tuple[GameConfig, int]:
    """Return the game that is trained on and how many debates make a step.

    Training alone is one turn per debate, in which nobody reads anybody, and more debates: equally
    many answers per step.
    """
    if not config.single_agent:
        return config.game, config.questions_per_step
    return replace(config.game, num_turns=1), config.questions_per_step * config.game.num_turns


def check_maporl(config: TrainConfig) -> None:
    """Raise ValueError where training alone would train nothing."""
    if config.single_agent and 0 not in turns_of(config.team.train_turns, config.game.num_turns):
        raise ValueError(
            "single_agent trains the first turn, the only one that is played alone, but "
            f"train_turns={config.team.train_turns!r} leaves it out; choose 'all'"
        )


def train_maporl(
    config: TrainConfig,
    learner: Learner,
    questions: Sequence[Question],
    log: RunLog,
    **hooks: Any,
) -> None:
    """Train by multi-agent PPO."""
    game, count = training_game(config)
    debates = debates_of(game, count)

    def take_step(step: int) -> Any:
        asked = questions_of_step(questions, step, count, config.seed)
        return maporl.train_step(
            learner, debates, asked, config.sampling, seed=seed_of(config.seed, "step", step)
        )

    loop.train(config, learner, take_step, log, **hooks)


def check_joint(config: MAGRPOConfig | IACConfig) -> None:
    """Raise ValueError for protocols without joint answers."""
    if not debates_of(config.game, 1).game.protocol.simultaneous:
        raise ValueError(
            f"game.protocol={config.game.protocol!r}: {scheme_of(config)} pays joint scores, which "
            "need a protocol in which all agents speak at once, such as 'joint' or 'debate'"
        )


def joint_steps(
    config: MAGRPOConfig | IACConfig, questions: Sequence[Question], train_step: Callable[..., Any]
) -> loop.Step:
    """Return what carries out a step by its number: draws its questions, and trains on them."""
    debates = debates_of(config.game, config.questions_per_step)

    def take_step(step: int) -> Any:
        asked = questions_of_step(questions, step, config.questions_per_step, config.seed)
        seed = seed_of(config.seed, "step", step)
        return train_step(debates=debates, questions=asked, sampling=config.sampling, seed=seed)

    return take_step


def train_magrpo(
    config: MAGRPOConfig,
    learner: PolicyLearner,
    questions: Sequence[Question],
    log: RunLog,
    **hooks: Any,
) -> None:
    """Train by joint returns compared in groups."""
    step = partial(magrpo.train_step, learner, settings=config.magrpo)
    loop.train(config, learner, joint_steps(config, questions, step), log, **hooks)


def train_iac(
    config: IACConfig,
    learner: PolicyLearner,
    questions: Sequence[Question],
    log: RunLog,
    **hooks: Any,
) -> None:
    """Train by what critics did not expect, turn by turn."""
    step = partial(iac.train_step, learner, settings=config.iac)
    loop.train(config, learner, joint_steps(config, questions, step), log, **hooks)


def check_malt(config: MALTConfig) -> None:
    """Raise ValueError unless there is one seat per role and every round has all its stages."""
    roles, game = config.malt.roles, config.game
    if game.protocol != "pipeline" or game.num_turns != 1 or game.num_agents != len(roles):
        raise ValueError(
            f"malt plays game.protocol='pipeline' for one turn with an agent for each of its roles "
            f"{roles}, not {game.protocol!r} with num_turns={game.num_turns} and "
            f"num_agents={game.num_agents}; set malt.roles to leave roles out"
        )
    if config.steps % len(malt.STAGES):
        raise ValueError(
            f"steps={config.steps} must be a multiple of 3: a round of malt has three stages, "
            f"{', '.join(malt.STAGES)}"
        )


def train_malt(
    config: MALTConfig,
    learner: PolicyLearner,
    questions: Sequence[Question],
    log: RunLog,
    **hooks: Any,
) -> None:
    """Train by SFT and DPO on trees of samples, whose files stand in the run's folder ``malt``."""
    debates = debates_of(config.game, config.questions_per_step)

    def take_step(step: int) -> Any:
        number, count = step // len(malt.STAGES), config.questions_per_step
        asked = questions_of_step(questions, number, count, config.seed)
        return malt.train_step(learner.team, debates, asked, config, step, log.folder / "malt")

    loop.train(config, learner, take_step, log, **hooks)


SCHEMES = {
    "maporl": Scheme(
        settings=TrainConfig,
        check=check_maporl,
        learner=lambda config, team: Learner(team, config.ppo, config.steps),
        train=train_maporl,
    ),
    "magrpo": Scheme(
        settings=MAGRPOConfig,
        check=check_joint,
        learner=lambda config, team: PolicyLearner(team, config.magrpo, config.steps),
        train=train_magrpo,
    ),
    "malt": Scheme(
        settings=MALTConfig,
        check=check_malt,
        # A stage fits each role with an optimiser of its own; this one only stands for the team.
        learner=lambda config, team: PolicyLearner(team, config.malt.imitation, config.steps),
        train=train_malt,
    ),
    "iac": Scheme(
        settings=IACConfig,
        check=check_joint,
        learner=lambda config, team: PolicyLearner(
            team, config.iac, config.steps, critic_learning_rate=config.iac.critic_learning_rate
        ),
        train=train_iac,
    ),
}
"""Schemes by the names of `config.CONFIGS`."""


def scheme_for(config: RunConfig) -> Scheme:
    """Return the scheme that settings belong to."""
    name = scheme_of(config)
    scheme: Scheme = SCHEMES[name] if name in SCHEMES else object_named(name)
    return scheme
