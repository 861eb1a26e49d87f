"""Policy loss and value loss: closed forms, slow twins, gradients by hand."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import torch
from loss_cases import MAX_TOKENS, REDUCTIONS, Batch, make_batch
from masked_cases import NUM_CASES, assert_close, fp64, leaf
from torch import Tensor

from maporl_agents.losses import (
    policy_loss,
    value_loss,
)


def real_cells(mask: Tensor) -> list[tuple[int, int]]:
    return [(row, column) for row, column in mask.nonzero().tolist()]


# --- policy_loss -------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        # loss = -min(ratio * A, clip(ratio, .8, 1.2) * A); slope = d loss / d logprob, which is
        # -ratio * A where the unclipped branch is the smaller, and 0 where the clip holds.
        (0.5, 2.0, -1.0, -1.0),  # min(1, 1.6): below the band, still allowed to climb
        (0.9, 2.0, -1.8, -1.8),  # inside
        (1.0, 2.0, -2.0, -2.0),
        (1.1, 2.0, -2.2, -2.2),
        (1.5, 2.0, -2.4, 0.0),  # min(3, 2.4): the clip holds
        (0.5, -2.0, 1.6, 0.0),  # min(-1, -1.6): the clip holds
        (0.9, -2.0, 1.8, 1.8),
        (1.0, -2.0, 2.0, 2.0),
        (1.1, -2.0, 2.2, 2.2),
        (1.5, -2.0, 3.0, 3.0),  # min(-3, -2.4): above the band, pulled back
        # The ratio is clipped, not the product: however large A, at ratio 1 the loss is -A.
        (1.0, 1000.0, -1000.0, -1000.0),
        (1.0, -1000.0, 1000.0, 1000.0),
    ],
)
def test_policy_loss_below_in_and_above_the_band(
    ratio: float, advantage: float, loss: float, slope: float
) -> None:
    logprobs = leaf([[math.log(ratio) - 1.5]])
    mask = torch.ones(1, 1, dtype=torch.bool)
    actual, _ = policy_loss(logprobs, fp64([[-1.5]]), fp64([[advantage]]), mask, clip_coef=0.2)
    assert_close(actual, loss)
    actual.backward()
    assert_close(logprobs.grad, [[slope]])


def two_rows() -> Batch:
    """Ratios 1; one row with advantages 1, 2, 3, one with 8, and one without tokens."""
    nan, inf = math.nan, math.inf
    mask = torch.tensor([[0, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    advantages = fp64([[inf, 1, 2, 3], [8, nan, -inf, 1e300], [nan, nan, nan, nan]])
    logprobs = torch.where(mask, fp64(-0.5), fp64(nan))
    return Batch(logprobs, torch.where(mask, logprobs, fp64(inf)), advantages, mask)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"reduction": "token"}, -14 / 4),  # 1 + 2 + 3 + 8 over 4 tokens
        ({"reduction": "sequence"}, -(2 + 8) / 2),  # means 2 and 8; the empty row has none
        ({"reduction": "constant", "max_tokens": 10}, -14 / (3 * 10)),  # every row counts
        ({"reduction": "token", "num_tokens": 7}, -14 / 7),
        ({"reduction": "sequence", "num_sequences": 5}, -(2 + 8) / 5),
        ({"reduction": "constant", "max_tokens": 10, "num_sequences": 7}, -14 / 70),
        ({"reduction": "token", "num_tokens": torch.tensor(7)}, -14 / 7),
        ({"reduction": "sequence", "num_sequences": torch.tensor(5)}, -(2 + 8) / 5),
    ],
)
def test_reductions_by_hand(options: dict[str, object], expected: float) -> None:
    assert_close(two_rows().policy_loss(**options)[0], expected)


def test_default_reduction_is_over_tokens() -> None:
    batch = two_rows()
    loss, _ = policy_loss(batch.new, batch.old, batch.target, batch.mask, clip_coef=0.2)
    assert_close(loss, -3.5)


def test_stats_by_hand() -> None:
    # Ratios .5, .9, 1.21 on real tokens, band .2: two of three outside, whatever the
    # advantage (log 1.21 = .19 would not count: the ratio is compared, not its logarithm).
    # k3 of KL(old || new) = ratio - 1 - log ratio: -.5 - log .5; -.1 - log .9; .21 - log 1.21
    ratios = fp64([[math.nan, 0.5, 0.9, 1.21, 1e300]])
    mask = torch.tensor([[False, True, True, True, False]])
    logprobs = ratios.log().requires_grad_()
    _, stats = policy_loss(logprobs, torch.zeros_like(ratios), ratios, mask, clip_coef=0.2)
    assert_close(stats["clip_frac"], 2 / 3)
    kl = (-0.5 - math.log(0.5)) + (-0.1 - math.log(0.9)) + (0.21 - math.log(1.21))
    assert_close(stats["approx_kl"], kl / 3)
    assert_close(stats["ratio_mean"], 2.61 / 3)
    assert_close(stats["ratio_max"], 1.21)
    assert all(stat.dim() == 0 and not stat.requires_grad for stat in stats.values())


def test_before_the_first_update_nothing_is_clipped() -> None:
    logprobs = -5 * torch.rand(4, 6, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(4, 6, dtype=torch.bool)
    _, stats = policy_loss(logprobs, logprobs.clone(), logprobs, mask, clip_coef=0.0)
    expected = {"clip_frac": 0.0, "approx_kl": 0.0, "ratio_mean": 1.0, "ratio_max": 1.0}
    assert {name: stat.item() for name, stat in stats.items()} == expected


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_zero_advantage_gives_zero_gradient(reduction: str) -> None:
    rng = random.Random(1)
    for _ in range(20):
        batch = make_batch(rng)
        still = replace(batch, target=torch.where(batch.mask, 0.0, batch.target))
        assert not still.gradient(lambda b: b.policy_loss(reduction=reduction)[0]).any()


def test_at_ratio_one_the_gradient_is_that_of_the_policy_gradient() -> None:
    # d loss / d logprob = -A / num_tokens, to the bit: both branches of the minimum agree.
    batch = two_rows()
    gradient = batch.gradient(lambda b: b.policy_loss(num_tokens=8)[0])
    assert torch.equal(gradient, torch.where(batch.mask, -batch.target / 8, 0.0))


def slow_policy_loss(
    batch: Batch, clip_coef: float, reduction: str
) -> tuple[float, Tensor, dict[str, float]]:
    """Loss, gradient and statistics of the whole window, cell by cell."""
    cells = real_cells(batch.mask)
    lengths = {row: sum(r == row for r, _ in cells) for row, _ in cells}
    loss, gradient = 0.0, torch.zeros_like(batch.new)
    columns = [x[batch.mask].tolist() for x in (batch.new, batch.old, batch.target)]
    ratios = []
    for (row, column), new, old, advantage in zip(cells, *columns, strict=True):
        weight = {
            "token": 1 / len(cells),
            "sequence": 1 / (lengths[row] * len(lengths)),
            "constant": 1 / (len(batch.mask) * MAX_TOKENS),
        }[reduction]
        ratio = math.exp(new - old)
        clipped = min(max(ratio, 1 - clip_coef), 1 + clip_coef)
        loss -= weight * min(ratio * advantage, clipped * advantage)
        if ratio * advantage <= clipped * advantage:
            gradient[row, column] = -weight * ratio * advantage
        ratios.append(ratio)
    count = max(len(ratios), 1)
    stats = {
        "clip_frac": sum(abs(r - 1) > clip_coef for r in ratios) / count,
        "approx_kl": sum(r - 1 - math.log(r) for r in ratios) / count,
        "ratio_mean": sum(ratios) / count,
        "ratio_max": max(ratios, default=0.0),
    }
    return loss, gradient, stats


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_policy_loss_equals_the_loop(reduction: str) -> None:
    rng = random.Random(2)
    for _ in range(NUM_CASES // 3 + 1):
        batch, clip_coef = make_batch(rng), rng.uniform(0.05, 0.4)
        new = batch.new.clone().requires_grad_()
        loss, stats = replace(batch, new=new).policy_loss(clip_coef=clip_coef, reduction=reduction)
        loss.backward()
        slow_loss, slow_gradient, slow_stats = slow_policy_loss(batch, clip_coef, reduction)
        assert_close(loss.detach(), slow_loss)
        assert_close(new.grad, slow_gradient)
        assert stats.keys() == slow_stats.keys()
        for name, stat in stats.items():
            assert_close(stat, slow_stats[name])


# --- value_loss --------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "clip_coef", "loss", "slope"),
    [
        # V_old = 1, R = 2, band .5: V_clipped = clip(V, .5, 1.5).
        (1.8, None, 0.02, -0.2),  # .5 * .2^2, slope V - R
        (1.8, 0.5, 0.125, 0.0),  # clipped 1.5: max(.04, .25) / 2, the clip binds
        (2.0, 0.5, 0.125, 0.0),  # a perfect value, but too far from the old one
        (2.0, None, 0.0, 0.0),
        (1.4, 0.5, 0.18, -0.6),  # inside the band: .5 * .6^2
        (0.0, 0.5, 2.0, -2.0),  # clipped .5: max(4, 2.25) / 2, does not bind
        (3.5, 0.5, 1.125, 1.5),  # clipped 1.5: max(2.25, .25) / 2, does not bind
    ],
)
def test_value_loss_by_hand(
    value: float, clip_coef: float | None, loss: float, slope: float
) -> None:
    values = leaf([[math.nan, value]])
    mask = torch.tensor([[False, True]])
    old_values, returns = fp64([[math.inf, 1.0]]), fp64([[-math.inf, 2.0]])
    actual = value_loss(values, old_values, returns, mask, clip_coef=clip_coef)
    assert_close(actual, loss)
    actual.backward()
    assert_close(values.grad, [[0.0, slope]])


def test_without_clipping_the_old_values_do_not_matter() -> None:
    values, mask = torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool)
    loss = value_loss(values, torch.full((1, 2), math.nan), torch.zeros(1, 2), mask)
    assert loss == 0.5


def slow_value_loss(batch: Batch, clip_coef: float | None) -> tuple[float, Tensor]:
    cells = real_cells(batch.mask)
    columns = [x[batch.mask].tolist() for x in (batch.new, batch.old, batch.target)]
    loss, gradient = 0.0, torch.zeros_like(batch.new)
    for (row, column), value, old, target in zip(cells, *columns, strict=True):
        error, slope = value - target, value - target
        if clip_coef is not None and abs(value - old) > clip_coef:
            clipped_error = old + math.copysign(clip_coef, value - old) - target
            if clipped_error**2 > error**2:
                error, slope = clipped_error, 0.0
        loss += 0.5 * error**2 / len(cells)
        gradient[row, column] = slope / len(cells)
    return loss, gradient


def test_value_loss_equals_the_loop() -> None:
    rng = random.Random(3)
    for _ in range(NUM_CASES):
        batch, clip_coef = make_batch(rng), rng.choice([None, rng.uniform(0.05, 0.5)])
        new = batch.new.clone().requires_grad_()
        loss = replace(batch, new=new).value_loss(clip_coef=clip_coef)
        loss.backward()
        slow_loss, slow_gradient = slow_value_loss(batch, clip_coef)
        assert_close(loss.detach(), slow_loss)
        assert_close(new.grad, slow_gradient)
