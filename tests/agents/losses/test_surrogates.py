"""GSPO, CISPO and clip-higher: by hand, as the papers write them in loops, and in windows."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from loss_cases import Batch, make_batch
from masked_cases import assert_close, fp64, leaf

from maporl_agents.losses import exact_kl, full_kl, kl_estimate, policy_loss

LOW, HIGH = 0.2, 0.28


def slow(batch: Batch, surrogate: str, low: float, high: float) -> tuple[float, float]:
    """Return the mean over tokens of the loss, and the share of ratios outside the band."""
    losses, outside = [], []
    for row in range(len(batch.mask)):
        cells = [column for column, real in enumerate(batch.mask[row].tolist()) if real]
        logs = [float(batch.new[row, c] - batch.old[row, c]) for c in cells]
        for column, log in zip(cells, logs, strict=True):
            ratio = math.exp(sum(logs) / len(logs) if surrogate == "gspo" else log)
            clipped = min(max(ratio, 1 - low), 1 + high)
            gain = float(batch.target[row, column])
            if surrogate == "cispo":
                losses.append(-clipped * gain * float(batch.new[row, column]))
            else:
                losses.append(-min(ratio * gain, clipped * gain))
            outside.append(not 1 - low <= ratio <= 1 + high)
    count = max(len(losses), 1)
    return sum(losses) / count, sum(outside) / count


@pytest.mark.parametrize("surrogate", ["ppo", "gspo", "cispo"])
def test_surrogates_equal_the_loop(surrogate: str) -> None:
    rng = random.Random(5)
    for _ in range(50):
        batch = make_batch(rng)
        loss, stats = batch.policy_loss(surrogate=surrogate, clip_coef=LOW, clip_high=HIGH)
        expected, outside = slow(batch, surrogate, LOW, HIGH)
        assert_close(loss, expected)
        assert_close(stats["clip_frac"], outside)


@pytest.mark.parametrize(
    ("ratio", "advantage", "slope"),
    [
        (1.25, 1.0, -1.25),  # above 1.2, below 1.28: still allowed to climb
        (1.3, 1.0, 0.0),
        (0.75, -1.0, 0.0),
        (1.3, -1.0, 1.3),
        (0.75, 1.0, -0.75),
    ],
)
def test_the_band_may_be_wider_above(ratio: float, advantage: float, slope: float) -> None:
    """D loss / d logprob is -ratio * A, or 0 where the clip holds."""
    logprobs = leaf([[math.log(ratio) - 2]])
    loss, _ = policy_loss(
        logprobs, fp64([[-2]]), fp64([[advantage]]), torch.tensor([[True]]),
        clip_coef=LOW, clip_high=HIGH,
    )  # fmt: skip
    loss.backward()
    assert_close(logprobs.grad, [[slope]])


def test_the_gradient_of_gspo_is_shared_by_the_tokens_of_a_sequence() -> None:
    """Ratios .5 and 2: s = 1. Each token's gradient is -s * A / 2 tokens, over one sequence."""
    mask = torch.tensor([[True, True, False]])
    logprobs = leaf([[math.log(0.5) - 1, math.log(2) - 1, math.nan]])
    old, gains = fp64([[-1, -1, math.nan]]), fp64([[3, 3, math.inf]])
    loss, stats = policy_loss(
        logprobs, old, gains, mask, clip_coef=3e-4, clip_high=4e-4, surrogate="gspo",
        reduction="sequence",
    )  # fmt: skip
    loss.backward()
    assert_close(loss, -3.0)
    assert_close(logprobs.grad, [[-1.5, -1.5, 0]])
    assert stats["clip_frac"] == 0


def test_cispo_keeps_the_gradient_of_clipped_tokens() -> None:
    """-min(ratio, 5) * A at ratios 2 and 20, over two tokens; nothing below: clip_coef 1."""
    logprobs = leaf([[math.log(2) - 4, math.log(20) - 4]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    loss, _ = policy_loss(
        logprobs, fp64([[-4, -4]]), fp64([[1, 1]]), mask, clip_coef=1.0, clip_high=4.0,
        surrogate="cispo",
    )  # fmt: skip
    loss.backward()
    assert_close(logprobs.grad, [[-1.0, -2.5]])


@pytest.mark.parametrize("surrogate", ["ppo", "gspo", "cispo"])
def test_at_ratio_1_all_are_reinforce(surrogate: str) -> None:
    """The first update of a batch: the gradient of -A log pi, a mean over sequences of means."""
    batch = make_batch(random.Random(6), rows=4)
    old = batch.new.detach()
    gains = fp64([1.5, -2, 0.5, 3])[:, None].expand_as(batch.mask)
    on_policy = Batch(batch.new, old, gains, batch.mask)
    options: dict[str, Any] = {"surrogate": surrogate, "reduction": "sequence"}
    found = on_policy.gradient(lambda b: b.policy_loss(**options)[0])
    lengths = batch.mask.sum(1, keepdim=True).clamp(min=1)
    rows = (batch.mask.sum(1) > 0).sum()
    assert_close(found, torch.where(batch.mask, -gains / lengths / rows, 0.0))


@pytest.mark.parametrize("surrogate", ["gspo", "cispo"])
def test_parts_of_a_window_add_up(surrogate: str) -> None:
    rng = random.Random(7)
    batch = make_batch(rng, rows=4)
    options: dict[str, Any] = {"surrogate": surrogate, "reduction": "sequence"}
    whole = batch.policy_loss(**options)[0]
    count = int((batch.mask.sum(1) > 0).sum())
    parts = [batch.rows(part) for part in (slice(0, 1), slice(1, 4))]
    assert_close(sum(p.policy_loss(**options, num_sequences=count)[0] for p in parts), whole)


@pytest.mark.parametrize("surrogate", ["gspo", "cispo"])
def test_what_stands_outside_the_mask_never_matters(surrogate: str) -> None:
    rng = random.Random(8)
    for _ in range(20):
        batch = make_batch(rng)
        other = batch.other_garbage(rng)
        loss, again = (b.policy_loss(surrogate=surrogate)[0] for b in (batch, other))
        assert torch.equal(loss, again)
        gradient = other.gradient(lambda b: b.policy_loss(surrogate=surrogate)[0])
        assert torch.isfinite(gradient).all()


def test_unknown_surrogates_and_negative_widths_are_refused() -> None:
    batch = make_batch(random.Random(9), rows=1)
    with pytest.raises(ValueError, match="surrogate='trpo'"):
        batch.policy_loss(surrogate="trpo")
    with pytest.raises(ValueError, match=r"clip_high=-0\.1"):
        batch.policy_loss(clip_high=-0.1)


# --- exact_kl ----------------------------------------------------------------


def test_exact_kl_is_the_mean_of_its_estimates_and_the_other_direction_of_full_kl() -> None:
    generator = torch.Generator().manual_seed(0)
    own, ref = (torch.randn(5, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    exact = exact_kl(own, ref)
    probs = own.softmax(-1)
    for estimator in ("k1", "k3"):
        estimates = kl_estimate(own.log_softmax(-1), ref.log_softmax(-1), estimator)
        assert_close(exact, (probs * estimates).sum(-1))
    assert_close(exact, full_kl(ref, own))
    assert not exact_kl(own, own.clone()).any()


def test_exact_kl_has_the_gradient_of_the_mean_of_k2() -> None:
    """D KL / d logits_v = p_v (log ratio_v - KL); on policy that is the mean gradient of k2."""
    logits, ref = leaf([0.3, -1.0, 0.5]), fp64([0.1, 0.2, -0.4])
    exact_kl(logits, ref).backward()
    with torch.no_grad():
        log_ratio = logits.log_softmax(-1) - ref.log_softmax(-1)
        probs = logits.softmax(-1)
        assert_close(logits.grad, probs * (log_ratio - (probs * log_ratio).sum()))
    fresh = logits.detach().clone().requires_grad_()
    estimates = kl_estimate(fresh.log_softmax(-1), ref.log_softmax(-1), "k2")
    (probs.detach() * estimates).sum().backward()
    assert_close(fresh.grad, logits.grad)


def test_exact_kl_of_banned_tokens_is_finite() -> None:
    logits = leaf([0.3, -math.inf, 0.5])
    value = exact_kl(logits, fp64([0.1, -math.inf, -0.4]))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()
