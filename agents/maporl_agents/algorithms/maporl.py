"""MAPoRL: multi-agent PPO at the level of tokens, with the influence-aware verification reward.

Park et al., "MAPoRL: Multi-Agent Post-Co-Training for Collaborative Large Language Models with
Reinforcement Learning" (arXiv 2502.18439). Read `train_step` top to bottom: play, collate, score
tokens, advantages, update, log.

The state of (turn t, agent a) at token x is the question, all agents' earlier turns and the tokens
written so far; the policy is the one `Team.policy(a, t)` names, the critic `Team.critic(a, t)`.
With one agent and one turn this is PPO.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, TypedDict

import torch
from torch import Tensor

from maporl_agents.advantages import gae, whiten
from maporl_agents.algorithms import Scheme, StepWork, critic_note, require_paid
from maporl_agents.config import PPOConfig, RunConfig, TrainConfig, turns_of
from maporl_agents.importance import policy_advantages
from maporl_agents.kl_penalty import token_rewards
from maporl_agents.losses import (
    kl_estimate,
    masked_mean,
    policy_loss,
    reduced_mean,
    value_loss,
)
from maporl_agents.measure.step_metrics import (
    Metrics,
    counts_of,
    experience_metrics,
    mean_of,
    rollout_metrics,
    share_beyond,
)
from maporl_agents.models.team import Team
from maporl_agents.play.rollout import Playable, play
from maporl_agents.play.speak import Engine
from maporl_agents.types import Experience, Rollout, TokenBatch
from maporl_agents.update.batching import collate
from maporl_agents.update.gradient_accumulation import Counts, Loss
from maporl_agents.update.minibatch_epochs import learn_in_epochs
from maporl_agents.update.optimiser import PPOLearner
from maporl_agents.update.token_logprobs import score_tokens
from maporl_agents.update.token_tables import token_tables
from maporl_env.batched import BatchedDebate
from maporl_env.types import Question


def train_step(
    learner: PPOLearner,
    game: Playable,
    questions: Sequence[Question],
    config: TrainConfig,
    *,
    seed: int,
    rollouts: list[Rollout] | None = None,
) -> tuple[list[Rollout], Metrics]:
    """Play one debate per question and improve every policy on it.

    Arguments as of `algorithms.TrainStep`; the settings of PPO are those of `learner`. Rollouts are
    given where they were played ahead.

    Returns:
        The rollouts and the metrics of the step (meanings in docs/explanation/schemes/maporl.md).
    """
    team, ppo, sampling = learner.team, learner.ppo, config.sampling

    # Play: every agent answers every question in every turn.
    if rollouts is None:
        rollouts = play_step(team, game, questions, config, seed=seed)

    # Collate: one row per message that has a reward; if none has, there is nothing to learn.
    batch, left_out = collate(team, rollouts)

    # Score tokens and turn the rewards of messages into advantages of tokens.
    batch = learner.normalise_rewards(batch)
    experience = evaluate_tokens(
        team, batch, learner.settings(), sampling.temperature, sampled=True
    )

    # Update: a few epochs over the batch in minibatches, fewer if the policy moves too far.
    differ = rewards_differ(batch) if ppo.leave_out_equal_rewards else None  # (B,)
    rate = learner.learning_rate
    loss = partial(loss_of, learner, temperature=sampling.temperature)
    updates, skipped = learn_in_epochs(
        learner, experience, loss, ppo, seed=seed, learnt=differ, target_kl=ppo.target_kl
    )

    # Log.
    metrics = rollout_metrics(rollouts) | experience_metrics(experience) | mean_of(updates)
    if ppo.target_kl is not None:
        metrics["skipped_minibatches"] = skipped
    metrics |= learner.adapt(metrics["kl"] if updates else None)
    return rollouts, metrics | counts_of(left_out, len(updates), rate)


def play_step(
    team: Team,
    game: Playable,
    questions: Sequence[Question],
    config: RunConfig,
    *,
    seed: int,
    engine: Engine | None = None,
) -> list[Rollout]:
    """Return one debate per question; see `algorithms.Scheme.play`."""
    return play(team, game, questions, config.sampling, seed=seed, engine=engine, with_values=True)


def evaluate_tokens(
    team: Team, batch: TokenBatch, ppo: PPOConfig, temperature: float, *, sampled: bool = False
) -> Experience:
    """Score a batch under policy, reference and critics; return it with its advantages.

    token reward r = -kl_coef * KL + 1[last token] * (the environment's reward of the message);
    advantages by GAE over the tokens of one message, the critic's value after the last token 0,
    then whitened per (turn, agent). The KL of a token, estimated by `kl_estimator`, is counted
    here and in no loss. `sampled` is that of `token_tables`.
    """
    tables = token_tables(
        team,
        batch,
        temperature=temperature,
        micro_tokens=ppo.micro_tokens,
        with_values=True,
        reference="kl" if ppo.kl_estimator == "full_ref_policy" else "logprobs",
        sampled=sampled,
    )
    logprobs, ref_logprobs, values, kl = tables[:4]
    if ppo.kl_estimator != "full_ref_policy":
        kl = kl_estimate(logprobs, ref_logprobs, ppo.kl_estimator)
    rewards = token_rewards(  # (B, L); batch.rewards (B,) at the last token of each message
        logprobs, ref_logprobs, batch.mask, batch.rewards, kl_coef=ppo.kl_coef, kl=kl
    )
    advantages, returns = gae(
        rewards, values, batch.mask, gamma=ppo.token_gamma, lam=ppo.gae_lambda
    )
    for _, rows in batch.by_message():
        advantages[rows] = whiten(advantages[rows], batch.mask[rows])
    told = tables.rescored, tables.fault
    return Experience(batch, logprobs, ref_logprobs, values, advantages, returns, *told)


def rewards_differ(batch: TokenBatch) -> Tensor:
    """Return for each message whether some of its turn and agent were rewarded otherwise, (B,).

    Where all have the same reward nothing tells how to write better ones: their advantages differ
    by errors of the critic, which whitening has scaled to the size of a reward's effect, and by KL.
    These errors, and the value loss by way of the layers that critic and policy share, would move a
    policy that is right every time away from what it has learnt.
    """
    differ = torch.zeros(len(batch), dtype=torch.bool, device=batch.ids.device)
    for _, rows in batch.by_message():
        spread = whiten(batch.rewards[rows], torch.ones_like(rows, dtype=torch.bool))
        differ[rows] = bool(spread.any())
    return differ


class Mean(TypedDict):
    """The mean that a loss is; the fields are arguments of `losses.policy_loss` and others."""

    reduction: Literal["token", "sequence"]
    num_tokens: int
    num_sequences: int


def loss_of(learner: PPOLearner, part: Experience, counts: Counts, temperature: float) -> Loss:
    """Return the sum over policies of their PPO losses on a micro-batch, and statistics of each.

    Each policy's loss is a mean over its own tokens of the whole minibatch, or over its messages of
    the mean over their tokens (`counts`: tokens and messages), so that how often one agent speaks
    does not change how fast another learns. The statistics are shares of the minibatch's means over
    tokens: they add up over micro-batches.
    """
    ppo, batch = learner.ppo, part.batch
    scores = score_tokens(
        learner.team,
        batch,
        temperature=temperature,
        with_values=True,
        with_entropy=True,
        train_entropy=ppo.entropy_coef > 0,
    )
    advantages = policy_advantages(part)  # (B, L)
    total = scores.logprobs.new_zeros(())
    statistics: dict[str, Metrics] = {}
    for policy, rows in batch.by_policy():
        num_tokens, num_sequences = counts[policy]  # of the whole minibatch
        over: Mean = {
            "reduction": ppo.reduction,
            "num_tokens": num_tokens,
            "num_sequences": num_sequences,
        }
        mask, old = batch.mask[rows], part.logprobs[rows]  # (rows of the policy, L), as all here
        values, before = scores.values[rows], part.values[rows]
        improve, stats = policy_loss(
            scores.logprobs[rows], old, advantages[rows], mask, clip_coef=ppo.clip_coef, **over
        )
        critic = value_loss(
            values, before, part.returns[rows], mask, clip_coef=ppo.value_clip, **over
        )
        total = total + improve + ppo.critic_coef * critic
        if ppo.entropy_coef > 0:
            total = total - ppo.entropy_coef * reduced_mean(scores.entropy[rows], mask, **over)
        share = float(mask.sum()) / num_tokens
        statistics[policy] = {
            "loss/policy": float(improve.detach()),
            "loss/value": float(critic.detach()),
            "entropy": float(masked_mean(scores.entropy[rows].detach(), mask)) * share,
            "clip_frac": float(stats["clip_frac"]) * share,
            "approx_kl": float(stats["approx_kl"]) * share,
        }
        if ppo.value_clip is not None:
            moved = share_beyond(values, before, mask, ppo.value_clip)
            statistics[policy]["value_clip_frac"] = moved * share
    return total, statistics


def check(config: TrainConfig, game: Playable) -> None:
    """Raise ValueError where training alone would train nothing, or an agent is never paid."""
    if isinstance(game, BatchedDebate):
        require_paid(config, game)
    if config.single_agent and 0 not in turns_of(config.team.train_turns, config.game.num_turns):
        raise ValueError(
            "single_agent trains the first turn, the only one that is played alone, but "
            f"train_turns={config.team.train_turns!r} leaves it out; choose 'all'"
        )


SCHEME = Scheme(
    settings=TrainConfig,
    check=check,
    learner=lambda config, team: PPOLearner(team, config.ppo, config.steps),
    train_step=train_step,
    play=play_step,
    critics=True,
    work=lambda config: StepWork(
        config.ppo.micro_tokens,
        epochs=config.ppo.epochs,
        minibatches=config.ppo.minibatches,
        note=critic_note(config),
    ),
)
