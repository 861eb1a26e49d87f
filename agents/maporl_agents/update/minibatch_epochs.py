"""Epochs and minibatches: several optimiser steps on one batch of messages, as PPO takes them.

In each epoch whole debates are dealt at random into minibatches, with an optimiser step on each
(`gradient_accumulation.apply`, which divides a minibatch into micro-batches).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from maporl_agents.measure.step_metrics import Metrics
from maporl_agents.seeding import seed_of
from maporl_agents.types import TokenBatch
from maporl_agents.update.batching import rows_of
from maporl_agents.update.gradient_accumulation import Counts, D, Loss, apply
from maporl_agents.update.optimiser import PolicyLearner


class Epochs(Protocol):
    """How often a batch is gone through, and in what parts; the settings of a scheme have these."""

    @property
    def epochs(self) -> int:
        """Passes over the batch."""
        ...

    @property
    def minibatches(self) -> int:
        """Optimiser steps of a pass."""
        ...

    @property
    def micro_tokens(self) -> int:
        """Largest number of tokens in one pass through the models."""
        ...


def learn_in_epochs(
    learner: PolicyLearner,
    data: D,
    loss: Callable[[D, Counts], Loss],
    settings: Epochs,
    *,
    seed: int,
    learnt: Tensor | None = None,
    target_kl: float | None = None,
) -> tuple[list[Metrics], int]:
    """Take an optimiser step on each minibatch of whole debates, then one step of the schedule.

    Args:
        learner: team and optimiser; updated in place.
        data: the batch; without messages there is no step.
        loss: loss of a micro-batch.
        settings: numbers of epochs and minibatches, and the tokens of a pass through the models.
        seed: deals the debates.
        learnt: (B,) bool, the messages that are learnt from; None for all.
        target_kl: a minibatch whose `approx_kl` is above this is the last one; None for no limit.

    Returns:
        The metrics of every optimiser step, and the number of minibatches that `target_kl` skipped.

    Raises:
        FloatingPointError: as `apply`.
    """
    generator = torch.Generator().manual_seed(seed_of(seed, "minibatches"))
    planned = [
        rows
        for _ in range(settings.epochs)
        for rows in minibatches(data.batch, settings.minibatches, generator)
    ]
    updates: list[Metrics] = []
    for rows in planned:
        part = data.select(rows if learnt is None else rows[learnt[rows]])
        updates.append(apply(learner, part, loss, micro_tokens=settings.micro_tokens))
        if target_kl is not None and updates[-1].get("approx_kl", 0.0) > target_kl:
            break
    if any(updates):
        learner.schedule.step()
    return updates, len(planned) - len(updates)


def minibatches(batch: TokenBatch, count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the rows of each of `count` minibatches; every row comes exactly once.

    Whole debates are dealt, in random order and evenly, so that an agent's turns stay together and
    are read in one sequence (see `layout`). With fewer debates than `count` there are fewer
    minibatches.
    """
    names = batch.episodes.unique().cpu()
    order = names[torch.randperm(len(names), generator=generator)]
    for chosen in order.tensor_split(min(count, len(order))) if len(order) else ():
        yield rows_of(batch, chosen)
