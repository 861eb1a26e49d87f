"""IAC: independent actor-critics at the level of turns, a critic per agent.

The sibling of MAGRPO (Liu et al., arXiv 2508.04652) whose baseline is a critic instead of the other
samples of the same node. Read `train_step` top to bottom: play, credit, score
tokens, update, log. With h_t what an agent has read when it speaks in turn t, r_t the joint reward
of that turn, V its own critic, read at the last token of h_t, and t+k the agent's next trained turn
(k = 1 where all are trained: critics are trained and read in trained turns only):

    target_t = r_t + gamma r_t+1 + ... + gamma^(k-1) r_t+k-1 + gamma^k V(h_t+k)
    delta_t  = target_t - V(h_t)
    policy     -mean over messages of delta_t * log pi(message | h_t)
    critic      mean over messages of (V(h_t) - target_t)^2 / 2, the target held still

After the last trained turn the rewards are those up to the end of the debate, and V is 0.
No ratio, no clip, no GAE, one update per batch. Sampling, scoring, surrogate and update are
MAGRPO's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from maporl_agents.algorithms import Scheme, StepWork, critic_note, magrpo
from maporl_agents.algorithms.maporl import play_step
from maporl_agents.config import IACConfig, IACSettings
from maporl_agents.losses import value_loss
from maporl_agents.measure.step_metrics import Metrics, explained_variance, rollout_metrics
from maporl_agents.models.team import Team
from maporl_agents.trees.sample_tree import joint_reward
from maporl_agents.types import Experience, Rollout, TokenBatch
from maporl_agents.update.batching import Row, batch_of
from maporl_agents.update.gradient_accumulation import Counts, Loss, apply
from maporl_agents.update.joint_history import joint_histories
from maporl_agents.update.objective import Objective, kl_of_rewards
from maporl_agents.update.optimiser import PolicyLearner
from maporl_agents.update.token_tables import token_tables
from maporl_env.batched import BatchedDebate
from maporl_env.types import Question


def train_step(
    learner: PolicyLearner,
    game: BatchedDebate,
    questions: Sequence[Question],
    config: IACConfig,
    *,
    seed: int,
    rollouts: list[Rollout] | None = None,
) -> tuple[list[Rollout], Metrics]:
    """Play one debate per question and improve every policy and critic on it, once.

    Arguments and results as of `maporl.train_step`.

    Raises:
        FloatingPointError: the loss or a gradient is not finite, and parameters stay as they are;
            or a parameter is not after the step.
    """
    team, settings, temperature = learner.team, config.iac, config.sampling.temperature

    # Play: every agent answers once per turn.
    if rollouts is None:
        rollouts = play_step(team, game, questions, config, seed=seed)

    # Score tokens and read the critics.
    rows, left_out = scored_rows(team, rollouts, settings.turn_gamma)
    micro_tokens = settings.micro_tokens
    scored = magrpo.evaluate_tokens(
        team,
        batch_of(team, rows),
        micro_tokens=micro_tokens,
        temperature=temperature,
        sampled=True,
    )
    batch = with_kl_in_reward(team, scored, settings, temperature)
    values = values_of(team, batch, settings, temperature, sampled=True)

    # Credit: a message is worth what it led to beyond what its critic expected.
    targets = batch.rewards + value_after(batch, values, settings.turn_gamma)
    deltas = targets - values
    experience = with_critics(magrpo.with_rewards(scored, deltas), values, targets)

    # Update once: there is no ratio to correct a second update.
    loss = partial(loss_of, team=team, settings=settings, temperature=temperature)
    rate = learner.learning_rate
    updates = apply(learner, experience, loss, micro_tokens=micro_tokens)
    if rows:
        learner.schedule.step()

    # Log.
    played = rollout_metrics([with_joint_rewards(rollout) for rollout in rollouts])
    metrics = played | magrpo.token_metrics(experience) | updates
    if rows:
        metrics["explained_variance"] = explained_variance(values, targets)
        metrics["advantage"] = float(deltas.abs().mean())
    metrics |= {
        "unscored_messages": left_out,
        "updates": int(bool(rows)),
        "learning_rate": rate,
    }
    return rollouts, metrics


def with_joint_rewards(rollout: Rollout) -> Rollout:
    """Return a debate in which the reward of each message is the joint reward of its turn."""
    rewards, scored = np.zeros_like(rollout.rewards), np.zeros_like(rollout.scored)
    for turn in range(rollout.transcript.turn):
        reward = joint_reward(rollout.transcript.of_turn(turn))
        scored[turn] = reward is not None
        rewards[turn] = reward or 0.0
    return replace(rollout, rewards=rewards, scored=scored)


def scored_rows(team: Team, rollouts: Sequence[Rollout], gamma: float) -> tuple[list[Row], int]:
    """Return a row per trained message.

    Its `reward` is the discounted sum of rewards up to its agent's next trained turn. A debate with
    an unscored turn is left out, since earlier targets need its score; its messages are counted.
    """
    rows: list[Row] = []
    left_out = 0
    for episode, rollout in enumerate(rollouts):
        transcript = rollout.transcript
        rewards = [joint_reward(transcript.of_turn(turn)) for turn in range(transcript.turn)]
        known = [reward for reward in rewards if reward is not None]
        spoken = zip(rollout.spoken(), joint_histories(team, rollout), strict=True)
        for (message, prompt, completion, policy), joint in spoken:
            agent, turn = transcript.agents.index(message.agent), message.turn
            if not team.trains(agent, turn):
                continue
            if len(known) < len(rewards):
                left_out += 1
                continue
            reward = reward_until_trained_again(team, agent, turn, known, gamma)
            rows.append(Row(prompt, completion, policy, episode, turn, agent, reward, joint))
    return rows, left_out


def reward_until_trained_again(
    team: Team, agent: int, turn: int, rewards: Sequence[float], gamma: float
) -> float:
    """Return r_t + gamma r_t+1 + ... up to the next turn in which the agent is trained, or all."""
    after = range(turn + 1, len(rewards))
    end = next((later for later in after if team.trains(agent, later)), len(rewards))
    return sum(gamma**k * reward for k, reward in enumerate(rewards[turn:end]))


def with_kl_in_reward(
    team: Team, scored: Experience, settings: IACSettings, temperature: float
) -> TokenBatch:
    """Return the batch, the KL of each message off its reward where `kl_place` says so."""
    batch = scored.batch
    kl = kl_of_rewards(
        team, batch, scored, settings, temperature=temperature, micro_tokens=settings.micro_tokens
    )
    return (
        batch if kl is None else replace(batch, rewards=batch.rewards - kl.to(batch.rewards.dtype))
    )


def values_of(
    team: Team,
    batch: TokenBatch,
    settings: IACSettings,
    temperature: float,
    *,
    sampled: bool = False,
) -> Tensor:
    """Return V(h) of every message, (B,): its critic at the last token of the prompt.

    `sampled` is that of `token_tables`.
    """
    tables = token_tables(
        team,
        batch,
        temperature=temperature,
        micro_tokens=settings.micro_tokens,
        reference="none",
        with_values=True,
        sampled=sampled,
    )
    return tables.values[:, :1].sum(1)  # the state before the first token; an empty batch has none


def value_after(batch: TokenBatch, values: Tensor, gamma: float) -> Tensor:
    """Return gamma^k V of what the same agent reads in its next trained turn, k later, (B,).

    0 after its last trained turn.
    """
    index, weights = list(range(len(batch))), [0.0] * len(batch)
    places = zip(batch.episodes.tolist(), batch.agents.tolist(), batch.turns.tolist(), index.copy(),
                 strict=True)  # fmt: skip
    for (*agent, turn, row), (*following, later, next_row) in pairwise(sorted(places)):
        if agent == following:
            index[row], weights[row] = next_row, gamma ** (later - turn)
    there = torch.tensor(index, dtype=torch.long, device=values.device)
    return torch.tensor(weights, dtype=values.dtype, device=values.device) * values[there]


def with_critics(experience: Experience, values: Tensor, targets: Tensor) -> Experience:
    """Return an experience with values and targets of the critics in column 0, 0 elsewhere."""
    first = first_tokens(experience.batch)
    tables = (torch.where(first, x[:, None], 0.0) for x in (values, targets))
    return replace(experience, values=next(tables), returns=next(tables))


def first_tokens(batch: TokenBatch) -> Tensor:
    """Return a (B, L) mask of the first token of every message."""
    return batch.mask & (torch.arange(batch.mask.shape[1], device=batch.mask.device) == 0)


def loss_of(
    part: Experience,
    counts: Counts,
    *,
    team: Team,
    settings: IACSettings,
    temperature: float,
) -> Loss:
    """Return the sum over policies of surrogate and critic loss on a micro-batch, and statistics.

    Both are means over a policy's own messages of the whole batch.
    """
    batch = part.batch
    objective = Objective(
        magrpo.REDUCTIONS[settings.length],
        ratio=False,
        kl_coef=settings.kl_coef if settings.kl_place == "loss" else 0.0,
        kl_estimator=settings.kl_estimator,
        entropy_coef=settings.entropy_coef,
    )
    scores = objective.score(team, batch, temperature, with_values=True)
    total, statistics = objective.loss(scores, part, counts)
    first = first_tokens(batch)
    for policy, rows in batch.by_policy():
        critic = value_loss(
            scores.values[rows],
            part.values[rows],
            part.returns[rows],
            first[rows],
            num_tokens=counts[policy][1],
        )
        total = total + settings.critic_coef * critic
        statistics[policy]["loss/value"] = float(critic.detach())
    return total, statistics


SCHEME = Scheme(
    settings=IACConfig,
    check=magrpo.check,
    learner=lambda config, team: PolicyLearner(
        team, config.iac, config.steps, critic_learning_rate=config.iac.critic_learning_rate
    ),
    train_step=train_step,
    play=play_step,
    critics=True,
    work=lambda config: StepWork(config.iac.micro_tokens, note=critic_note(config)),
)
