"""Direct preference optimisation: of two messages after one prompt, raise the chosen one's odds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor

from maporl_agents.losses import preference_loss
from maporl_agents.measure.step_metrics import Metrics
from maporl_agents.models.team import Team
from maporl_agents.types import TokenBatch
from maporl_agents.update.gradient_accumulation import Counts, D, Loss, apply
from maporl_agents.update.optimiser import PolicyLearner
from maporl_agents.update.token_logprobs import score_tokens


class Pairs(NamedTuple):
    """P pairs of one policy: rows 2i and 2i + 1 of `batch` are chosen and rejected of pair i.

    `reference` (2P,) is the summed reference log-probability of each row, `certainty` (P,) the
    probability that the chosen message of each pair is the better one.
    """

    batch: TokenBatch
    reference: Tensor
    certainty: Tensor

    def select(self, rows: Tensor) -> Pairs:
        """Return some pairs; `rows` holds both rows of each."""
        return Pairs(self.batch.select(rows), self.reference[rows], self.certainty[rows[::2] // 2])


def preference_step(
    learner: PolicyLearner,
    pairs: Pairs,
    *,
    beta: float,
    micro_tokens: int,
    temperature: float,
    nll_coef: float = 0.0,
) -> Metrics:
    """Take one optimiser step on pairs of one policy; return its metrics from before the step.

    Log-probabilities are over the whole vocabulary, also where sampling truncates.

    Args:
        learner: team and optimiser; updated in place.
        pairs: the pairs of messages.
        beta: strength of the DPO loss; larger values keep the policy closer to the reference.
        micro_tokens: the largest number of tokens in one pass; changes memory, not the result.
        temperature: sampling temperature of the log-probabilities that are compared.
        nll_coef: weight of the chosen messages' negative log-likelihood, mean over pairs.

    Raises:
        FloatingPointError: the loss or a gradient is not finite, and parameters stay as they are;
            or a parameter is not finite after the step.
    """
    loss = partial(
        pair_loss, team=learner.team, beta=beta, temperature=temperature, nll_coef=nll_coef
    )
    whole = pairs._replace(batch=pairs.batch.untruncated())
    return step_on_pairs(learner, whole, loss, micro_tokens)


def step_on_pairs(
    learner: PolicyLearner, pairs: D, loss: Callable[[D, Counts], Loss], micro_tokens: int
) -> Metrics:
    """Take one optimiser step on a loss of whole pairs; return its metrics but norms of parts.

    Arguments and errors as of `gradient_accumulation.apply`.
    """
    metrics = apply(learner, pairs, loss, micro_tokens=micro_tokens, whole_episodes=True)
    return {name: x for name, x in metrics.items() if not name.startswith("grad_norm/")}


def pair_loss(
    part: Pairs,
    counts: Counts,
    *,
    team: Team,
    beta: float,
    temperature: float,
    nll_coef: float = 0.0,
) -> Loss:
    """Return the share of some pairs in the mean DPO loss of all pairs of their policy."""
    scores = score_tokens(team, part.batch, temperature=temperature)
    logprobs, reference = scores.logprobs.sum(1), part.reference  # (2P,): chosen, rejected, ...
    loss = preference_loss(
        logprobs[::2],
        logprobs[1::2],
        reference[::2],
        reference[1::2],
        beta=beta,
        labels=part.certainty,
    )
    if nll_coef:
        loss = loss - nll_coef * logprobs[::2].mean()
    policy = part.batch.policies[0]
    share = 2 * len(part.certainty) / counts[policy][1]  # two messages to a pair
    gains = (logprobs - reference).detach()  # (2P,) log-ratios
    margins = beta * (gains[::2] - gains[1::2])  # (P,)
    metrics = {
        "preference_loss": share * float(loss.detach()),
        "preference_accuracy": share * float((margins > 0).float().mean()),
        "preference_margin": share * float(margins.mean()),
        "chosen_gain": share * float(gains[::2].mean()),
    }
    return loss * share, {policy: metrics}
