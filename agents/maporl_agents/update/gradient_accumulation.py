"""One optimiser step on a batch of any size: accumulate gradients over micro-batches, then step.

All schemes train through `apply`, MAPoRL, GRPO and MAGRPO in epochs of minibatches
(`minibatch_epochs`); each passes its own loss. Of several ranks each reads a part of the batch,
about equal in tokens; the gradients of all are added up before the step.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from maporl_agents import distributed
from maporl_agents.measure.step_metrics import Metrics, mean_of, sums_by_policy
from maporl_agents.models.fsdp import runs_together
from maporl_agents.models.parallel_bases import side_by_side
from maporl_agents.phases import phase
from maporl_agents.types import TokenBatch
from maporl_agents.update.batching import (
    micro_batches,
    rows_by_base,
    rows_of_rank,
)
from maporl_agents.update.finite_checks import not_finite
from maporl_agents.update.optimiser import PolicyLearner
from maporl_agents.update.passes import missing_passes

Counts = dict[str, tuple[int, int]]
"""Policy -> (tokens, messages) in the whole accumulation window: the denominators of means."""
Loss = tuple[Tensor, dict[str, Metrics]]
"""A scalar to minimise, and statistics by policy that add up over micro-batches."""


D = TypeVar("D", bound="Data")


class Data(Protocol):
    """Messages and the numbers that a loss reads beside them, such as `types.Experience`."""

    @property
    def batch(self) -> TokenBatch:
        """The messages."""
        ...

    def select(self: D, rows: Tensor, /) -> D:
        """Return the given rows of the batch and their numbers."""
        ...


@phase("update")
def apply(
    learner: PolicyLearner,
    data: D,
    loss: Callable[[D, Counts], Loss],
    *,
    micro_tokens: int,
    whole_episodes: bool = False,
) -> Metrics:
    """Take one optimiser step on a batch, the bases side by side: accumulate, clip, step, check.

    Args:
        learner: team and optimiser; updated in place.
        data: the batch; an empty one changes nothing.
        loss: loss of a micro-batch, given the counts of each policy in the whole batch. It divides
            by these counts, so that the losses of micro-batches add up to that of the batch.
        micro_tokens: largest number of tokens, padding included, in one pass through the models;
            changes memory and time, not the result.
        whole_episodes: keep all rows of an episode in one pass, such as those of a pair.

    Returns:
        The statistics of the loss, means over policies, and ``grad_norm/POLICY`` before clipping.

    Raises:
        FloatingPointError: the loss or a gradient is not finite, and parameters stay as they are;
            or a parameter is not finite after the step.
    """
    # Policies on different bases share no parameters: each base accumulates its own rows.
    parts = [data.select(rows) for rows in rows_by_base(learner.team, data.batch)]
    if not parts:
        return {}

    def read(part: D) -> dict[str, Metrics]:
        base = learner.team.base_of(part.batch.policies[0])
        own = part
        if distributed.count() > 1:
            own = part.select(rows_of_rank(part.batch, whole_episodes=whole_episodes))
        return accumulate(
            own,
            loss,
            micro_tokens,
            whole_episodes=whole_episodes,
            packed=base.reads_packed,
            counts=counts_of(part.batch),
            spare=part if base.sharded else None,
        )

    try:
        # A loss that is not finite on one rank is told in the place of its statistics.
        alike = runs_together(learner.team)
        own = [read(part) for part in parts] if alike else side_by_side(read, parts)
        statistics = distributed.gather("statistics", own)
        distributed.reduce_gradients(learner.parameters())
        norms = learner.apply_gradients()
    except FloatingPointError:
        learner.optimizer.zero_grad(set_to_none=True)
        raise
    sums = sums_by_policy(chain.from_iterable(statistics))
    return mean_of(list(sums.values())) | norms


def accumulate(
    data: D,
    loss: Callable[[D, Counts], Loss],
    micro_tokens: int,
    *,
    whole_episodes: bool = False,
    packed: bool = False,
    counts: Counts | None = None,
    spare: D | None = None,
) -> dict[str, Metrics]:
    """Add up the gradient of a batch over its micro-batches; changes no parameter.

    Arguments are those of `apply` and of `batching.micro_batches`; `counts` are those of the whole
    accumulation window, None for those of the batch. Where all ranks have to run equally many
    passes (`Base.sharded`), one that has fewer reads the first message of `spare` without effect.

    Returns:
        The statistics of each policy.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    batch = data.batch
    counts = counts_of(batch) if counts is None else counts
    statistics: list[dict[str, Metrics]] = []
    bad: FloatingPointError | None = None
    passes = list(micro_batches(batch, micro_tokens, whole_episodes=whole_episodes, packed=packed))
    missing = 0 if spare is None else missing_passes(len(passes))
    for rows in passes:
        total, parts = loss(data.select(rows), counts)
        if not torch.isfinite(total):
            bad = bad or not_finite("the loss", total)
            if spare is None:
                raise bad  # otherwise other ranks wait for the passes that are left
        total.backward()  # frees this micro-batch's activations; .grad keeps the sum
        statistics.append(parts)
    if spare is not None:
        again = _first(spare, whole_episodes=whole_episodes)
        for _ in range(missing):
            (0 * loss(again, counts)[0]).backward()
    if bad is not None:
        raise bad
    return sums_by_policy(statistics)


def _first(data: D, *, whole_episodes: bool) -> D:
    """Return the first message of a batch, with `whole_episodes` those of its first debate."""
    episodes = data.batch.episodes
    rows = (episodes == episodes[0]).nonzero()[:, 0]
    return data.select(rows if whole_episodes else rows[:1])


def counts_of(batch: TokenBatch) -> Counts:
    """Return the tokens and messages of each policy in a batch."""
    return {policy: (int(batch.mask[r].sum()), len(r)) for policy, r in batch.by_policy()}
