"""All losses: micro-batches, masks, empty batches, gradients, errors."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from loss_cases import REDUCTIONS, Batch, make_batch
from masked_cases import assert_close, leaf, with_garbage
from torch import Tensor

from maporl_agents.losses import (
    entropy,
    full_kl,
    kl_estimate,
    masked_mean,
    policy_loss,
    preference_loss,
    reduced_mean,
    value_loss,
)


def make_empty_batch(shape: tuple[int, int]) -> Batch:
    """Garbage and nothing else."""
    rng, mask = random.Random(7), torch.zeros(shape, dtype=torch.bool)
    return Batch(*(with_garbage(rng, mask) for _ in range(3)), mask)


# --- laws of the masked losses -----------------------------------------------


@dataclass(frozen=True)
class Window:
    """Counts of a whole accumulation window; None: the call is the window."""

    num_tokens: int | None = None
    rows_with_tokens: int | None = None
    rows: int | None = None


LOSSES: dict[str, Callable[[Batch, Window], Tensor]] = {
    "token": lambda b, w: b.policy_loss(num_tokens=w.num_tokens)[0],
    "sequence": lambda b, w: b.policy_loss(reduction="sequence", num_sequences=w.rows_with_tokens)[
        0
    ],
    "constant": lambda b, w: b.policy_loss(reduction="constant", num_sequences=w.rows)[0],
    "value": lambda b, w: b.value_loss(num_tokens=w.num_tokens),
    "clipped value": lambda b, w: b.value_loss(num_tokens=w.num_tokens, clip_coef=0.2),
}


every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@every_loss
@pytest.mark.parametrize("num_splits", [1, 2, 4])
def test_micro_batches_add_up_to_the_whole(
    loss: Callable[[Batch, Window], Tensor], num_splits: int
) -> None:
    rng = random.Random(4)
    for _ in range(15):
        batch = make_batch(rng, rows=8)
        window = Window(int(batch.mask.sum()), int(batch.mask.any(1).sum()), 8)
        told, alone = partial(loss, w=window), partial(loss, w=Window())
        size = 8 // num_splits
        parts = [batch.rows(slice(start, start + size)) for start in range(0, 8, size)]
        assert_close(sum(map(told, parts)), alone(batch), atol=1e-12)
        in_parts = torch.cat([part.gradient(told) for part in parts])
        assert_close(in_parts, batch.gradient(alone), atol=1e-12)


@every_loss
def test_what_stands_outside_the_mask_changes_no_bit(
    loss: Callable[[Batch, Window], Tensor],
) -> None:
    rng, alone = random.Random(5), partial(loss, w=Window())
    for _ in range(30):
        batch = make_batch(rng)
        other = batch.other_garbage(rng)
        assert torch.equal(alone(batch), alone(other))
        gradient = batch.gradient(alone)
        assert torch.equal(gradient, other.gradient(alone))
        assert not gradient[~batch.mask].any()


def test_what_stands_outside_the_mask_changes_no_statistic() -> None:
    rng = random.Random(6)
    for _ in range(30):
        batch = make_batch(rng)
        _, stats = batch.policy_loss()
        _, other_stats = batch.other_garbage(rng).policy_loss()
        assert all(torch.equal(stats[name], other_stats[name]) for name in stats)


@pytest.mark.parametrize("shape", [(2, 3), (0, 3), (2, 0)])
@pytest.mark.parametrize("window", [Window(), Window(9, 3, 4)])
@every_loss
def test_batch_without_tokens_is_exactly_zero(
    loss: Callable[[Batch, Window], Tensor], window: Window, shape: tuple[int, int]
) -> None:
    batch = make_empty_batch(shape)
    assert loss(batch, window) == 0
    gradient = batch.gradient(partial(loss, w=window))
    assert gradient.shape == shape
    assert not gradient.any()


@pytest.mark.parametrize("shape", [(2, 3), (0, 3), (2, 0)])
def test_statistics_of_no_tokens_are_zero(shape: tuple[int, int]) -> None:
    _, stats = make_empty_batch(shape).policy_loss()
    assert [stat.item() for stat in stats.values()] == [0, 0, 0, 0]


def test_only_the_first_argument_carries_gradient() -> None:
    mask = torch.ones(1, 2, dtype=torch.bool)
    new, old, target = leaf([[0.0, 0.1]]), leaf([[0.1, 0.0]]), leaf([[1.0, -1.0]])
    policy_loss(new, old, target, mask, clip_coef=0.2)[0].backward()
    value_loss(new, old, target, mask, clip_coef=0.05).backward()
    assert new.grad is not None
    assert old.grad is None
    assert target.grad is None


@pytest.mark.parametrize(
    ("given_dtype", "expected"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32)],
)
def test_half_precision_is_summed_in_float32(
    given_dtype: torch.dtype, expected: torch.dtype
) -> None:
    # 300 ones in bfloat16 would stop growing at 256.
    x = torch.ones(1, 300, dtype=given_dtype)
    mask = torch.ones(1, 300, dtype=torch.bool)
    loss, stats = policy_loss(x, x, x, mask, clip_coef=0.2, num_tokens=1)
    assert loss == -300
    results = [
        loss,
        *stats.values(),
        value_loss(x, x, x, mask),
        kl_estimate(x, x),
        full_kl(x, x),
        entropy(x),
        preference_loss(x[0], x[0], x[0], x[0], beta=0.1, labels=x[0]),
    ]
    assert {result.dtype for result in results} == {expected}


# --- errors ------------------------------------------------------------------

X, MASK, WIDE = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 4)


V, W = torch.zeros(2), torch.zeros(3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: kl_estimate(X, WIDE), ["ref_logprobs", "(2, 4)", "(2, 3)"]),
        (lambda: kl_estimate(X, X, "k4"), ["estimator='k4'", "'k1'", "'k2'", "'k3'"]),
        (lambda: full_kl(X, WIDE), ["ref_logits", "(2, 4)", "(2, 3)"]),
        (lambda: entropy(X + 1j), ["complex"]),
        (lambda: masked_mean(WIDE, MASK), ["x has shape (2, 4)", "(2, 3)"]),
        (lambda: masked_mean(X, MASK, count=-1), ["count=-1"]),
        (lambda: policy_loss(WIDE, X, X, MASK, clip_coef=0.2), ["logprobs", "(2, 4)", "(2, 3)"]),
        (lambda: policy_loss(X, WIDE, X, MASK, clip_coef=0.2), ["old_logprobs", "(2, 4)"]),
        (lambda: policy_loss(X, X, V, MASK, clip_coef=0.2), ["advantages", "(2,)", "(2, 3)"]),
        (lambda: policy_loss(X, X, X, X, clip_coef=0.2), ["torch.bool", "float32"]),
        (lambda: policy_loss(V, V, V, MASK[:, 0], clip_coef=0.2), ["mask", "2 axes"]),
        (lambda: policy_loss(X, X, X, MASK, clip_coef=-0.2), ["clip_coef=-0.2"]),
        (lambda: policy_loss(X, X, X, MASK, clip_coef=math.nan), ["clip_coef=nan"]),
        (
            lambda: policy_loss(X, X, X, MASK, clip_coef=0.2, reduction="mean"),
            ["reduction='mean'", *map(repr, REDUCTIONS)],
        ),
        (
            lambda: policy_loss(X, X, X, MASK, clip_coef=0.2, reduction="constant"),
            ["max_tokens=None", "positive"],
        ),
        (
            lambda: policy_loss(X, X, X, MASK, clip_coef=0.2, reduction="constant", max_tokens=0),
            ["max_tokens=0"],
        ),
        (lambda: policy_loss(X, X, X, MASK, clip_coef=0.2, num_tokens=-3), ["=-3"]),
        (
            lambda: policy_loss(
                X, X, X, MASK, clip_coef=0.2, reduction="sequence", num_sequences=-3
            ),
            ["num_sequences=-3"],
        ),
        (lambda: value_loss(WIDE, X, X, MASK), ["values", "(2, 4)", "(2, 3)"]),
        (lambda: value_loss(X, WIDE, X, MASK), ["old_values", "(2, 4)", "(2, 3)"]),
        (lambda: value_loss(X, X, WIDE, MASK), ["returns", "(2, 4)", "(2, 3)"]),
        (lambda: value_loss(X, X, X, MASK.int()), ["torch.bool", "int32"]),
        (lambda: value_loss(X, X, X, MASK, clip_coef=-1.0), ["clip_coef=-1.0"]),
        (lambda: preference_loss(X, X, X, X, beta=0.1), ["chosen", "(2, 3)"]),
        (lambda: preference_loss(V, W, V, V, beta=0.1), ["rejected", "(3,)", "(2,)"]),
        (lambda: preference_loss(V, V, W, V, beta=0.1), ["ref_chosen", "(3,)", "(2,)"]),
        (lambda: preference_loss(V, V, V, W, beta=0.1), ["ref_rejected", "(3,)", "(2,)"]),
        (lambda: preference_loss(V, V, V, V, beta=0.1, labels=W), ["labels", "(3,)", "(2,)"]),
        (lambda: preference_loss(V, V, V, V, beta=0.1, labels=V - 0.1), ["labels", "[0, 1]"]),
        (lambda: preference_loss(V, V, V, V, beta=0.1, labels=V + 1.1), ["labels", "[0, 1]"]),
        (lambda: preference_loss(V, V, V, V, beta=0.1, labels=V * math.nan), ["[0, 1]"]),
        (lambda: preference_loss(V, V, V, V, beta=0.1, labels="soft"), ["'soft'", "'hard'"]),
        (lambda: preference_loss(V, V, V, V, beta=0.0), ["beta=0.0"]),
        (lambda: preference_loss(V, V, V, V, beta=math.nan), ["beta=nan"]),
    ],
)
def test_errors_name_what_is_wrong(call: Callable[[], object], words: list[str]) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011, the words are checked below
        call()
    for word in words:
        assert word in str(error.value)


# --- Means over sequences ---------------------------------------------------------------------


def test_the_mean_over_sequences_by_hand() -> None:
    x = torch.tensor([[1.0, 3.0, 5.0], [10.0, math.nan, math.nan], [math.inf] * 3])
    mask = torch.tensor([[True, True, True], [True, False, False], [False] * 3])
    assert reduced_mean(x, mask) == 19 / 4
    assert reduced_mean(x, mask, "sequence") == (3 + 10) / 2  # the empty row has no mean
    assert reduced_mean(x, mask, "sequence", num_sequences=4) == 13 / 4
    zeros = torch.zeros_like(x)
    values = value_loss(x, zeros, zeros, mask, reduction="sequence")
    assert values == pytest.approx((35 / 3 + 100) / 4)


def test_micro_batches_add_up_to_the_mean_over_sequences() -> None:
    x, mask = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.ones(5, 4) > 0
    mask[1, 1:] = mask[4, 2:] = False
    parts = [reduced_mean(x[i], mask[i], "sequence", num_sequences=5) for i in ([0, 1], [2, 3, 4])]
    assert sum(parts) == pytest.approx(float(reduced_mean(x, mask, "sequence")), abs=1e-6)


def test_an_unknown_reduction_is_named() -> None:
    with pytest.raises(ValueError, match="reduction"):
        reduced_mean(torch.zeros(1, 1), torch.ones(1, 1) > 0, "constant")  # type: ignore[arg-type]
