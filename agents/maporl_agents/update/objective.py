"""The loss of a policy whose messages have advantages, with KL and entropy where asked for.

Shared by the schemes without PPO's critic in the loss: MAGRPO, IAC and GRPO. A loss is, per policy,

    surrogate(advantages) + kl_coef * KL(pi || ref) - entropy_coef * entropy

each reduced over the policy's tokens in the same way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from maporl_agents.config import KLMeasure, RegularisedConfig, Variant
from maporl_agents.importance import policy_advantages
from maporl_agents.losses import (
    KLEstimator,
    Reduction,
    Surrogate,
    kl_estimate,
    policy_loss,
    reduced_mean,
)
from maporl_agents.measure.step_metrics import Metrics
from maporl_agents.models.fsdp import runs_together
from maporl_agents.models.team import Team
from maporl_agents.types import Experience, TokenBatch, TokenScores
from maporl_agents.update.gradient_accumulation import Counts, Loss
from maporl_agents.update.passes import numbers_in_passes
from maporl_agents.update.token_logprobs import score_tokens
from maporl_agents.update.token_tables import TokenTables


@dataclass(frozen=True)
class Objective:
    """What is minimised on scored messages.

    Attributes:
        reduction: how tokens become one number, of surrogate, KL and entropy alike.
        max_tokens: with reduction "constant", the divisor of each message's sum.
        surrogate: the objective of the ratios.
        clip_coef: width of the band below ratio 1.
        clip_high: width of the band above; None for `clip_coef`.
        ratio: weigh by the ratio to the policy before the update; without it by 1, so that the
            gradient is that of advantage * log pi.
        kl_coef: weight of the KL to the reference policy.
        kl_estimator: its estimator, or "exact" over the vocabulary.
        entropy_coef: weight of the entropy.
    """

    reduction: Reduction
    max_tokens: int = 1
    surrogate: Surrogate = "ppo"
    clip_coef: float = math.inf
    clip_high: float | None = None
    ratio: bool = True
    kl_coef: float = 0.0
    kl_estimator: KLMeasure = "k3"
    entropy_coef: float = 0.0

    def score(
        self, team: Team, batch: TokenBatch, temperature: float, *, with_values: bool = False
    ) -> TokenScores:
        """Return what the loss reads of a micro-batch, with gradient."""
        return score_tokens(
            team,
            batch,
            temperature=temperature,
            with_values=with_values,
            with_entropy=True,
            train_entropy=self.entropy_coef > 0,
            with_kl=self.kl_coef > 0 and self.kl_estimator == "exact",
        )

    def loss(self, scores: TokenScores, part: Experience, counts: Counts) -> Loss:
        """Return the sum over policies of their losses on a micro-batch, and statistics of each."""
        batch = part.batch
        advantages = policy_advantages(part)
        # Without a ratio it is 1, with the gradient of the log-probability: REINFORCE.
        old = part.logprobs if self.ratio else scores.logprobs.detach()  # (B, L)
        total = scores.logprobs.new_zeros(())
        statistics: dict[str, Metrics] = {}
        for policy, rows in batch.by_policy():
            num_tokens, num_sequences = counts[policy]
            mask = batch.mask[rows]
            loss, stats = policy_loss(
                scores.logprobs[rows],
                old[rows],
                advantages[rows],
                mask,
                clip_coef=self.clip_coef,
                clip_high=self.clip_high,
                surrogate=self.surrogate,
                reduction=self.reduction,
                max_tokens=self.max_tokens,
                num_tokens=num_tokens,
                num_sequences=num_sequences,
            )
            # `stats` are means over these tokens; as shares of the window they add up to its means.
            share = float(mask.sum()) / num_tokens
            statistics[policy] = {
                "loss/policy": float(loss.detach()),
                "entropy": float(scores.entropy[rows].detach().sum()) / num_tokens,
                "clip_frac": float(stats["clip_frac"]) * share,
                "approx_kl": float(stats["approx_kl"]) * share,
            }
            total = total + loss
            window = (self.reduction, num_tokens, num_sequences, self.max_tokens)
            if self.kl_coef > 0:
                distance = reduced_mean(self._kl(scores, part, rows), mask, *window)
                total = total + self.kl_coef * distance
                statistics[policy]["loss/kl"] = float(distance.detach())
            if self.entropy_coef > 0:
                spread = reduced_mean(scores.entropy[rows], mask, *window)
                total = total - self.entropy_coef * spread
        return total, statistics

    def _kl(self, scores: TokenScores, part: Experience, rows: Tensor) -> Tensor:
        """Return the KL before each token, (B', L), with gradient."""
        if scores.kl is not None:
            return scores.kl[rows]
        estimator = cast(KLEstimator, self.kl_estimator)
        return kl_estimate(scores.logprobs[rows], part.ref_logprobs[rows], estimator)


@torch.no_grad()
def message_kl(
    team: Team,
    batch: TokenBatch,
    logprobs: Tensor,
    ref_logprobs: Tensor,
    *,
    estimator: KLMeasure,
    temperature: float,
    micro_tokens: int,
) -> Tensor:
    """Return the KL to the reference policy of every message, (B,): the sum over its tokens.

    Args:
        team: the models, as they were when the messages were sampled.
        batch: the messages.
        logprobs: (B, L), under the policy.
        ref_logprobs: (B, L), under the reference policy.
        estimator: of each token's KL, or "exact" over the vocabulary, in further passes.
        temperature: the sampling temperature.
        micro_tokens: largest number of tokens in one pass.
    """
    if estimator != "exact":
        of_tokens = kl_estimate(logprobs, ref_logprobs, estimator)
        return torch.where(batch.mask, of_tokens, 0.0).sum(1)
    if not len(batch):
        return logprobs.new_zeros(0)

    def read(rows: Tensor) -> Tensor:
        scores = score_tokens(team, batch.select(rows), temperature=temperature, with_kl=True)
        assert scores.kl is not None
        return scores.kl[None]

    kl = numbers_in_passes(batch, read, micro_tokens, packed=False, alike=runs_together(team))
    return kl[0].sum(1).to(logprobs.dtype)


def kl_of_rewards(
    team: Team,
    batch: TokenBatch,
    scored: Experience | TokenTables,
    settings: RegularisedConfig | Variant,
    *,
    temperature: float,
    micro_tokens: int,
) -> Tensor | None:
    """Return what the KL takes off the reward of every message, (B,); None where it counts nothing.

    Arguments are those of `message_kl`; `scored` has the log-probabilities, `settings` the KL
    coefficient, its estimator and its place.
    """
    if not settings.kl_coef or settings.kl_place != "reward":
        return None
    return settings.kl_coef * message_kl(
        team,
        batch,
        scored.logprobs,
        scored.ref_logprobs,
        estimator=settings.kl_estimator,
        temperature=temperature,
        micro_tokens=micro_tokens,
    )
