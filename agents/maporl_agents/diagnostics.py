"""What is logged about a step: functions of what was played and learnt; they change nothing."""

from __future__ import annotations

from collections.abc import Sequence

from maporl_agents.losses import kl_estimate, masked_mean
from maporl_agents.types import Experience, Rollout, StopReason

Metrics = dict[str, float]


def rollout_metrics(rollouts: Sequence[Rollout]) -> Metrics:
    """Return what was played: rewards and accuracy by turn, lengths, how messages ended."""
    metrics: Metrics = {}
    turns = max(rollout.rewards.shape[0] for rollout in rollouts)
    for turn in range(turns):
        scores = [
            message.score
            for rollout in rollouts
            for message in rollout.transcript.of_turn(turn)
            if message.score is not None
        ]
        if scores:
            metrics[f"score/turn_{turn + 1}"] = sum(scores) / len(scores)
    completions = [c for rollout in rollouts for c in rollout.completions]
    metrics["reward"] = sum(float(rollout.rewards.mean()) for rollout in rollouts) / len(rollouts)
    metrics["tokens"] = float(sum(len(c.ids) for c in completions))
    metrics["answers"] = float(len(completions))
    metrics["cut_off"] = sum(c.stop is StopReason.LENGTH for c in completions) / len(completions)
    return metrics


def experience_metrics(experience: Experience) -> Metrics:
    """Return KL to the reference per token, explained variance, and sampler-trainer mismatch.

    All 0 without any scored message; explained variance is 0 where the returns have no spread.
    """
    batch = experience.batch
    kl = kl_estimate(experience.logprobs, experience.ref_logprobs)
    real_returns = experience.returns[batch.mask]
    residual = real_returns - experience.values[batch.mask]
    spread = real_returns.var(correction=0) if len(batch) else 0.0
    mismatch = (experience.logprobs - batch.sampled_logprobs)[batch.mask].abs()
    return {
        "kl": float(masked_mean(kl, batch.mask)),
        "explained_variance": float(1 - residual.var(correction=0) / spread) if spread else 0.0,
        "sampler_mismatch": float(mismatch.max()) if len(batch) else 0.0,
    }


def mean_of(parts: Sequence[Metrics]) -> Metrics:
    """Return the mean of each metric over the parts that have it."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {
        name: sum(values) / len(values)
        for name in names
        if (values := [part[name] for part in parts if name in part])
    }


def sums_of(parts: Sequence[dict[str, Metrics]]) -> list[Metrics]:
    """Return each policy's metrics, added up over the micro-batches it occurs in."""
    totals: dict[str, Metrics] = {}
    for part in parts:
        for policy, metrics in part.items():
            total = totals.setdefault(policy, dict.fromkeys(metrics, 0.0))
            for name, value in metrics.items():
                total[name] += value
    return list(totals.values())
