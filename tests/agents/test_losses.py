"""Losses: closed forms, slow twins with gradients, micro-batches, and the law of the mask."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
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

NUM_CASES = 1_000
GARBAGE = (math.nan, math.inf, -math.inf, 1e300, -7.0)
REDUCTIONS = ("token", "sequence", "constant")
MAX_TOKENS = 10


def fp64(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def leaf(values: object) -> Tensor:
    return fp64(values).requires_grad_()


def make_mask(rng: random.Random, rows: int, columns: int) -> Tensor:
    """One unbroken run per row, anywhere; sometimes empty, sometimes the whole row."""
    mask = torch.zeros(rows, columns, dtype=torch.bool)
    for row in range(rows):
        start = rng.randint(0, columns)
        mask[row, start : rng.randint(start, columns)] = True
    return mask


def with_garbage(rng: random.Random, mask: Tensor, std: float = 1.0) -> Tensor:
    """Normal variates on the mask, NaN, infinities and huge numbers elsewhere."""
    flat = [rng.gauss(0, std) if m else rng.choice(GARBAGE) for m in mask.flatten().tolist()]
    return fp64(flat).reshape(mask.shape)


@dataclass(frozen=True)
class Batch:
    """Three (B, L) tensors, garbage outside the mask: the arguments of both masked losses."""

    new: Tensor  # logprobs or values
    old: Tensor
    target: Tensor  # advantages or returns
    mask: Tensor

    def rows(self, part: slice) -> Batch:
        return Batch(self.new[part], self.old[part], self.target[part], self.mask[part])

    def other_garbage(self, rng: random.Random) -> Batch:
        nothing = torch.zeros_like(self.mask)
        tensors = (
            torch.where(self.mask, x, with_garbage(rng, nothing))
            for x in (self.new, self.old, self.target)
        )
        return Batch(*tensors, self.mask)

    def policy_loss(self, **options: object) -> tuple[Tensor, dict[str, Tensor]]:
        options = {"clip_coef": 0.2, "max_tokens": MAX_TOKENS, **options}
        return policy_loss(self.new, self.old, self.target, self.mask, **options)

    def value_loss(self, **options: object) -> Tensor:
        return value_loss(self.new, self.old, self.target, self.mask, **options)

    def gradient(self, loss: Callable[[Batch], Tensor]) -> Tensor:
        new = self.new.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(replace(self, new=new)), new)
        return gradient


def make_batch(rng: random.Random, rows: int | None = None) -> Batch:
    mask = make_mask(rng, rows or rng.randint(1, 4), rng.randint(1, 6))
    old = with_garbage(rng, mask)
    new = torch.where(mask, old + with_garbage(rng, mask, std=0.3), with_garbage(rng, mask))
    return Batch(new, old, with_garbage(rng, mask), mask)


def make_empty_batch(shape: tuple[int, int]) -> Batch:
    """Garbage and nothing else."""
    rng, mask = random.Random(7), torch.zeros(shape, dtype=torch.bool)
    return Batch(*(with_garbage(rng, mask) for _ in range(3)), mask)


def assert_close(actual: Tensor, expected: object, atol: float = 1e-9) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    assert actual.shape == expected.shape
    assert torch.allclose(actual, expected, rtol=0, atol=atol)


def real_cells(mask: Tensor) -> list[tuple[int, int]]:
    return [(row, column) for row, column in mask.nonzero().tolist()]


# --- kl_estimate, full_kl, entropy -------------------------------------------


def test_kl_estimates_by_hand() -> None:
    # d = log pi - log ref = log 2, then log .5, then 0.
    # k1 = d; k2 = d^2 / 2; k3 = 1/ratio - 1 + d = .5 - 1 + log 2; 2 - 1 - log 2; 0
    logprobs, ref_logprobs = fp64([0.8, 0.1, 0.3]).log(), fp64([0.4, 0.2, 0.3]).log()
    log2 = math.log(2)
    assert_close(kl_estimate(logprobs, ref_logprobs), [log2, -log2, 0])
    assert_close(kl_estimate(logprobs, ref_logprobs, "k1"), [log2, -log2, 0])
    assert_close(kl_estimate(logprobs, ref_logprobs, "k2"), [log2**2 / 2, log2**2 / 2, 0])
    assert_close(kl_estimate(logprobs, ref_logprobs, "k3"), [log2 - 0.5, 1 - log2, 0])


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kl_is_exactly_zero_where_policy_is_reference(estimator: str, dtype: torch.dtype) -> None:
    logprobs = -torch.rand(50, generator=torch.Generator().manual_seed(0), dtype=dtype) * 30
    assert not kl_estimate(logprobs, logprobs.clone(), estimator).any()


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_unbiased_estimates_average_to_the_exact_kl(estimator: str) -> None:
    # E over pi of the estimate = sum of pi * estimate = KL(pi || ref): no sampling needed.
    pi, ref = fp64([0.5, 0.3, 0.2]), fp64([0.2, 0.2, 0.6])
    exact = sum(p * math.log(p / q) for p, q in zip(pi.tolist(), ref.tolist(), strict=True))
    assert_close((pi * kl_estimate(pi.log(), ref.log(), estimator)).sum(), exact)


def test_k3_keeps_its_digits_near_zero() -> None:
    # exp(-d) - 1 + d = d^2/2 - d^3/6 + ...; the plain form loses every digit at d = 1e-8.
    estimate = kl_estimate(fp64([1e-8]), fp64([0.0]), "k3").item()
    assert estimate == pytest.approx(5e-17, rel=1e-3, abs=0)


@given(st.floats(-20, 20), st.floats(-20, 20))
def test_k2_and_k3_are_never_negative(logprob: float, ref_logprob: float) -> None:
    for estimator in ("k2", "k3"):
        assert kl_estimate(fp64([logprob]), fp64([ref_logprob]), estimator).item() >= -1e-12


def test_kl_gradients_by_hand() -> None:
    # d/dlogprob: k1 1; k2 d; k3 1 - exp(-d). At d = log 2: 1, log 2, 1/2.
    for estimator, expected in (("k1", 1.0), ("k2", math.log(2)), ("k3", 0.5)):
        logprobs = leaf([math.log(0.8)])
        kl_estimate(logprobs, fp64([math.log(0.4)]), estimator).sum().backward()
        assert_close(logprobs.grad, [expected])


def test_kl_measures_equal_the_loop() -> None:
    """Estimates token by token, full_kl and entropy over a small vocabulary."""
    rng = random.Random(4)
    for _ in range(NUM_CASES):
        own, ref = ([rng.uniform(-6, 6) for _ in range(4)] for _ in range(2))
        total, ref_total = sum(map(math.exp, own)), sum(map(math.exp, ref))
        pi = [math.exp(x) / total for x in own]
        frozen = [math.exp(x) / ref_total for x in ref]
        ratios = [p / q for p, q in zip(pi, frozen, strict=True)]
        logs = fp64(pi).log(), fp64(frozen).log()
        assert_close(kl_estimate(*logs, "k1"), [math.log(r) for r in ratios])
        assert_close(kl_estimate(*logs, "k2"), [math.log(r) ** 2 / 2 for r in ratios])
        # k3 is relative to its size: 1 / ratio reaches exp(12).
        for found, r in zip(kl_estimate(*logs, "k3").tolist(), ratios, strict=True):
            assert found == pytest.approx(1 / r - 1 + math.log(r), rel=1e-9, abs=1e-9)
        pairs = zip(pi, frozen, strict=True)
        assert_close(full_kl(fp64(own), fp64(ref)), sum(q * math.log(q / p) for p, q in pairs))
        assert_close(entropy(fp64(own)), -sum(p * math.log(p) for p in pi))


def test_full_kl_is_that_of_the_reference_against_the_policy() -> None:
    # ref (3/4, 1/4), pi (1/2, 1/2): 3/4 log(3/2) + 1/4 log(1/2) = .1308; the other direction,
    # KL(pi || ref) = 1/2 log(2/3) + 1/2 log 2 = .1438, is another number.
    ref, pi = fp64([[0.75, 0.25]]).log() + 5, fp64([[0.5, 0.5]]).log() - 3
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert_close(full_kl(pi, ref), [expected])
    assert expected == pytest.approx(0.1308, abs=1e-4)


def test_full_kl_gradient_is_policy_minus_reference() -> None:
    logits = leaf([[1.0, 0.0, -1.0], [0.3, 0.2, 0.1]])
    ref_logits = leaf([[0.0, 0.5, 2.0], [0.3, 0.2, 0.1]])
    kl = full_kl(logits, ref_logits)
    assert kl.shape == (2,)
    assert kl[1] == 0
    kl.sum().backward()
    assert_close(logits.grad, (logits.softmax(-1) - ref_logits.softmax(-1)).detach())
    assert ref_logits.grad is None


def test_banned_tokens_are_worth_nothing() -> None:
    # The reference bans the third token: KL as over the first two, plus log of pi's mass there.
    # pi (1/4, 1/4, 1/2), ref (1/2, 1/2, 0): log 2. Entropy of (1/2, 1/2, 0): log 2.
    logits = leaf([0.25, 0.25, 0.5])
    ref_logits = fp64([0.0, 0.0, -math.inf])
    kl = full_kl(logits.log(), ref_logits)
    assert_close(kl, math.log(2))
    kl.backward()
    assert logits.grad.isfinite().all()
    assert_close(entropy(ref_logits), math.log(2))
    assert_close(full_kl(ref_logits, ref_logits), 0.0)
    assert full_kl(ref_logits, fp64([0.0, 0.0, 0.0])) == math.inf


def test_entropy_by_hand() -> None:
    # Uniform over 4: log 4. (3/4, 1/4): log 4 - 3/4 log 3.
    assert_close(entropy(torch.zeros(2, 4, dtype=torch.float64)), [math.log(4)] * 2)
    assert_close(entropy(fp64([3.0, 1.0]).log()), math.log(4) - 0.75 * math.log(3))


def test_entropy_gradient_vanishes_at_its_maximum() -> None:
    logits = leaf([0.7, 0.7, 0.7])
    entropy(logits).backward()
    assert_close(logits.grad, [0, 0, 0])
    slightly_peaked = leaf([0.8, 0.7, 0.7])
    entropy(slightly_peaked).backward()
    assert slightly_peaked.grad[0] < 0


# --- masked_mean -------------------------------------------------------------


def test_masked_mean_by_hand() -> None:
    x = leaf([[math.nan, 1.0, 2.0], [6.0, math.inf, -math.inf]])
    mask = torch.tensor([[False, True, True], [True, False, False]])
    assert masked_mean(x, mask) == 3
    assert masked_mean(x, mask, count=18) == 0.5
    assert masked_mean(x, mask, count=torch.tensor(18)) == 0.5
    masked_mean(x, mask).backward()
    assert_close(x.grad, [[0, 1 / 3, 1 / 3], [1 / 3, 0, 0]])


@pytest.mark.parametrize("count", [None, 0, torch.tensor(0)])
def test_mean_of_nothing_is_zero(count: int | Tensor | None) -> None:
    x = leaf([math.nan, math.inf])
    mean = masked_mean(x, torch.tensor([False, False]), count=count)
    mean.backward()
    assert mean == 0
    assert x.grad.tolist() == [0, 0]


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


# --- preference_loss ---------------------------------------------------------


def test_preference_loss_by_hand() -> None:
    # z = .5 * [(-1 + 2) - (-3 + 2)] = 1 and .5 * [(-2 + 1) - (-1 + 1)] = -.5
    chosen, rejected = leaf([-1, -2]), leaf([-3, -1])
    refs = fp64([-2, -1]), fp64([-2, -1])

    def sigmoid(z: float) -> float:
        return 1 / (1 + math.exp(-z))

    hard = preference_loss(chosen, rejected, *refs, beta=0.5)
    assert_close(hard, -(math.log(sigmoid(1)) + math.log(sigmoid(-0.5))) / 2)
    # d loss / d chosen = -beta * (p - sigmoid(z)) / B, and the opposite for rejected.
    hard.backward()
    slopes = [-0.5 * (1 - sigmoid(1)) / 2, -0.5 * (1 - sigmoid(-0.5)) / 2]
    assert_close(chosen.grad, slopes)
    assert_close(rejected.grad, [-slope for slope in slopes])
    # Soft: p = .8 and .3.
    soft = preference_loss(chosen, rejected, *refs, beta=0.5, labels=fp64([0.8, 0.3]))
    first = 0.8 * math.log(sigmoid(1)) + 0.2 * math.log(sigmoid(-1))
    second = 0.3 * math.log(sigmoid(-0.5)) + 0.7 * math.log(sigmoid(0.5))
    assert_close(soft, -(first + second) / 2)


def test_preference_loss_at_the_reference_is_log_two() -> None:
    x, y = fp64([-3, -5, -200]), fp64([-4, -1, -1])
    assert_close(preference_loss(x, y, x, y, beta=0.1), math.log(2))
    assert_close(preference_loss(x, y, x, y, beta=0.1, labels=fp64([0, 0.4, 1])), math.log(2))


def test_hard_labels_are_certainty() -> None:
    rng = random.Random(7)
    sides = [fp64([rng.gauss(-5, 3) for _ in range(6)]) for _ in range(4)]
    hard = preference_loss(*sides, beta=0.3)
    assert_close(preference_loss(*sides, beta=0.3, labels=torch.ones(6)), hard)
    chosen, rejected, ref_chosen, ref_rejected = sides
    swapped = (rejected, chosen, ref_rejected, ref_chosen)
    assert_close(preference_loss(*swapped, beta=0.3, labels=torch.zeros(6)), hard)


def test_preference_loss_survives_extreme_margins() -> None:
    # z = -1000: -log sigmoid(z) = 1000, slope -beta; exp alone would overflow.
    chosen = leaf([-1000.0])
    loss = preference_loss(chosen, fp64([0]), fp64([0]), fp64([0]), beta=1.0)
    loss.backward()
    assert_close(loss, 1000.0)
    assert_close(chosen.grad, [-1.0])


def test_preference_loss_equals_the_loop() -> None:
    rng = random.Random(8)
    for _ in range(NUM_CASES):
        size, beta = rng.randint(1, 5), rng.uniform(0.05, 1)
        sides = [[rng.gauss(-5, 3) for _ in range(size)] for _ in range(4)]
        labels = [rng.random() for _ in range(size)]
        expected = 0.0
        for c, r, rc, rr, p in zip(*sides, labels, strict=True):
            z = beta * ((c - rc) - (r - rr))
            expected += p * math.log1p(math.exp(-z)) + (1 - p) * math.log1p(math.exp(z))
        actual = preference_loss(*map(fp64, sides), beta=beta, labels=fp64(labels))
        assert_close(actual, expected / size)


def test_preference_reference_is_a_constant_and_nothing_is_zero() -> None:
    sides = [leaf([0.5, 1.0]) for _ in range(4)]
    preference_loss(*sides, beta=0.1).backward()
    assert [side.grad is None for side in sides] == [False, False, True, True]
    empty = [leaf([]) for _ in range(4)]
    loss = preference_loss(*empty, beta=0.1)
    loss.backward()
    assert loss == 0


def tabular_log_odds(labels: str | Tensor, num_steps: tuple[int, ...]) -> list[float]:
    """Two responses, one logit each, uniform reference, beta .2: log-odds along Adam's way.

    Adam (rate .05) is written out: loading torch's takes longer than all its steps.
    """
    logits, ref = leaf([0.0, 0.0]), fp64([0.5]).log()
    first, second = fp64([0.0, 0.0]), fp64([0.0, 0.0])
    log_odds = []
    for step in range(1, max(num_steps) + 1):
        chosen, rejected = logits.log_softmax(0).split(1)
        loss = preference_loss(chosen, rejected, ref, ref, beta=0.2, labels=labels)
        (gradient,) = torch.autograd.grad(loss, logits)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        direction = first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        logits = (logits - 0.05 * direction).detach().requires_grad_()
        if step in num_steps:
            log_odds.append((logits[0] - logits[1]).item())
    return log_odds


def test_tabular_hard_labels_diverge() -> None:
    # There is no optimum: published as 24.8 after 1,000 Adam steps, still climbing.
    earlier, later = tabular_log_odds("hard", (500, 1_000))
    assert later == pytest.approx(24.8, abs=0.05)
    assert later > earlier + 4


def test_tabular_soft_labels_converge() -> None:
    # p = sigmoid(Q_w - Q_l) with Q_w - Q_l = 1: z = beta * log-odds = 1, log-odds 1 / .2 = 5.
    halfway, end = tabular_log_odds(torch.sigmoid(fp64([1.0])), (500, 1_000))
    assert end == pytest.approx(5.0, abs=1e-3)
    assert halfway == pytest.approx(end, abs=1e-2)


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
