"""IAC: independent actor-critics at the level of turns, a critic per agent.

The sibling of MAGRPO (Liu et al., arXiv 2508.04652) that compares with what a critic expects and
not with other samples of the same node. Read `train_step` top to bottom: play, credit, score
tokens, update, log. With h_t what an agent has read when it speaks in turn t, r_t the joint reward
of that turn and V its own critic, read at the last token of h_t:

    delta_t = r_t + gamma V(h_t+1) - V(h_t)            V = 0 beyond the last turn
    policy    -mean over messages of delta_t * log pi(message | h_t)
    critic     mean over messages of (V(h_t) - r_t - gamma V(h_t+1))^2 / 2, the target held still

No ratio, no clip, no GAE, one update per batch. Sampling, scoring, surrogate and update are
MAGRPO's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from maporl_agents.algorithms import magrpo
from maporl_agents.batching import Row, batch_of, micro_batches, rows_by_base
from maporl_agents.config import IACSettings, MAGRPOSettings, Sampling
from maporl_agents.diagnostics import Metrics, explained_variance, rollout_metrics
from maporl_agents.joint_tree import joint_reward
from maporl_agents.learner import PolicyLearner
from maporl_agents.losses import value_loss
from maporl_agents.parallel import side_by_side
from maporl_agents.rollout import play
from maporl_agents.scoring import score_tokens
from maporl_agents.team import Team
from maporl_agents.types import Experience, Rollout, TokenBatch
from maporl_env.batched import BatchedDebate
from maporl_env.types import Question


def train_step(
    learner: PolicyLearner,
    debates: BatchedDebate,
    questions: Sequence[Question],
    sampling: Sampling,
    settings: IACSettings,
    *,
    seed: int,
) -> tuple[list[Rollout], Metrics]:
    """Play one debate per question and improve every policy and critic on it, once.

    Returns:
        The rollouts and the metrics (docs/schemes/magrpo.md).
    """
    team, temperature = learner.team, sampling.temperature
    usual = MAGRPOSettings(length=settings.length, micro_episodes=settings.micro_episodes)

    # Play: every agent answers once per turn.
    rollouts = play(team, debates, questions, sampling, seed=seed)

    # Credit: a message is worth what it led to beyond what its critic expected.
    rows, left_out = scored_rows(team, rollouts)
    batch = batch_of(team, rows)
    values = values_of(team, batch, settings, temperature)
    targets = batch.rewards + settings.turn_gamma * value_after(batch, values)
    deltas = replace(batch, rewards=targets - values)

    # Score tokens, then update once: there is no ratio to correct a second update.
    experience = with_critics(
        magrpo.evaluate_tokens(team, deltas, usual, temperature), values, targets
    )
    loss = partial(loss_of, team=team, settings=settings, usual=usual, temperature=temperature)
    updates = magrpo.update(learner, experience, loss, settings.micro_episodes) if rows else {}
    if rows:
        learner.schedule.step()

    # Log.
    metrics = rollout_metrics(rollouts) | magrpo.token_metrics(experience) | updates
    metrics |= {
        "explained_variance": explained_variance(values, targets),
        "advantage": float(deltas.rewards.abs().mean()) if rows else 0.0,
        "unscored_messages": left_out,
        "updates": int(bool(rows)),
        "learning_rate": learner.optimizer.param_groups[0]["lr"],
    }
    return rollouts, metrics


def scored_rows(team: Team, rollouts: Sequence[Rollout]) -> tuple[list[Row], int]:
    """Return a row per trained message, its `reward` the joint one of its turn.

    Of a debate in which a turn has no score nothing is learnt, as turns before it would not know
    what came of them; its messages are counted.
    """
    rows: list[Row] = []
    left_out = 0
    for episode, rollout in enumerate(rollouts):
        transcript = rollout.transcript
        paid = [joint_reward(transcript, turn) for turn in range(transcript.turn)]
        said = zip(
            transcript.messages,
            rollout.prompts,
            rollout.completions,
            rollout.policies,
            strict=True,
        )
        for message, prompt, completion, policy in said:
            seat, reward = transcript.agents.index(message.agent), paid[message.turn]
            if not team.trains(seat, message.turn):
                continue
            if reward is None or None in paid:
                left_out += 1
                continue
            rows.append(Row(prompt, completion, policy, episode, message.turn, seat, reward))
    return rows, left_out


@torch.no_grad()
def values_of(team: Team, batch: TokenBatch, settings: IACSettings, temperature: float) -> Tensor:
    """Return V(h) of every message, (B,): its critic where the agent has read, but not spoken."""
    found = torch.zeros(len(batch), device=batch.ids.device)

    @torch.no_grad()
    def read(base_rows: Tensor) -> None:
        for micro_rows in micro_batches(batch.select(base_rows), settings.micro_episodes):
            rows = base_rows[micro_rows]
            part = batch.select(rows)
            scores = score_tokens(team, part, temperature=temperature, with_values=True)
            found[rows] = scores.values[:, 0].to(found.dtype)

    side_by_side(read, rows_by_base(team, batch))
    return found


def value_after(batch: TokenBatch, values: Tensor) -> Tensor:
    """Return V of what the same agent reads in its next trained turn, (B,); 0 after its last."""
    places = list(zip(batch.episodes.tolist(), batch.seats.tolist(), batch.turns.tolist(),
                      strict=True))  # fmt: skip
    rows = {place: row for row, place in enumerate(places)}
    after = [rows.get((episode, seat, turn + 1)) for episode, seat, turn in places]
    index = torch.tensor([0 if row is None else row for row in after], device=values.device)
    last = torch.tensor([row is None for row in after], device=values.device)
    return torch.where(last, 0.0, values[index]) if after else values


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
    counts: magrpo.Counts,
    *,
    team: Team,
    settings: IACSettings,
    usual: MAGRPOSettings,
    temperature: float,
) -> magrpo.Loss:
    """Return the sum over policies of surrogate and critic loss on a micro-batch, and statistics.

    Both are means over a policy's own messages of the whole batch.
    """
    batch = part.batch
    scores = score_tokens(team, batch, temperature=temperature, with_values=True)
    total, statistics = magrpo.surrogate(scores, part, counts, usual)
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
