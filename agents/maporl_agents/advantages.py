"""From verification rewards to advantages: pure functions on tensors.

Conventions, for every function that takes a `mask`:

- `mask` is boolean (B, L), True = a real sampled token, one unbroken run per row, anywhere in
  the row. Values elsewhere, NaN and infinities included, have no effect; outputs are 0 there.
- Results are targets: they carry no gradient, whatever the inputs require.
- Half-precision and integer inputs are computed and returned in float32.

Token rewards, with the KL penalty in them, are those of `kl_penalty`.

Axis letters: B sequences, L tokens, N samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from maporl_agents import tensor_checks
from maporl_agents.kl_penalty import token_rewards

__all__ = [
    "Baseline",
    "Scale",
    "gae",
    "group_advantages",
    "preference_advantages",
    "running_advantages",
    "token_rewards",
    "whiten",
]

Baseline = Literal["mean", "leave_one_out", "maximum", "none"]
Scale = Literal["none", "std"]

GROUP_STD_EPS = 1e-4
"""Added to a group's standard deviation before dividing by it."""


@torch.no_grad()
def gae(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    *,
    gamma: float,
    lam: float,
    bootstrap: float | Tensor = 0.0,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation over the tokens of each row.

    With the real tokens of a row numbered t = 0..n-1, and V_n = bootstrap (Schulman et al.,
    arXiv 1506.02438, equation 16, as the recursion for t = n-1 down to 0):

        delta_t = r_t + gamma * V_{t+1} - V_t
        A_t     = delta_t + gamma * lam * A_{t+1},   A_n = 0
        return  = A_t + V_t

    `lam=0` gives the TD error, `lam=1` the discounted return minus the value.

    Args:
        rewards: (B, L).
        values: (B, L), the critic's value before each token was chosen.
        mask: (B, L), True = a real token.
        gamma: discount per token, in [0, 1].
        lam: weight of longer horizons, in [0, 1].
        bootstrap: a number or (B,), the value after the last token: 0 where the episode
            terminated, the critic's value where it was truncated.

    Returns:
        (advantages, returns), each (B, L), both 0 outside the mask.

    Raises:
        ValueError: if shapes disagree, `mask` is not boolean, or gamma or lam leave [0, 1].
    """
    for name, factor in (("gamma", gamma), ("lam", lam)):
        if not 0.0 <= factor <= 1.0:
            raise ValueError(f"{name}={factor!r} is out of range: it lies in [0, 1].")
    tensor_checks.require_mask(mask, dims=2)
    rewards, values = tensor_checks.real_only(mask, rewards=rewards, values=values)
    next_value = _row_values(bootstrap, mask, values)  # (B,), V_{t+1}
    advantage = torch.zeros_like(next_value)  # (B,), A_{t+1}
    columns = []
    # All rows at once, from the last column back; padding leaves both (B,) carries unchanged.
    for real, reward, value in _columns_reversed(mask, rewards, values):
        delta = reward + gamma * next_value - value
        advantage = torch.where(real, delta + gamma * lam * advantage, advantage)
        next_value = torch.where(real, value, next_value)
        columns.append(advantage)
    if not columns:
        return torch.zeros_like(values), torch.zeros_like(values)
    advantages = torch.where(mask, torch.stack(columns[::-1], dim=1), 0.0)
    return advantages, advantages + values


def _row_values(bootstrap: float | Tensor, mask: Tensor, values: Tensor) -> Tensor:
    """One bootstrap value per row, (B,), in the dtype of `values`."""
    rows = mask.shape[:1]
    if isinstance(bootstrap, Tensor) and bootstrap.dim() > 0:
        tensor_checks.require_shape(
            "bootstrap", bootstrap, rows, like=f"a mask of shape {tuple(mask.shape)}"
        )
        return bootstrap.to(values)
    return torch.as_tensor(bootstrap, dtype=values.dtype, device=values.device).expand(rows)


def _columns_reversed(*tensors: Tensor) -> zip[tuple[Tensor, ...]]:
    """Walk the token axis from its end: one (B,) column of each (B, L) tensor at a time."""
    return zip(*(tensor.unbind(1)[::-1] for tensor in tensors), strict=True)


@torch.no_grad()
def group_advantages(
    rewards: Tensor,
    group_ids: Tensor,
    *,
    baseline: Baseline = "mean",
    scale: Scale = "none",
    mask: Tensor | None = None,
) -> Tensor:
    """Compare each sample with the others of its group.

    For sample i in group g with n samples and mean reward m:

        "mean"           A_i = R_i - m                                    MAGRPO, arXiv 2508.04652
        "leave_one_out"  A_i = R_i - mean of the other n-1 rewards        RLOO, arXiv 2402.14740
                             = (R_i - m) * n / (n - 1)
        "maximum"        A_i = R_i - largest of the group, never above 0
        "none"           A_i = R_i                                        REINFORCE
        scale "std"      A_i / (std + 1e-4), std over n-1                 GRPO, arXiv 2402.03300
        scale "none"     as it is: no bias towards easy or hard questions (arXiv 2503.20783)

    With a baseline, groups of one and groups of equal rewards give exact zeros: rewards are counted
    from the smallest of their group, so that rounding of the mean leaves nothing behind. A baseline
    from elsewhere (a greedy answer, a running mean) is subtracted before, with "none" here.

    Args:
        rewards: (N,), one per sample.
        group_ids: (N,), equal ids form a group, in any order.
        baseline: what is subtracted.
        scale: what the difference is divided by.
        mask: (N,) boolean or None for all: True = the sample counts. The others (no tokens, no
            score) get 0 and enter no baseline.

    Returns:
        (N,) advantages.

    Raises:
        ValueError: if shapes disagree, an option is unknown, or "std" scales without a baseline.
    """
    tensor_checks.require_option("baseline", baseline, get_args(Baseline))
    tensor_checks.require_option("scale", scale, get_args(Scale))
    if (baseline, scale) == ("none", "std"):
        raise ValueError(
            "scale='std' needs a baseline of the group: without one, equal rewards would be "
            "divided by almost 0. Choose scale='none', or another baseline."
        )
    if rewards.dim() != 1:
        raise ValueError(f"rewards has shape {tuple(rewards.shape)}: it needs one axis, (N,).")
    tensor_checks.require_shape("group_ids", group_ids, rewards.shape, like="rewards")
    rewards = rewards.to(tensor_checks.working_dtype(rewards))
    if mask is None:
        return _compare_in_groups(rewards, group_ids, baseline, scale)
    tensor_checks.require_mask(mask)
    tensor_checks.require_shape("mask", mask, rewards.shape, like="rewards")
    advantages = torch.zeros_like(rewards)
    advantages[mask] = _compare_in_groups(rewards[mask], group_ids[mask], baseline, scale)
    return advantages


def _compare_in_groups(
    rewards: Tensor, group_ids: Tensor, baseline: Baseline, scale: Scale
) -> Tensor:
    # G groups: ids (G,), the index of each sample's group (N,), counts (G,).
    ids, group, counts = torch.unique(group_ids, return_inverse=True, return_counts=True)
    sizes = counts.to(rewards.dtype)
    others = (sizes - 1).clamp(min=1)  # (G,), n - 1; a group of one has deviation 0 anyway
    lowest = torch.zeros_like(sizes).scatter_reduce(0, group, rewards, "amin", include_self=False)
    excess = rewards - lowest[group]  # (N,), exactly 0 where all rewards of a group are equal
    centred: Tensor = excess - (_group_sums(excess, group, len(ids)) / sizes)[group]
    std = (_group_sums(centred.square(), group, len(ids)) / others).sqrt()  # (G,)
    advantages = centred
    if baseline == "leave_one_out":
        advantages = centred * (sizes / others)[group]  # (R - m) n / (n - 1)
    elif baseline == "maximum":
        highest = torch.zeros_like(sizes).scatter_reduce(0, group, excess, "amax")
        advantages = excess - highest[group]
    elif baseline == "none":
        advantages = rewards
    if scale == "std":
        advantages = advantages / (std + GROUP_STD_EPS)[group]
    return advantages


@torch.no_grad()
def running_advantages(
    rewards: Tensor, roles: Sequence[str], baselines: Mapping[str, float], *, decay: float
) -> tuple[Tensor, dict[str, float]]:
    """Compare each sample with the running mean of its role's rewards.

    Role-conditioned advantage estimation (SPIRAL, arXiv 2506.24119, section 3.2), sample by sample
    in their order, the baseline of the sample's role first:

        b = decay * b + (1 - decay) * R        A = R - b        b begins at 0

    It needs no group: one episode per question is enough, and a role that is easier than another
    (who moves first, say) is compared with itself.

    Args:
        rewards: (N,), one per sample, in the order in which the baselines are to follow them.
        roles: N names.
        baselines: by role, from earlier batches; a role without one begins at 0.
        decay: memory of the baseline, in [0, 1).

    Returns:
        (N,) advantages, and the baselines after the batch.

    Raises:
        ValueError: if lengths disagree or `decay` is out of range.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay={decay!r} is out of range: it lies in [0, 1).")
    if rewards.shape != (len(roles),):
        raise ValueError(
            f"rewards has shape {tuple(rewards.shape)} for {len(roles)} roles: it needs one each."
        )
    now = dict(baselines)
    advantages = []
    for reward, role in zip(rewards.tolist(), roles, strict=True):
        now[role] = decay * now.get(role, 0.0) + (1 - decay) * reward
        advantages.append(reward - now[role])
    return torch.tensor(
        advantages, dtype=tensor_checks.working_dtype(rewards), device=rewards.device
    ), now


@torch.no_grad()
def preference_advantages(returns: Tensor, log_ratios: Tensor, *, beta: float) -> Tensor:
    """Weights of joint actions whose policy gradient is that of DPO on all pairs of one node.

    Every pair of joint actions with different returns is a preference for the larger one. With
    z = beta * (log_ratio of the chosen - log_ratio of the rejected), a log-ratio being the sum over
    agents and tokens of log pi - log pi_ref, the loss of a joint policy is (MADPO; Rafailov et al.,
    arXiv 2305.18290, equation 7, for the product of the agents' policies)

        loss = mean over pairs of -log sigmoid(z)

    and its gradient that of -1/J sum over j of A_j * log pi(j) at the policies that gave the
    log-ratios, with P pairs and sums over the pairs in which j is chosen, or rejected:

        A_j = beta * J / P * (sum of sigmoid(-z), chosen - sum of sigmoid(-z), rejected)

    Args:
        returns: (J,), of the joint actions of one node.
        log_ratios: (J,), of the same.
        beta: strength of the pull towards the reference policies, above 0.

    Returns:
        (J,), which add up to 0; all 0 where all returns are equal.

    Raises:
        ValueError: if shapes differ or beta is not positive.
    """
    if not beta > 0:
        raise ValueError(f"beta={beta!r} is out of range: it must be above 0.")
    tensor_checks.require_shape("log_ratios", log_ratios, returns.shape, like="returns")
    better = returns[:, None] > returns[None]  # (J, J): the row is preferred to the column
    surprise = (-beta * (log_ratios[:, None] - log_ratios[None])).sigmoid()  # sigmoid(-z)
    pulls = torch.where(better, surprise, 0.0)  # (J, J)
    scale = beta * len(returns) / better.sum().clamp(min=1)
    return scale * (pulls.sum(1) - pulls.sum(0))


def _group_sums(x: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Sum (N,) samples into (num_groups,) totals."""
    return torch.zeros(num_groups, dtype=x.dtype, device=x.device).index_add(0, group, x)


@torch.no_grad()
def whiten(x: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """Scale the real elements to unit variance and, by default, zero mean.

        y = (x - mean) / std   [+ mean if not shift_mean],   variance over n - 1

    No constant is added to the variance. Without spread (fewer than two real elements, or all
    equal up to rounding) the scaled part is 0: the result is 0, or the mean if it is kept.
    Where rewards are whitened the mean is kept, for shifting it would change the task
    ("N+ implementation details of RLHF with PPO", Huang et al. 2023).

    Args:
        x: any shape.
        mask: boolean, the shape of `x`; one mean and one variance over all that is True.
        shift_mean: whether the mean is taken away.

    Returns:
        A tensor of the shape of `x`, 0 outside the mask.

    Raises:
        ValueError: if shapes differ or `mask` is not boolean.
    """
    (x,) = tensor_checks.real_only(mask, x=x)
    if x.numel() == 0:
        return x
    count = mask.sum()
    lowest = torch.where(mask, x, torch.inf).amin()
    spread = torch.where(mask, x, -torch.inf).amax() - lowest
    excess = torch.where(mask, x - lowest, 0.0)
    mean_excess = excess.sum() / count
    # "not <=" rather than ">": a NaN among the real elements has to surface, not become 0.
    has_spread = ~(spread <= 4 * torch.finfo(x.dtype).eps * x.abs().amax())
    # Dividing by the spread first keeps the squares away from overflow and underflow.
    # Fewer than two elements make a 0 / 0 here and there: they have no spread, so none is read.
    unit = torch.where(mask & has_spread, (excess - mean_excess) / spread, 0.0)
    std = (unit.square().sum() / (count - 1)).sqrt()
    whitened = unit / torch.where(has_spread, std, 1.0)
    if not shift_mean:
        whitened = whitened + lowest + mean_excess
    return torch.where(mask, whitened, 0.0)
