"""A warm-up by imitation: the models learn from their own right answers, before any reward.

A small model that is right once in ten messages gives few rewards to learn from. So it debates some
training questions, its right messages are kept, and their likelihood is raised (STaR, arXiv
2203.14465, one round, without rationalisation). The reference policy of the KL stays the model
before the warm-up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from maporl_agents import distributed
from maporl_agents.algorithms import scheme_for
from maporl_agents.config import OptimizerConfig, RunConfig, WarmupConfig
from maporl_agents.measure.debate_stats import right
from maporl_agents.models.team import Team
from maporl_agents.play.questions import questions_of_step
from maporl_agents.play.rollout import play
from maporl_agents.records import checkpoint_folder
from maporl_agents.records.run_log import RunLog
from maporl_agents.seeding import seed_of
from maporl_agents.training.checkpointing import save_checkpoint
from maporl_agents.training.given_messages import rows_of
from maporl_agents.training.given_preferences import pairs_of_file, prefer
from maporl_agents.training.loop import interruptible
from maporl_agents.training.make_game import LoadedGame
from maporl_agents.types import Rollout
from maporl_agents.update.batching import Row, batch_of
from maporl_agents.update.imitation import imitation_step
from maporl_agents.update.optimiser import PolicyLearner
from maporl_env.types import Question

PART = 32
"""Debates that are played side by side."""


def require_given(config: RunConfig, game: LoadedGame, team: Team) -> None:
    """Raise ValueError, before anything is measured, where given texts cannot be imitated."""
    if config.warmup.steps and config.warmup.transcripts:
        rows_of(team, game.debates(1), config.warmup.transcripts)
    if config.warmup.steps and config.warmup.preferences:
        pairs_of_file(team, Path(config.warmup.preferences))


def warm_up(
    config: RunConfig,
    learner: PolicyLearner,
    game: LoadedGame,
    questions: Sequence[Question],
    log: RunLog,
) -> str:
    """Warm up a run that begins, and save it as step 0; return in a sentence what came of it.

    The team imitates its own right messages, those of a file or function, or what its scheme makes.
    A run that has a checkpoint, or no warm-up, is left alone: the sentence is "".

    Args:
        config: of the run, whose `warmup` says how many steps.
        learner: whose team is changed; its own optimiser and schedule stay as they are.
        game: that is played.
        questions: all training questions.
        log: gets the debates, and the loss of every update.

    Raises:
        Interrupted: a signal came; the run is resumed with the warm-up from its start.
        FloatingPointError: the loss or a weight became infinite or not a number.
        ValueError: the transcripts or pairs cannot be read or do not fit the game.
    """
    if not config.warmup.steps or distributed.first(
        lambda: checkpoint_folder.latest(log.folder / "checkpoints") is not None
    ):
        return ""
    with interruptible(0):
        rows: list[Row] = []
        if config.warmup.preferences:
            told = _prefer(config, learner, log)
        elif config.warmup.transcripts:
            rows, told = _given(config, learner, game)
        elif (made := _of_scheme(config, learner, game, questions, log)) is not None:
            rows, told = made
        else:
            rows, told = _own_right(config, learner, game, questions, log)
        if rows:
            first, last = _imitate(config, learner, rows, log)
            told += (
                f"; imitated in {config.warmup.steps:,} updates, loss per token {first:.3f} to "
                f"{last:.3f}"
            )
    save_checkpoint(log.folder, 0, learner)
    return told


def _prefer(config: RunConfig, learner: PolicyLearner, log: RunLog) -> str:
    """Learn the preference pairs of a file; return a sentence on them."""
    settings, team = config.warmup, learner.team
    rows, count = pairs_of_file(team, Path(settings.preferences))
    told = (
        f"warm-up: {len(rows) // 2:,} of {count:,} given preference pairs are of trained policies"
    )
    if not rows:
        return f"{told}: there is nothing to learn"
    generator = torch.Generator().manual_seed(seed_of(config.seed, "warmup", "order"))
    learnt = prefer(
        team,
        rows,
        lambda: PolicyLearner(team, _rates(settings), settings.steps),
        lambda pairs: _deals(pairs, min(settings.batch_size, pairs), generator),
        updates=settings.steps,
        beta=settings.preference_beta,
        micro_tokens=_micro_tokens(config),
        temperature=config.sampling.temperature,
    )
    losses = []
    for update, (policy, metrics) in enumerate(learnt, start=1):
        losses.append(metrics["preference_loss"])
        named = {f"{name}/{policy}": value for name, value in metrics.items()}
        log.beside("warmup", {"update": update, "pairs": len(rows) // 2, **named})
    return (
        f"{told}; learnt by DPO in {settings.steps:,} updates per policy, loss {losses[0]:.3f} to "
        f"{losses[-1]:.3f}"
    )


def _rates(settings: WarmupConfig) -> OptimizerConfig:
    return OptimizerConfig(learning_rate=settings.learning_rate, warmup_steps=0)


def _given(config: RunConfig, learner: PolicyLearner, game: LoadedGame) -> tuple[list[Row], str]:
    """Return the given messages that are imitated, and a sentence on them."""
    rows, count = rows_of(learner.team, game.debates(1), config.warmup.transcripts)
    told = f"warm-up: {len(rows):,} messages of {count:,} given transcripts"
    return rows, told if rows else f"{told}: none is trained on"


def _of_scheme(
    config: RunConfig,
    learner: PolicyLearner,
    game: LoadedGame,
    questions: Sequence[Question],
    log: RunLog,
) -> tuple[list[Row], str] | None:
    """Return what the scheme makes for imitation, and a sentence on it; None where it does not."""
    scheme = scheme_for(config)
    if scheme.imitated is None:
        return None
    debates = game.debates(PART, num_turns=config.training_game()[0].num_turns)
    asked, seed = _asked(config, questions), seed_of(config.seed, "warmup", "play")
    found = scheme.imitated(config, learner.team, debates, asked, seed=seed)
    if found is None:
        return None
    rows, rollouts, told = found
    log.transcripts("warmup", [one.transcript for one in rollouts], replace=True)
    return rows, f"warm-up by {told}"


def _asked(config: RunConfig, questions: Sequence[Question]) -> list[Question]:
    """Return the training questions that the warm-up asks."""
    count = min(config.warmup.questions, len(questions))
    return list(questions_of_step(questions, 0, count, seed_of(config.seed, "warmup")))


def _own_right(
    config: RunConfig,
    learner: PolicyLearner,
    game: LoadedGame,
    questions: Sequence[Question],
    log: RunLog,
) -> tuple[list[Row], str]:
    """Play debates; return the right messages of trained policies, and a sentence on them."""
    rows: list[Row] = []
    played = 0
    asked = _asked(config, questions)
    debates = game.debates(min(PART, len(asked)))
    for start in range(0, len(asked), PART):
        part = asked[start : start + PART]
        seed = seed_of(config.seed, "warmup", "play")
        rollouts = play(learner.team, debates, part, config.sampling, seed=seed, first_debate=start)
        log.transcripts("warmup", [one.transcript for one in rollouts], replace=not start)
        for episode, rollout in enumerate(rollouts, start=start):
            found = list(_trained_messages(rollout, learner, episode))
            played += len(found)
            rows += [row for row, is_right in found if is_right]
    told = f"warm-up: {len(rows):,} of {played:,} messages on {len(asked):,} questions are right"
    if not rows:
        told += (
            ", so there is nothing to imitate, and the run goes on without a warm-up: try worked "
            "examples (--game.shots 1), --game.answer-rule answer_line, or more --warmup.questions"
        )
    return rows, told


def _imitate(
    config: RunConfig, learner: PolicyLearner, rows: Sequence[Row], log: RunLog
) -> tuple[float, float]:
    """Raise the likelihood of the messages; return the loss of the first and the last update."""
    settings, team = config.warmup, learner.team
    imitator = PolicyLearner(team, _rates(settings), settings.steps)
    batch = batch_of(team, rows)
    generator = torch.Generator().manual_seed(seed_of(config.seed, "warmup", "order"))
    losses = []
    deals = _deals(len(rows), min(settings.batch_size, len(rows)), generator)
    for update in range(settings.steps):
        loss = imitation_step(
            imitator,
            batch.select(next(deals)),
            micro_tokens=_micro_tokens(config),
            temperature=config.sampling.temperature,
        )
        imitator.schedule.step()
        losses.append(loss)
        log.beside("warmup", {"update": update + 1, "nll": loss, "right": len(rows)})
    return losses[0], losses[-1]


def _deals(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the places of `size` messages, pass after pass, each pass in a new order."""
    left = torch.empty(0, dtype=torch.long)
    while True:
        if len(left) < size:
            left = torch.cat([left, torch.randperm(count, generator=generator)])
        yield left[:size]
        left = left[size:]


def _trained_messages(
    rollout: Rollout, learner: PolicyLearner, episode: int
) -> Iterator[tuple[Row, bool]]:
    """Yield the messages of trained agents and turns, and whether each is right."""
    question = rollout.transcript.question
    indices = {name: index for index, name in enumerate(rollout.transcript.agents)}
    for message, prompt, completion, policy in rollout.spoken():
        agent = indices[message.agent]
        if learner.team.trains(agent, message.turn) and policy in learner.trained:
            row = Row(prompt, completion, policy, episode, message.turn, agent, 0.0)
            yield row, right(message, question)


def _micro_tokens(config: RunConfig) -> int:
    """Return the scheme's own bound on the tokens of one pass."""
    groups = [getattr(config, one.name) for one in fields(config)]
    own = [group for group in groups if isinstance(group, OptimizerConfig)]
    return own[0].micro_tokens if own else OptimizerConfig.micro_tokens
