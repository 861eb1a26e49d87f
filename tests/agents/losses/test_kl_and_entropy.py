"""KL estimates, exact KL, entropy and masked means: closed forms and slow twins."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from masked_cases import NUM_CASES, assert_close, fp64, leaf
from torch import Tensor

from maporl_agents.losses import (
    entropy,
    full_kl,
    kl_estimate,
    masked_mean,
)

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
