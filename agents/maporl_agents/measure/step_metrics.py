"""Metrics of a training step: rewards, lengths, KL, entropy, explained variance and others.

Clip fraction and approximate KL of the ratios come from `losses.ratio_stats`, and are means over a
step's minibatches (`mean_of`).

Every metric is defined, with its reading, in docs/reference/metrics.md. Shares are in [0, 1]; turns
and agents are named `turn_1`, `agent_0`. Debates that ended early count as far as they went.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor

from maporl_agents.importance import MOST, importance_weights
from maporl_agents.losses import kl_estimate, masked_mean
from maporl_agents.measure.copying import answers_of, copy_rates, laziness
from maporl_agents.types import Completion, Experience, Rollout, StopReason, TokenBatch
from maporl_env.credit import correctness
from maporl_env.types import Message, Transcript

Metrics = dict[str, float]
Samples = Iterator[tuple[str, float]]
"""(metric, one of the values that it is the mean of)."""


def rollout_metrics(rollouts: Sequence[Rollout], new_from: Sequence[int] | None = None) -> Metrics:
    """Return metrics of rollouts: rewards, ends of messages, and agents' behaviour by turn.

    All are means over the rollouts; those of scores and rewards are over scored messages, and
    absent where there are none.

    Args:
        rollouts: finished debates.
        new_from: of branches of a tree, per rollout, the first turn that no rollout before it
            holds: what several branches share counts once. None for debates of their own.
    """
    starts = [0] * len(rollouts) if new_from is None else new_from
    played = list(zip(rollouts, starts, strict=True))
    metrics = means(pair for one in played for pair in _message_samples(*one))
    if any(c.results for one in played for _, c in _said(*one)):
        metrics |= means(pair for one in played for pair in _tool_samples(*one))
    metrics |= means(pair for one in played for pair in _debate_samples(*one))
    metrics |= means(("reward", reward) for one in played for reward in _scored_rewards(*one))
    completions = [c for one in played for _, c in _said(*one)]
    drafts = [draft.completion for rollout in rollouts for draft in rollout.drafts]
    metrics["tokens"] = float(sum(c.own_tokens for c in (*completions, *drafts)))
    metrics["answers"] = float(len(completions))
    if drafts:
        metrics["drafts"] = len(drafts) / len(completions)
    metrics["cut_off"] = sum(c.stop is StopReason.LENGTH for c in completions) / len(completions)
    return metrics


def counts_of(left_out: int, updates: int, learning_rate: float) -> Metrics:
    """Return how many messages had no score, how many updates there were, and their rate."""
    return {
        "unscored_messages": left_out,
        "updates": updates,
        "learning_rate": learning_rate,
    }


def means(pairs: Iterable[tuple[str, float]]) -> Metrics:
    """Return the mean of the values of each name, in order of first appearance."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    for name, value in pairs:
        values[name].append(value)
    return {name: sum(each) / len(each) for name, each in values.items()}


def _said(rollout: Rollout, start: int) -> list[tuple[Message, Completion]]:
    """Return the messages from turn `start` on, each with its tokens."""
    pairs = zip(rollout.transcript.messages, rollout.completions, strict=True)
    return [(message, completion) for message, completion in pairs if message.turn >= start]


def _scored_rewards(rollout: Rollout, start: int) -> list[float]:
    """Return the rewards from turn `start` on of the messages that have a score."""
    rewards: list[float] = rollout.rewards[start:][rollout.scored[start:]].tolist()
    return rewards


def _message_samples(rollout: Rollout, start: int) -> Samples:
    """Yield the score, the length in tokens and the kind of end of every message."""
    for message, completion in _said(rollout, start):
        turn = f"turn_{message.turn + 1}"
        if message.score is not None:
            yield f"score/{turn}", message.score
        yield f"length/{turn}", completion.own_tokens
        yield f"cut_off/{turn}", completion.stop is StopReason.LENGTH
        yield f"empty/{message.agent}", not message.text.strip()


def _tool_samples(rollout: Rollout, start: int) -> Samples:
    """Yield the calls of tools and the tokens of their results of every message."""
    for message, completion in _said(rollout, start):
        turn = f"turn_{message.turn + 1}"
        yield f"tool_calls/{turn}", len(completion.results)
        yield f"tool_tokens/{turn}", len(completion.ids) - completion.own_tokens


def _debate_samples(rollout: Rollout, start: int) -> Samples:
    """Yield the behaviour of a debate's agents in its complete turns from `start` on.

    Of a protocol in which agents do not all speak in every turn it yields the accuracy of the
    messages that are scored; of a game that pays without a verifier, each agent's return.
    """
    transcript = rollout.transcript
    if rollout.scored.any() and all(message.score is None for message in transcript.messages):
        for index in rollout.scored[0].nonzero()[0]:
            yield f"return/{transcript.agents[index]}", float(rollout.rewards[0, index])
        return
    if transcript.ends is not None:
        yield from _accuracies(transcript, start)
        return
    if not all(
        len({m.agent for m in transcript.of_turn(t)}) == len(transcript.agents)
        for t in range(transcript.turn)
    ):
        return
    answers, copied = answers_of(transcript), copy_rates(transcript)
    for index, (row, shares) in enumerate(zip(answers, copied, strict=True)):
        if index < start:
            continue
        turn = f"turn_{index + 1}"
        yield f"agreement/{turn}", len({answer for answer in row if answer is not None}) == 1
        yield from ((f"invalid/{turn}", answer is None) for answer in row)
        yield from ((f"copy/{turn}", share) for share in shares)
    yield from _accuracies(transcript, start)
    right, known = correctness(transcript)
    for turn, agent in zip(*(known[1:] & known[:-1]).nonzero(), strict=True):
        if turn + 1 >= start:
            before, now = bool(right[turn, agent]), bool(right[turn + 1, agent])
            yield f"wrong_to_right/turn_{turn + 2}", now and not before
            yield f"right_to_wrong/turn_{turn + 2}", before and not now
    if len(answers) > 1:
        yield from zip((f"lazy/{a}" for a in transcript.agents), laziness(answers), strict=True)


def _accuracies(transcript: Transcript, start: int) -> Samples:
    """Yield whether messages are right, where that is known, from turn `start` on."""
    right, known = correctness(transcript)
    for turn, agent in zip(*known.nonzero(), strict=True):
        if turn >= start:
            yield f"accuracy/turn_{turn + 1}", bool(right[turn, agent])


def experience_metrics(experience: Experience) -> Metrics:
    """Return KL to the reference, the critic's fit, entropies, and sampler-trainer mismatch.

    All are absent without any scored message; explained variance is 0 where the returns have no
    spread.
    """
    batch = experience.batch
    if not len(batch):
        return {}
    kl = kl_estimate(experience.logprobs, experience.ref_logprobs)
    seen = batch.mask
    if experience.rescored is not None:
        seen = seen & experience.rescored[:, None]
    log_ratio = (experience.logprobs - batch.sampled_logprobs)[seen]
    # A server's distance has a name of its own: with a lag it is no fault of arithmetic.
    off = (
        importance_metrics(batch, experience.logprobs)
        if batch.served
        else {"ratio_mismatch": float(log_ratio.expm1().abs().mean())}
    )
    return off | {
        "kl": float(masked_mean(kl, batch.mask)),
        "explained_variance": explained_variance(
            experience.values[batch.mask], experience.returns[batch.mask]
        ),
        "sampler_mismatch": float(log_ratio.abs().max()),
        "sampler_fault": experience.fault,
        "zero_spread": zero_spread(batch),
        **entropies(batch, experience.logprobs),
    }


def importance_metrics(batch: TokenBatch, logprobs: Tensor) -> Metrics:
    """Return the mean of the importance weights of served tokens, and the share at the bound."""
    weights = importance_weights(logprobs, batch.sampled_logprobs, batch.mask)
    return {
        "importance_weight": float(masked_mean(weights, batch.mask)),
        "importance_capped": float(masked_mean((weights >= MOST).to(weights.dtype), batch.mask)),
    }


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """Return the share of the returns' variance that critics predict; 0 without variance."""
    spread = returns.var(correction=0) if len(returns) else 0.0
    return float(1 - (returns - values).var(correction=0) / spread) if spread else 0.0


def zero_spread(batch: TokenBatch) -> float:
    """Return the share of (turn, agent) groups whose messages all got the same reward.

    With `leave_out_equal_rewards` MAPoRL does not learn from such a group. 0 without any message.
    """
    groups = [batch.rewards[rows] for _, rows in batch.by_message()]
    return sum(bool((r == r[0]).all()) for r in groups) / len(groups) if groups else 0.0


def entropies(batch: TokenBatch, logprobs: Tensor) -> Metrics:
    """Return the entropy of each policy by turn, in nats per token.

    Estimated without bias by the mean of -log pi over the sampled tokens.
    """
    metrics: Metrics = {}
    for policy, rows in batch.by_policy():
        for turn in batch.turns[rows].unique().tolist():
            members = rows[batch.turns[rows] == turn]
            surprise = masked_mean(-logprobs[members], batch.mask[members])
            metrics[f"entropy/{policy}/turn_{turn + 1}"] = float(surprise)
    return metrics


def share_beyond(values: Tensor, old_values: Tensor, mask: Tensor, bound: float) -> float:
    """Return the share of real tokens whose value changed by more than a bound; 0 without any."""
    moved = (values.detach() - old_values).abs() > bound
    return float(masked_mean(moved.to(values.dtype), mask))


def mean_of(parts: Sequence[Metrics]) -> Metrics:
    """Return the mean of each metric over the parts that have it."""
    return means(pair for part in parts for pair in part.items())


def sums_of(parts: Sequence[dict[str, Metrics]]) -> list[Metrics]:
    """Return each policy's metrics, added up over the micro-batches it occurs in."""
    return list(sums_by_policy(parts).values())


def sums_by_policy(parts: Iterable[dict[str, Metrics]]) -> dict[str, Metrics]:
    """Return the metrics of each policy, added up over the micro-batches it occurs in."""
    totals: dict[str, Metrics] = {}
    for part in parts:
        for policy, metrics in part.items():
            total = totals.setdefault(policy, dict.fromkeys(metrics, 0.0))
            for name, value in metrics.items():
                total[name] += value
    return totals
