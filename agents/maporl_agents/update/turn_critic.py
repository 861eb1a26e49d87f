"""A critic of turns as a preference model: pairs of whole episodes, read with the reference.

SWEET-RL (arXiv 2503.15478): the critic is a language model pi. What a message is worth is its mean
log-ratio with the reference policy, read behind the hidden reference c of the question::

    A(o, a, c) = (1/L) sum over l of log[ pi(a_l | o, a_<l, c) / pi_ref(a_l | o, a_<l, c) ]

It learns from pairs of episodes of one question, the better one preferred.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from maporl_agents.config.sweet_rl import Normalisation, SweetSettings
from maporl_agents.losses import episode_gains, preference_loss
from maporl_agents.measure.step_metrics import Metrics
from maporl_agents.models.team import Team
from maporl_agents.types import TokenBatch
from maporl_agents.update.gradient_accumulation import Counts, Loss
from maporl_agents.update.optimiser import PolicyLearner
from maporl_agents.update.preferences import step_on_pairs
from maporl_agents.update.reference_logprobs import reference_logprobs
from maporl_agents.update.token_logprobs import score_tokens


class EpisodePairs(NamedTuple):
    """The messages of P pairs of episodes, as the critic reads them.

    `batch.episodes` is the pair of each row. `reference` (B,) is the summed log-probability of each
    row under the reference policy, `chosen` (B,) whether it is of the preferred episode.
    """

    batch: TokenBatch
    reference: Tensor
    chosen: Tensor

    def select(self, rows: Tensor) -> EpisodePairs:
        """Return some rows; all of a pair belong together."""
        return EpisodePairs(self.batch.select(rows), self.reference[rows], self.chosen[rows])


def critic_step(
    learner: PolicyLearner,
    pairs: EpisodePairs,
    settings: SweetSettings,
    *,
    temperature: float,
) -> Metrics:
    """Take one optimiser step on pairs of episodes; return its metrics from before the step.

    Raises:
        FloatingPointError: as `preferences.preference_step`.
    """
    loss = partial(
        critic_loss,
        team=learner.team,
        pairs_of_step=len(pairs.batch.episodes.unique()),
        beta=settings.critic_beta,
        normalisation=settings.normalisation,
        temperature=temperature,
    )
    whole = pairs._replace(batch=pairs.batch.untruncated())
    return step_on_pairs(learner, whole, loss, settings.micro_tokens)


def critic_loss(
    part: EpisodePairs,
    counts: Counts,
    *,
    team: Team,
    pairs_of_step: int,
    beta: float,
    normalisation: Normalisation,
    temperature: float,
) -> Loss:
    """Return the share of some pairs in the mean preference loss of a step."""
    batch = part.batch
    gains = score_tokens(team, batch, temperature=temperature).logprobs.sum(1) - part.reference
    pair = torch.unique(batch.episodes, return_inverse=True)[1]
    count = int(pair.max()) + 1
    sides = 2 * pair + (~part.chosen).long()  # chosen, rejected, chosen, ...
    values = episode_gains(gains, batch.mask.sum(1), sides, 2 * count, normalisation=normalisation)
    nothing = torch.zeros_like(values[::2])
    loss = preference_loss(values[::2], values[1::2], nothing, nothing, beta=beta)
    share = count / pairs_of_step
    margins = beta * (values[::2] - values[1::2]).detach()
    metrics = {
        "critic/loss": share * float(loss.detach()),
        "critic/accuracy": share * float((margins > 0).float().mean()),
        "critic/margin": share * float(margins.mean()),
    }
    return loss * share, {batch.policies[0]: metrics}


@torch.no_grad()
def turn_advantages(team: Team, batch: TokenBatch, micro_tokens: int, temperature: float) -> Tensor:
    """Return A of every row of the critic, (B,): the mean over its tokens of the log-ratio."""
    if not len(batch):
        return batch.rewards
    now, before = (
        reference_logprobs(team, batch, micro_tokens, temperature, reference=reference)
        for reference in (False, True)
    )
    return (now - before) / batch.mask.sum(1)


def halves(advantages: Sequence[float], pairs: int) -> list[tuple[int, int]]:
    """Return `pairs` pairs of indices, the j-th best with the j-th worst, at most half of all.

    The chosen one is of the better half, the rejected one of the worse; equal ones make no pair.
    """
    order = sorted(range(len(advantages)), key=lambda place: -advantages[place])
    found = [(order[j], order[-1 - j]) for j in range(min(pairs, len(order) // 2))]
    return [(best, worst) for best, worst in found if advantages[best] > advantages[worst]]
