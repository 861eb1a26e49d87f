"""The training algorithms: one per file, each with its `train_step` and its `SCHEME`.

A scheme is a published way to collaborate and to learn from it. To add one named ``new``:

1. ``algorithms/new.py``: `train_step` and ``SCHEME = Scheme(...)``;
2. ``config/new.py``: its settings, a dataclass derived from `config.RunConfig`;
3. a line in `config.registry.CONFIGS`, which is the list of all schemes.

A scheme outside this package needs none of the three places: a `Scheme` in any module or file is
chosen by its name, module:name or file.py:name (docs/how-to/add-an-algorithm.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from maporl_agents.config import RunConfig, checks, scheme_of
from maporl_env.protocols import PartialTurns
from maporl_env.user_functions import is_own_name, object_named

if TYPE_CHECKING:  # so that importing this package imports no torch
    from maporl_agents.measure.step_metrics import Metrics
    from maporl_agents.models.team import Team
    from maporl_agents.types import Rollout
    from maporl_agents.update.optimiser import PolicyLearner
    from maporl_env.batched import BatchedDebate
    from maporl_env.types import Question


class TrainStep(Protocol):
    """One step of training: play, give credit, update."""

    def __call__(
        self, learner: Any, game: Any, questions: Sequence[Question], config: Any, *, seed: int
    ) -> tuple[list[Rollout], Metrics]:
        """Improve every policy of a team once.

        Args:
            learner: team and optimiser, made by `Scheme.learner`; updated in place.
            game: the environment, a `maporl_env.batched.BatchedDebate`.
            questions: of this step, one debate or tree each.
            config: the settings of the run.
            seed: names this step's random streams.

        Returns:
            The rollouts, and the metrics of the step.
        """
        ...


@dataclass(frozen=True)
class StepWork(checks.Checked):
    """The work of one step, as `maporl plan` counts it. Returned by `Scheme.work`.

    A step plays debates or, where `branching` or `group_size` is more than 1, trees of samples: one
    per question. Then it scores all trained messages and updates the policies on them.

    Attributes:
        micro_tokens: largest number of tokens, padding included, in one pass of scoring or update.
        epochs: passes over the batch.
        minibatches: optimiser steps of one pass over the batch.
        group_size: samples of each speaker at each node of a tree.
        branching: nodes that each node leads to.
        copies: debates or trees of each question.
        speak_in_turn: one agent speaks at a node; otherwise all agents of a turn do.
        note: what the figures assume or leave out, one sentence; "" for nothing.

    Raises:
        ValueError: a number below 1.
    """

    micro_tokens: checks.AtLeast1
    epochs: checks.AtLeast1 = 1
    minibatches: checks.AtLeast1 = 1
    group_size: checks.AtLeast1 = 1
    branching: checks.AtLeast1 = 1
    copies: checks.AtLeast1 = 1
    speak_in_turn: bool = False
    note: str = ""


@dataclass(frozen=True)
class Scheme:
    """The training of a run. Team, evaluation, run folder and report are the same for all schemes.

    Attributes:
        settings: the dataclass of its runs, derived from `config.RunConfig`.
        check: `check(config, game)` raises ValueError for settings that contradict each other or
            do not fit the game; those that would do nothing are refused by `config.effects`.
        learner: `learner(config, team)` makes what is trained, from settings and a fresh team.
        train_step: see `TrainStep`.
        play: `play(team, game, questions, config, seed=seed, engine=engine)` returns the debates
            of a step as `train_step` plays them, which then takes them as its argument `rollouts`
            (`training.ahead`); None where they cannot be played by themselves.
        critics: the team has value heads.
        extra_policies: trained policies beyond those of the agents, such as a critic that is a
            language model. They have the next agent indices, and never speak.
        imitated: `imitated(config, team, game, questions, seed=seed)` returns the rows that a
            warm-up imitates in place of own right messages, the debates they are from, and a
            sentence on them; or None, as a scheme without it, for the own right messages. `game` is
            that of training.
        work: `work(config)` declares the work of a step for `maporl plan`; None plans what all
            schemes have in common (weights, play, optimiser) and says what is left out.
    """

    settings: type[RunConfig]
    check: Callable[[Any, Any], None]
    learner: Callable[[Any, Team], PolicyLearner]
    train_step: TrainStep
    play: Callable[..., list[Rollout]] | None = None
    critics: bool = False
    extra_policies: int = 0
    imitated: Callable[..., tuple[list[Any], list[Rollout], str] | None] | None = None
    work: Callable[[Any], StepWork] | None = None


def require_paid(config: RunConfig, game: BatchedDebate) -> None:
    """Raise ValueError where an agent is trained that the protocol never pays."""
    protocol, agents = game.game.protocol, game.agents
    if not isinstance(protocol, PartialTurns):
        return
    paid = [agents.index(agent) for agent in protocol.payable(agents)]
    trained = config.team.train_agents or tuple(range(len(agents)))
    if unpaid := sorted(set(trained) - set(paid)):
        raise ValueError(
            f"team.train_agents trains agent {unpaid[0]}, which protocol {config.game.protocol!r} "
            f"never rewards: set --team.train-agents {' '.join(map(str, paid))}"
        )


def critic_note(config: RunConfig) -> str:
    """Return the note of `StepWork` on what a plan leaves out of a central critic."""
    left_out = "The passes of the central critic over joint histories are left out"
    return left_out if config.team.central else ""


def scheme_for(config: RunConfig) -> Scheme:
    """Return the scheme that settings belong to; its file is imported only now."""
    name = scheme_of(config)
    found: Scheme = (
        object_named(name) if is_own_name(name) else import_module(f"{__name__}.{name}").SCHEME
    )
    return found
