"""MAPoRL: multi-agent PPO at the level of tokens, with the influence-aware verification reward.

Park et al., "MAPoRL: Multi-Agent Post-Co-Training for Collaborative Large Language Models with
Reinforcement Learning" (arXiv 2502.18439). Read `train_step` top to bottom: play, collate, score
tokens, advantages, update, log.

The state of (turn t, agent a) at token x is the question, everybody's earlier turns and the tokens
written so far; the policy is the one `Team.policy(a, t)` names, the critic `Team.critic(a, t)`.
With one agent and one turn this is PPO.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from maporl_agents.advantages import gae, token_rewards, whiten
from maporl_agents.batching import collate, micro_batches, minibatches, rows_by_base
from maporl_agents.config import PPOConfig, Sampling
from maporl_agents.diagnostics import (
    Metrics,
    experience_metrics,
    mean_of,
    rollout_metrics,
    sums_of,
)
from maporl_agents.losses import masked_mean, policy_loss, value_loss
from maporl_agents.parallel import side_by_side
from maporl_agents.rollout import play
from maporl_agents.scoring import score_tokens
from maporl_agents.seeding import seed_of
from maporl_agents.team import Team
from maporl_agents.types import Experience, Rollout, TokenBatch
from maporl_env.batched import BatchedDebate
from maporl_env.types import Question


class Learner:
    """The optimiser state of a run: one AdamW over every policy and critic of a team."""

    def __init__(self, team: Team, ppo: PPOConfig, steps: int) -> None:
        self.team = team
        self.ppo = ppo
        self.trained = {
            policy: list(named.values()) for policy, named in team.trainable().items() if named
        }
        critics = list(team.critics.parameters())
        self.optimizer = torch.optim.AdamW(
            [
                *({"params": p, "lr": ppo.learning_rate} for p in self.trained.values()),
                {"params": critics, "lr": ppo.critic_learning_rate},
            ],
            weight_decay=0.0,
        )
        self.schedule = LambdaLR(
            self.optimizer, lambda step: learning_rate_factor(step, ppo.warmup_steps, steps)
        )

    def parameter_names(self) -> dict[nn.Parameter, str]:
        """Return the name of every trained parameter: policy or critic, then its own name."""
        names = {
            parameter: f"{policy}/{name}"
            for policy, named in self.team.trainable().items()
            for name, parameter in named.items()
        }
        critics = self.team.critics.named_parameters(prefix="critics")
        return names | {parameter: name for name, parameter in critics}

    def apply_gradients(self) -> Metrics:
        """Clip each policy's gradient on its own, step, and return the gradient norms.

        Raises:
            FloatingPointError: a gradient is not finite; parameters stay as they are.
        """
        groups = {f"grad_norm/{policy}": params for policy, params in self.trained.items()}
        critics = {name: list(head.parameters()) for name, head in self.team.critics.items()}
        norms = {
            name: nn.utils.clip_grad_norm_(params, self.ppo.max_grad_norm)
            for name, params in (groups | critics).items()
        }
        for name, norm in norms.items():
            if not torch.isfinite(norm):
                raise not_finite(f"{name}, the norm of a gradient,", norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {name: float(norms[name]) for name in groups}


def learning_rate_factor(step: int, warmup_steps: int, steps: int) -> float:
    """Return the fraction of the peak rate: linear warm-up, then linear decay to a tenth."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    left = (steps - step) / max(steps - warmup_steps, 1)
    return 0.1 + 0.9 * max(left, 0.0)


def train_step(
    learner: Learner,
    debates: BatchedDebate,
    questions: Sequence[Question],
    sampling: Sampling,
    *,
    seed: int,
) -> tuple[list[Rollout], Metrics]:
    """Play one debate per question and improve every policy on it.

    Args:
        learner: team and optimiser; updated in place.
        debates: the environment.
        questions: one per debate.
        sampling: how messages are drawn.
        seed: names this step's random streams.

    Returns:
        The rollouts and the metrics of the step (meanings in docs/schemes/maporl.md).
    """
    team, ppo = learner.team, learner.ppo

    # Play: every agent answers every question in every turn.
    rollouts = play(team, debates, questions, sampling, seed=seed)

    # Collate: one row per message that has a reward; if none has, there is nothing to learn.
    batch, left_out = collate(team, rollouts)

    # Score tokens and turn the rewards of messages into advantages of tokens.
    experience = evaluate_tokens(team, batch, ppo, sampling.temperature)

    # Update: a few passes over the batch in minibatches.
    generator = torch.Generator().manual_seed(seed_of(seed, "minibatches"))
    updates: list[Metrics] = []
    for _ in range(ppo.epochs):
        for rows in minibatches(batch, ppo.minibatches, generator):
            updates.append(update(learner, experience.select(rows), sampling.temperature))
    if updates:
        learner.schedule.step()

    # Log.
    metrics = rollout_metrics(rollouts) | experience_metrics(experience) | mean_of(updates)
    metrics["unscored_messages"] = left_out
    metrics["updates"] = len(updates)
    metrics["learning_rate"] = learner.optimizer.param_groups[0]["lr"]
    return rollouts, metrics


def evaluate_tokens(
    team: Team, batch: TokenBatch, ppo: PPOConfig, temperature: float
) -> Experience:
    """Score a batch under policy, reference and critics; return it with its advantages.

    token reward r = -kl_coef * k1 + 1[last token] * (what the environment pays for the message);
    advantages by GAE over the tokens of one message, the critic's value after the last token 0,
    then whitened per (turn, agent).
    """
    dtype = next(team.critics.parameters()).dtype  # float32 in a run
    logprobs, ref_logprobs, values = torch.zeros(
        3, *batch.mask.shape, dtype=dtype, device=batch.mask.device
    )

    @torch.no_grad()
    def score(base_rows: Tensor) -> None:
        for micro_rows in micro_batches(batch.select(base_rows), ppo.micro_episodes):
            rows = base_rows[micro_rows]
            part = batch.select(rows)
            width = part.mask.shape[1]
            scores = score_tokens(team, part, temperature=temperature, with_values=True)
            reference = score_tokens(team, part, temperature=temperature, reference=True)
            logprobs[rows, :width] = scores.logprobs
            ref_logprobs[rows, :width] = reference.logprobs
            values[rows, :width] = scores.values

    side_by_side(score, rows_by_base(team, batch))
    rewards = token_rewards(logprobs, ref_logprobs, batch.mask, batch.rewards, kl_coef=ppo.kl_coef)
    advantages, returns = gae(
        rewards, values, batch.mask, gamma=ppo.token_gamma, lam=ppo.gae_lambda
    )
    for _, rows in batch.by_message():
        advantages[rows] = whiten(advantages[rows], batch.mask[rows])
    return Experience(batch, logprobs, ref_logprobs, values, advantages, returns)


def update(learner: Learner, experience: Experience, temperature: float) -> Metrics:
    """Take one optimiser step on a minibatch, the bases side by side.

    Raises:
        FloatingPointError: the loss or a gradient is not finite; parameters stay as they are.
    """
    parts = [experience.select(rows) for rows in rows_by_base(learner.team, experience.batch)]
    try:
        statistics = side_by_side(lambda part: accumulate(learner, part, temperature), parts)
        norms = learner.apply_gradients()
    except FloatingPointError:
        learner.optimizer.zero_grad(set_to_none=True)
        raise
    return mean_of([metrics for base in statistics for metrics in base]) | norms


def accumulate(learner: Learner, experience: Experience, temperature: float) -> list[Metrics]:
    """Add up the gradient of a minibatch over micro-batches; changes no parameter.

    Returns:
        The metrics of each policy.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    batch, ppo = experience.batch, learner.ppo
    num_tokens = {policy: int(batch.mask[rows].sum()) for policy, rows in batch.by_policy()}
    statistics: list[dict[str, Metrics]] = []
    for rows in micro_batches(batch, ppo.micro_episodes):
        part = experience.select(rows)
        loss, parts = loss_of(learner, part, num_tokens, temperature)
        if not torch.isfinite(loss):
            raise not_finite("the loss", loss)
        loss.backward()
        statistics.append(parts)
    return sums_of(statistics)


def not_finite(what: str, value: Tensor) -> FloatingPointError:
    """Return the error that says what became infinite or not a number."""
    return FloatingPointError(
        f"{what} became {float(value.detach())}; this update was not made. Lower the learning rate "
        "(--ppo.learning-rate) or look at the last transcripts of the run"
    )


def loss_of(
    learner: Learner, part: Experience, num_tokens: dict[str, int], temperature: float
) -> tuple[Tensor, dict[str, Metrics]]:
    """Return the sum over policies of their PPO losses on a micro-batch, and statistics of each.

    Each policy's loss is a mean over its own tokens of the whole minibatch (`num_tokens`), so that
    how often one agent speaks does not change how fast another learns. The statistics too are
    shares of the minibatch's means: they add up over micro-batches.
    """
    ppo, batch = learner.ppo, part.batch
    scores = score_tokens(learner.team, batch, temperature=temperature, with_values=True)
    total = scores.logprobs.new_zeros(())
    statistics: dict[str, Metrics] = {}
    for policy, rows in batch.by_policy():
        mask = batch.mask[rows]
        improve, stats = policy_loss(
            scores.logprobs[rows],
            part.logprobs[rows],
            part.advantages[rows],
            mask,
            clip_coef=ppo.clip_coef,
            num_tokens=num_tokens[policy],
        )
        critic = value_loss(
            scores.values[rows],
            part.values[rows],
            part.returns[rows],
            mask,
            num_tokens=num_tokens[policy],
        )
        total = total + improve + ppo.critic_coef * critic
        share = float(mask.sum()) / num_tokens[policy]
        statistics[policy] = {
            "loss/policy": float(improve.detach()),
            "loss/value": float(critic.detach()),
            "entropy": float(masked_mean(scores.entropy[rows].detach(), mask)) * share,
            "clip_frac": float(stats["clip_frac"]) * share,
            "approx_kl": float(stats["approx_kl"]) * share,
        }
    return total, statistics


def questions_of_step(
    questions: Sequence[Question], step: int, count: int, seed: int
) -> list[Question]:
    """Return the questions of one step: every pass over them is in a new random order.

    A function of the step alone, so that a resumed run asks what the uninterrupted one would have.
    """
    chosen = []
    orders: dict[int, list[int]] = {}
    for position in range(step * count, (step + 1) * count):
        epoch, place = divmod(position, len(questions))
        if epoch not in orders:
            generator = torch.Generator().manual_seed(seed_of(seed, "questions", epoch))
            orders[epoch] = torch.randperm(len(questions), generator=generator).tolist()
        chosen.append(questions[orders[epoch][place]])
    return chosen
