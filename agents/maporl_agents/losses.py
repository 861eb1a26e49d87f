"""Losses of the learners: pure functions that return their statistics and log nothing.

Conventions, for every function that takes a `mask`:

- `mask` is boolean (B, L), True = a real sampled token, one unbroken run per row, anywhere in
  the row. Values elsewhere, NaN and infinities included, change neither the loss nor its gradient.
- A batch without real tokens gives exactly 0, and the loss still backpropagates (zeros).
- Losses of micro-batches *add up* to the loss of the whole accumulation window once each call is
  told the size of the window (`num_tokens`, `num_sequences`): call `backward` on each, then step.
- Only the first argument carries gradient; what was sampled or estimated earlier is a constant.
- Half-precision inputs are computed and returned in float32.

Axis letters: B sequences, L tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from maporl_agents import tensor_checks
from maporl_agents.config.sweet_rl import Normalisation
from maporl_agents.divergences import KLEstimator, entropy, exact_kl, full_kl, k3, kl_estimate

__all__ = [
    "KLEstimator",
    "Normalisation",
    "Reduction",
    "Surrogate",
    "entropy",
    "episode_gains",
    "exact_kl",
    "full_kl",
    "kl_estimate",
    "masked_mean",
    "policy_loss",
    "preference_loss",
    "ratio_stats",
    "reduced_mean",
    "value_loss",
]

Reduction = Literal["token", "sequence", "constant"]
Surrogate = Literal["ppo", "gspo", "cispo"]


def masked_mean(x: Tensor, mask: Tensor, *, count: float | Tensor | None = None) -> Tensor:
    """Mean of the real elements; 0, with a gradient of zeros, if there are none.

    Args:
        x: any shape.
        mask: boolean, the shape of `x`.
        count: what the sum is divided by (at least 1); None for the number of real elements.

    Raises:
        ValueError: if shapes differ, `mask` is not boolean, or `count` is negative.
    """
    (x,) = tensor_checks.real_only(mask, x=x)
    return _divide(x.sum(), mask.sum() if count is None else count, "count")


def _divide(total: Tensor, count: float | Tensor, name: str) -> Tensor:
    """Divide by max(count, 1): an empty window then gives 0 instead of 0 / 0."""
    if isinstance(count, Tensor):
        return total / count.clamp(min=1)
    if count < 0:
        raise ValueError(f"{name}={count!r} is negative: it counts the whole accumulation window.")
    return total / max(count, 1)


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_coef: float,
    reduction: Reduction = "token",
    max_tokens: int | None = None,
    num_tokens: float | Tensor | None = None,
    num_sequences: float | Tensor | None = None,
    clip_high: float | None = None,
    surrogate: Surrogate = "ppo",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Clipped surrogate objective of PPO, token level, and its relatives.

    Per real token, with ratio = exp(logprobs - old_logprobs) and band = [1 - clip_coef,
    1 + clip_high] (the *ratio* is clipped, not, as MAPoRL prints, the product):

        "ppo"    -min(ratio * A, clip(ratio, band) * A)              arXiv 1707.06347, equation 7
        "gspo"   the same with s = exp(mean log ratio of the         arXiv 2507.18071, equation 7
                 sequence's tokens) in place of each token's ratio
        "cispo"  -clip(ratio, band) * A * logprobs, where the        arXiv 2506.13585, equation 4
                 clipped ratio is a constant: no token loses its gradient

    `reduction` says how tokens become one number:

        "token"     sum / num_tokens                   every token weighs the same
        "sequence"  sum of token means / num_sequences every sequence weighs the same
        "constant"  sum / (num_sequences * max_tokens) no length in the denominator (2503.20783)

    Args:
        logprobs: (B, L), under the policy being trained.
        old_logprobs: (B, L), at sampling.
        advantages: (B, L); expand one value per sequence with `a[:, None].expand_as(mask)`.
        mask: (B, L), True = a real token.
        clip_coef: width of the band below ratio 1, and above it unless `clip_high` is given.
        reduction: see above.
        max_tokens: the completion length limit; needed by "constant", else unused.
        num_tokens: real tokens of the whole accumulation window; None if this call is the
            window. Used by "token".
        num_sequences: sequences of the whole window; None if this call is the window. Rows
            without tokens have no mean, so "sequence" counts only the others; "constant" counts
            every row.
        clip_high: width of the band above ratio 1 ("clip-higher", arXiv 2503.14476); None for
            `clip_coef`.
        surrogate: which of the three objectives.

    Returns:
        (loss, stats). The loss is 0-d. stats are detached 0-d tensors over the real tokens of
        this call (0 if there are none), of the sequences' ratios with "gspo":
        `clip_frac`, share with a ratio outside the band;
        `approx_kl`, mean k3 estimate of KL(old || new): ratio - 1 - log ratio;
        `ratio_mean`; `ratio_max`.

    Raises:
        ValueError: if shapes disagree, `mask` is not boolean, an option is unknown, "constant"
            has no positive `max_tokens`, or a number is negative.
    """
    tensor_checks.require_option("reduction", reduction, get_args(Reduction))
    tensor_checks.require_option("surrogate", surrogate, get_args(Surrogate))
    clip_high = clip_coef if clip_high is None else clip_high
    _require_not_negative("clip_coef", clip_coef)
    _require_not_negative("clip_high", clip_high)
    tensor_checks.require_mask(mask, dims=2)
    logprobs, old_logprobs, advantages = tensor_checks.real_only(
        mask, logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages
    )
    log_ratio = logprobs - old_logprobs.detach()  # (B, L), 0 outside the mask
    if surrogate == "gspo":
        # One ratio per sequence, the geometric mean of its tokens': no token is clipped alone.
        means = log_ratio.sum(1) / mask.sum(1).clamp(min=1)  # (B,)
        log_ratio = torch.where(mask, means[:, None], 0.0)
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_coef, 1 + clip_high)
    gain = advantages.detach()  # (B, L); the loss trains the policy alone
    if surrogate == "cispo":
        losses = -clipped.detach() * gain * logprobs
    else:
        # The smaller gain: a ratio outside the band still counts where it makes the loss worse.
        losses = -torch.minimum(ratio * gain, clipped * gain)
    loss = reduced_mean(losses, mask, reduction, num_tokens, num_sequences, max_tokens)
    return loss, ratio_stats(log_ratio.detach(), mask, clip_coef, clip_high)


def _require_not_negative(name: str, value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{name}={value!r} is out of range: it must be 0 or more.")


def reduced_mean(
    x: Tensor,
    mask: Tensor,
    reduction: Reduction = "token",
    num_tokens: float | Tensor | None = None,
    num_sequences: float | Tensor | None = None,
    max_tokens: int | None = None,
) -> Tensor:
    """Mean over real tokens, over sequences of the mean over each one's tokens, or "constant".

    "sequence" is the expectation of a token that is drawn uniformly within a sequence.

    Args:
        x: (B, L).
        mask: (B, L), True = a real token.
        reduction: as for `policy_loss`.
        num_tokens: real tokens of the whole accumulation window, for "token"; None for these.
        num_sequences: sequences of the whole window, for the others; None for these.
        max_tokens: the completion length limit, for "constant".

    Raises:
        ValueError: if shapes differ, `mask` is not boolean, an option is unknown, a count is
            negative, or "constant" has no positive `max_tokens`.
    """
    tensor_checks.require_option("reduction", reduction, get_args(Reduction))
    if reduction == "token":
        return masked_mean(x, mask, count=num_tokens)
    tensor_checks.require_mask(mask, dims=2)
    (x,) = tensor_checks.real_only(mask, x=x)
    if reduction == "constant":
        return _constant_mean(x, max_tokens, num_sequences)
    return _sequence_mean(x, mask, num_sequences)


def _sequence_mean(losses: Tensor, mask: Tensor, num_sequences: float | Tensor | None) -> Tensor:
    """Mean over sequences of their token means; `losses` is 0 outside the mask."""
    lengths_tokens = mask.sum(1)  # (B,)
    means = losses.sum(1) / lengths_tokens.clamp(min=1)  # (B,), 0 for a row without tokens
    count = (lengths_tokens > 0).sum() if num_sequences is None else num_sequences
    return _divide(means.sum(), count, "num_sequences")


def _constant_mean(
    losses: Tensor, max_tokens: int | None, num_sequences: float | Tensor | None
) -> Tensor:
    """Sum over (rows * max_tokens); `losses` is 0 outside the mask."""
    if max_tokens is None or max_tokens <= 0:
        raise ValueError(
            f"reduction='constant' needs max_tokens, the completion length limit, "
            f"but max_tokens={max_tokens!r}: pass a positive number."
        )
    count = losses.shape[0] if num_sequences is None else num_sequences
    return _divide(losses.sum(), count, "num_sequences") / max_tokens


def ratio_stats(
    log_ratio: Tensor, mask: Tensor, clip_coef: float, clip_high: float
) -> dict[str, Tensor]:
    """Return PPO's diagnostics of the ratios: clip fraction, approximate KL, mean and maximum.

    Args:
        log_ratio: (B, L), log-probabilities of now less those at sampling.
        mask: (B, L), True = a real token.
        clip_coef: width of the band below ratio 1.
        clip_high: width of the band above it.

    Returns:
        `clip_frac`, `approx_kl`, `ratio_mean` and `ratio_max`, as `policy_loss` returns them.
    """
    ratio = log_ratio.exp()
    real_ratio = torch.where(mask, ratio, 0.0)
    outside = (1 - ratio > clip_coef) | (ratio - 1 > clip_high)
    return {
        "clip_frac": masked_mean(outside.to(ratio), mask),
        "approx_kl": masked_mean(k3(-log_ratio), mask),  # the old policy sampled: d = -log ratio
        "ratio_mean": masked_mean(ratio, mask),
        "ratio_max": real_ratio.amax() if ratio.numel() else real_ratio.sum(),
    }


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    *,
    clip_coef: float | None = None,
    num_tokens: float | Tensor | None = None,
    reduction: Literal["token", "sequence"] = "token",
    num_sequences: float | Tensor | None = None,
) -> Tensor:
    """Squared error of the critic, mean over tokens or over sequences.

    Per real token:

        loss = 0.5 * (V - R)^2                                                   clip_coef None
        loss = 0.5 * max((V - R)^2, (V_old + clip(V - V_old, +-clip_coef) - R)^2)

    The larger of the two: clipping can only hold a value back from leaving V_old too fast, as
    the clipped policy loss does ("The 37 implementation details of PPO", Huang et al. 2022,
    detail 9).

    Args:
        values: (B, L), of the critic being trained.
        old_values: (B, L), at sampling; read only if clipping is on.
        returns: (B, L), advantages + old values.
        mask: (B, L), True = a real token.
        clip_coef: largest counted move from the old value, in units of reward; None for none.
        num_tokens: real tokens of the whole accumulation window; None if this call is the window.
        reduction: how tokens become one number, as for `policy_loss`.
        num_sequences: sequences of the whole window, for "sequence"; None if this call is it.

    Returns:
        The loss, 0-d.

    Raises:
        ValueError: if shapes disagree, `mask` is not boolean, an option is unknown, or a number
            is negative.
    """
    values, old_values, returns = tensor_checks.real_only(
        mask, values=values, old_values=old_values.detach(), returns=returns.detach()
    )
    errors = (values - returns).square()  # (B, L)
    if clip_coef is not None:
        _require_not_negative("clip_coef", clip_coef)
        clipped = old_values + (values - old_values).clamp(-clip_coef, clip_coef)
        errors = torch.maximum(errors, (clipped - returns).square())
    return 0.5 * reduced_mean(errors, mask, reduction, num_tokens, num_sequences)


def preference_loss(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    *,
    beta: float,
    labels: Literal["hard"] | Tensor = "hard",
) -> Tensor:
    """Direct preference optimisation on pairs of completions.

    With z = beta * [(chosen - ref_chosen) - (rejected - ref_rejected)] (Rafailov et al.,
    arXiv 2305.18290, equation 7, which is the hard case p = 1):

        loss = mean over pairs of -[p * log sigmoid(z) + (1 - p) * log sigmoid(-z)]

    p is the probability that "chosen" is preferred. With p = sigmoid(Q_chosen - Q_rejected)
    the optimum is finite, z = Q_chosen - Q_rejected; with hard labels z grows without end
    (MALT, arXiv 2412.01928).

    Args:
        chosen: (B,), summed log-probabilities under the policy being trained.
        rejected: (B,), likewise.
        ref_chosen: (B,), under the reference policy.
        ref_rejected: (B,), likewise.
        beta: strength of the pull towards the reference policy, above 0.
        labels: "hard" (p = 1), or p as a tensor (B,) in [0, 1].

    Returns:
        The mean loss, 0-d; 0 for an empty batch.

    Raises:
        ValueError: if shapes differ, beta is not positive, or labels are unknown or outside
            [0, 1].
    """
    if not beta > 0:
        raise ValueError(f"beta={beta!r} is out of range: it must be above 0.")
    if chosen.dim() != 1:
        raise ValueError(f"chosen has shape {tuple(chosen.shape)}: it needs one axis, (B,).")
    named = {"rejected": rejected, "ref_chosen": ref_chosen, "ref_rejected": ref_rejected}
    for name, tensor in named.items():
        tensor_checks.require_shape(name, tensor, chosen.shape, like="chosen")
    dtype = tensor_checks.working_dtype(chosen, *named.values())
    chosen_gain = chosen.to(dtype) - ref_chosen.detach().to(dtype)
    rejected_gain = rejected.to(dtype) - ref_rejected.detach().to(dtype)
    margin = beta * (chosen_gain - rejected_gain)  # (B,), z
    total = F.binary_cross_entropy_with_logits(margin, _preferred(labels, margin), reduction="sum")
    return total / max(len(chosen), 1)


def episode_gains(
    gains: Tensor,
    lengths: Tensor,
    episodes: Tensor,
    count: int,
    *,
    normalisation: Normalisation = "turn",
) -> Tensor:
    """Return the log-ratio of each episode from those of its messages.

    SWEET-RL (Zhou et al., arXiv 2503.15478) states sum over turns of the mean over tokens; its code
    takes one mean over all tokens of the episode, so that a turn weighs by its length, and a shared
    turn does not cancel in a pair::

        "turn"      sum over t of gains_t / lengths_t
        "episode"   sum over t of gains_t / sum over t of lengths_t
        "none"      sum over t of gains_t

    Args:
        gains: (B,) log-ratio of each message, summed over its tokens.
        lengths: (B,) tokens of each message, at least 1.
        episodes: (B,) int64, the episode of each message, in [0, count).
        count: E, episodes.
        normalisation: see above.

    Returns:
        (E,), 0 for an episode without messages.

    Raises:
        ValueError: shapes differ, or an unknown normalisation.
    """
    tensor_checks.require_option("normalisation", normalisation, get_args(Normalisation))
    for name, tensor in (("lengths", lengths), ("episodes", episodes)):
        tensor_checks.require_shape(name, tensor, gains.shape, like="gains")
    lengths = lengths.to(gains.dtype)
    totals = gains.new_zeros(count)
    if normalisation == "turn":
        return totals.index_add(0, episodes, gains / lengths)
    totals = totals.index_add(0, episodes, gains)
    if normalisation == "none":
        return totals
    return totals / gains.new_zeros(count).index_add(0, episodes, lengths).clamp(min=1)


def _preferred(labels: Literal["hard"] | Tensor, margin: Tensor) -> Tensor:
    """Return the probability that "chosen" is preferred, (B,)."""
    if not isinstance(labels, Tensor):
        if labels != "hard":
            raise ValueError(f"labels={labels!r} is not known: choose 'hard' or a (B,) tensor.")
        return torch.ones_like(margin)
    tensor_checks.require_shape("labels", labels, margin.shape, like="chosen")
    if not ((labels >= 0) & (labels <= 1)).all():
        raise ValueError(
            f"labels of shape {tuple(labels.shape)} leave [0, 1]: each is a probability."
        )
    return labels.detach().to(margin)
