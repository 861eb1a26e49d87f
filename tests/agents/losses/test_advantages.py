"""Rewards to advantages: closed forms, slow twins, and the law of the mask."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

import pytest
import torch
from masked_cases import (
    NUM_CASES,
    assert_close,
    fp64,
    make_mask,
    make_random_mask,
    real_columns,
    with_garbage,
)
from torch import Tensor

from maporl_agents.advantages import gae, group_advantages, token_rewards, whiten

ROWS_AT_ONCE = 40  # where rows do not mix, every row is a case


def large_masks(seed: int) -> Iterator[tuple[random.Random, Tensor]]:
    """Yield masks of many rows, and the stream for what belongs to each."""
    rng = random.Random(seed)
    for _ in range(NUM_CASES // ROWS_AT_ONCE):
        yield rng, make_mask(rng, ROWS_AT_ONCE, rng.randint(1, 7))


def other_garbage(rng: random.Random, x: Tensor, mask: Tensor) -> Tensor:
    """The same real elements among other garbage."""
    return torch.where(mask, x, with_garbage(rng, torch.zeros_like(mask)))


# --- token_rewards -----------------------------------------------------------


def test_token_rewards_by_hand() -> None:
    # k1 = logprobs - ref_logprobs on the real tokens; the score lands on the last real one.
    # row 0, columns 1..2: k1 = (-1 - -2, -3 - -2.5) = (1, -.5); -.1 k1 = (-.1, .05); .05 + 2
    # row 1, columns 0..2, the whole window: k1 = (0, 1, -2); (0, -.1, .2); .2 - 1
    # row 2, no token: nothing is paid, its score of 9 is lost
    nan, inf = math.nan, math.inf
    logprobs = fp64([[nan, -1, -3, inf], [-1, -1, -3, 0], [nan, nan, inf, 1]])
    ref_logprobs = fp64([[1e300, -2, -2.5, nan], [-1, -2, -1, nan], [0, nan, inf, -inf]])
    mask = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    score = fp64([2, -1, 9])
    rewards = token_rewards(logprobs, ref_logprobs, mask, score, kl_coef=0.1)
    expected = [[0, -0.1, 2.05, 0], [0, -0.1, -0.8, 0], [0, 0, 0, 0]]
    assert_close(rewards, expected)
    # A row sums to score - kl_coef * (sum of k1): 2 - .1 * .5, and -1 - .1 * -1.
    assert_close(rewards.sum(1), [1.95, -0.9, 0])


def test_score_reaches_the_last_column_of_a_full_window() -> None:
    zeros = torch.zeros(2, 3)
    mask = torch.tensor([[False, True, True], [True, True, True]])
    rewards = token_rewards(zeros, zeros, mask, torch.tensor([1, 2]), kl_coef=0.5)
    assert rewards.tolist() == [[0, 0, 1], [0, 0, 2]]


def test_no_penalty_where_policy_is_reference() -> None:
    logprobs = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(3, 5, dtype=torch.bool)
    assert not token_rewards(logprobs, logprobs, mask, torch.zeros(3), kl_coef=0.7).any()


def test_score_of_an_empty_row_may_be_nan() -> None:
    mask = torch.tensor([[False, False], [True, False]])
    score = fp64([math.nan, 3])
    rewards = token_rewards(torch.zeros(2, 2), torch.zeros(2, 2), mask, score, kl_coef=0.1)
    assert rewards.tolist() == [[0, 0], [3, 0]]


def test_another_kl_takes_the_place_of_the_log_ratio() -> None:
    # -.1 * (4, .5) on the real tokens, 2 on the last; the log-probabilities are not looked at.
    mask = torch.tensor([[False, True, True]])
    kl = fp64([[math.nan, 4, 0.5]])
    other = fp64([[7.0, 7.0, -7.0]])
    rewards = token_rewards(other, -other, mask, fp64([2]), kl_coef=0.1, kl=kl)
    assert_close(rewards, [[0, -0.4, 1.95]])


def slow_token_rewards(
    logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, score: Tensor, kl_coef: float
) -> Tensor:
    out = torch.zeros_like(logprobs)
    for row in range(mask.shape[0]):
        columns = real_columns(mask, row)
        for column in columns:
            k1 = logprobs[row, column].item() - ref_logprobs[row, column].item()
            out[row, column] = -kl_coef * k1
        if columns:
            out[row, columns[-1]] += score[row].item()
    return out


def test_token_rewards_equal_the_loop() -> None:
    for rng, mask in large_masks(1):
        logprobs, ref_logprobs = with_garbage(rng, mask), with_garbage(rng, mask)
        score, kl_coef = with_garbage(rng, mask.any(1)), rng.random()
        rewards = token_rewards(logprobs, ref_logprobs, mask, score, kl_coef=kl_coef)
        expected = slow_token_rewards(logprobs, ref_logprobs, mask, score, kl_coef)
        assert_close(rewards, expected)
        kl = logprobs - ref_logprobs
        given = token_rewards(ref_logprobs, logprobs, mask, score, kl_coef=kl_coef, kl=kl)
        assert_close(given, expected)


# --- gae ---------------------------------------------------------------------

FOUR_REWARDS, FOUR_VALUES = (1.0, 0.0, -1.0, 2.0), (0.5, 1.0, -0.5, 1.5)


def one_row(values: tuple[float, ...]) -> Tensor:
    """Four tokens with two columns of rubbish before and one after."""
    return fp64([[math.nan, math.inf, *values, -math.inf]])


ONE_ROW_MASK = torch.tensor([[0, 0, 1, 1, 1, 1, 0]], dtype=torch.bool)


@pytest.mark.parametrize(
    ("gamma", "lam", "bootstrap", "expected"),
    [
        # r_t + V_{t+1} - V_t: 1 + 1 - .5; 0 - .5 - 1; -1 + 1.5 + .5; 2 + bootstrap - 1.5
        (1.0, 0.0, 0.0, (1.5, -1.5, 1.0, 0.5)),
        (1.0, 0.0, 4.0, (1.5, -1.5, 1.0, 4.5)),
        (1.0, 0.0, 0.1, (1.5, -1.5, 1.0, 0.6)),  # .1 has no exact float32: precision is kept
        # return - V: returns 2, 1, 1, 2 (sums of later rewards); bootstrap 4 adds 4 to each
        (1.0, 1.0, 0.0, (1.5, 0.0, 1.5, 0.5)),
        (1.0, 1.0, 4.0, (5.5, 4.0, 5.5, 4.5)),
        # A_3 = .5; A_2 = 1 + .95 * .5 = 1.475; A_1 = -1.5 + .95 * 1.475 = -.09875;
        # A_0 = 1.5 - .95 * .09875 = 1.4061875
        (1.0, 0.95, 0.0, (1.4061875, -0.09875, 1.475, 0.5)),
        # gamma .5, bootstrap 4: deltas 1 + .5 - .5 = 1; 0 - .25 - 1 = -1.25;
        # -1 + .75 + .5 = .25; 2 + 2 - 1.5 = 2.5. Factor .5 * .8 = .4:
        # A_2 = .25 + 1 = 1.25; A_1 = -1.25 + .5 = -.75; A_0 = 1 - .3 = .7
        (0.5, 0.8, 4.0, (0.7, -0.75, 1.25, 2.5)),
    ],
)
def test_gae_of_four_tokens_by_hand(
    gamma: float, lam: float, bootstrap: float, expected: tuple[float, ...]
) -> None:
    rewards, values = one_row(FOUR_REWARDS), one_row(FOUR_VALUES)
    for form in (bootstrap, fp64(bootstrap), fp64([bootstrap])):
        advantages, returns = gae(
            rewards, values, ONE_ROW_MASK, gamma=gamma, lam=lam, bootstrap=form
        )
        assert_close(advantages, [[0, 0, *expected, 0]])
        expected_returns = [a + v for a, v in zip(expected, FOUR_VALUES, strict=True)]
        assert_close(returns, [[0, 0, *expected_returns, 0]])


def test_gae_of_constant_value_and_terminal_reward() -> None:
    # V = v everywhere, r = R at the end, gamma 1: all deltas but the last are 0, the last is
    # R - v, so A_t = lam^(n-1-t) * (R - v).
    num_tokens, value, reward, lam = 6, 0.25, 1.0, 0.9
    rewards = torch.zeros(1, num_tokens, dtype=torch.float64)
    rewards[0, -1] = reward
    mask = torch.ones_like(rewards, dtype=torch.bool)
    advantages, _ = gae(rewards, torch.full_like(rewards, value), mask, gamma=1.0, lam=lam)
    assert_close(advantages, [[lam ** (num_tokens - 1 - t) * 0.75 for t in range(num_tokens)]])


def test_bootstrap_belongs_to_its_row() -> None:
    # One token per row, at different columns: A = 0 + gamma * bootstrap - 0.
    mask = torch.eye(3, dtype=torch.bool)
    zeros = torch.zeros(3, 3, dtype=torch.float64)
    advantages, _ = gae(zeros, zeros, mask, gamma=0.5, lam=1.0, bootstrap=fp64([2, 4, 8]))
    assert_close(advantages, [[1, 0, 0], [0, 2, 0], [0, 0, 4]])


def test_bootstrap_of_an_empty_row_may_be_nan() -> None:
    mask = torch.tensor([[False, False], [True, False]])
    ones = torch.ones(2, 2)
    advantages, returns = gae(
        ones, ones, mask, gamma=1.0, lam=1.0, bootstrap=torch.tensor([math.nan, 3.0])
    )
    assert advantages.tolist() == [[0, 0], [3, 0]]
    assert returns.tolist() == [[0, 0], [4, 0]]


def slow_gae(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float, bootstrap: Tensor
) -> Tensor:
    """The definition, forward: A_t = sum over k of (gamma lam)^k delta_{t+k}."""
    out = torch.zeros_like(rewards)
    for row in range(mask.shape[0]):
        columns = real_columns(mask, row)
        r = [rewards[row, column].item() for column in columns]
        v = [values[row, column].item() for column in columns] + [bootstrap[row].item()]
        deltas = [r[t] + gamma * v[t + 1] - v[t] for t in range(len(r))]
        for t, column in enumerate(columns):
            out[row, column] = sum((gamma * lam) ** k * d for k, d in enumerate(deltas[t:]))
    return out


def test_gae_equals_the_definition() -> None:
    for rng, mask in large_masks(2):
        rewards, values = with_garbage(rng, mask), with_garbage(rng, mask)
        bootstrap = with_garbage(rng, mask.any(1))
        gamma, lam = rng.random(), rng.random()
        advantages, returns = gae(rewards, values, mask, gamma=gamma, lam=lam, bootstrap=bootstrap)
        assert_close(advantages, slow_gae(rewards, values, mask, gamma, lam, bootstrap))
        assert_close(returns, torch.where(mask, advantages + values, 0.0))


# --- laws of all -------------------------------------------------------------


def test_what_stands_outside_the_mask_changes_no_bit() -> None:
    rng = random.Random(5)
    for _ in range(100):
        mask = make_random_mask(rng)
        a, b = with_garbage(rng, mask), with_garbage(rng, mask)
        other_a, other_b = other_garbage(rng, a, mask), other_garbage(rng, b, mask)
        score = fp64([rng.gauss(0, 1) for _ in mask])
        assert torch.equal(
            token_rewards(a, b, mask, score, kl_coef=0.1),
            token_rewards(other_a, other_b, mask, score, kl_coef=0.1),
        )
        options = {"gamma": 0.9, "lam": 0.95, "bootstrap": score}
        for one, two in zip(
            gae(a, b, mask, **options), gae(other_a, other_b, mask, **options), strict=True
        ):
            assert torch.equal(one, two)
        assert torch.equal(whiten(a, mask), whiten(other_a, mask))


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_empty_tensors(shape: tuple[int, int]) -> None:
    x, mask = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
    assert token_rewards(x, x, mask, torch.zeros(shape[0]), kl_coef=1.0).shape == shape
    advantages, returns = gae(x, x, mask, gamma=1.0, lam=1.0)
    assert advantages.shape == returns.shape == whiten(x, mask).shape == shape


def test_no_samples() -> None:
    assert group_advantages(torch.zeros(0), torch.zeros(0, dtype=torch.long)).shape == (0,)


def test_targets_carry_no_gradient() -> None:
    x = torch.ones(2, 3, requires_grad=True)
    mask = torch.ones(2, 3, dtype=torch.bool)
    results = [
        token_rewards(x, x, mask, x.sum(1), kl_coef=1.0),
        *gae(x, x, mask, gamma=1.0, lam=1.0, bootstrap=x.sum(1)),
        group_advantages(x[0], torch.tensor([0, 0, 1])),
        whiten(x, mask),
    ]
    assert not any(result.requires_grad for result in results)


@pytest.mark.parametrize(
    ("given_dtype", "expected"),
    [
        (torch.bfloat16, torch.float32),
        (torch.int64, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_dtypes(given_dtype: torch.dtype, expected: torch.dtype) -> None:
    x, mask = torch.ones(2, 3).to(given_dtype), torch.ones(2, 3, dtype=torch.bool)
    results = [
        token_rewards(x, x, mask, x[:, 0], kl_coef=1.0),
        *gae(x, x, mask, gamma=1.0, lam=1.0, bootstrap=x[:, 0]),
        group_advantages(x[0], torch.tensor([0, 0, 1]), baseline="leave_one_out", scale="std"),
        whiten(x, mask),
    ]
    assert {result.dtype for result in results} == {expected}


X, MASK = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)


WIDE, ROWS, IDS = torch.zeros(2, 4), torch.zeros(2), torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: token_rewards(WIDE, X, MASK, ROWS, kl_coef=0.1), ["logprobs", "(2, 4)", "(2, 3)"]),
        (lambda: token_rewards(X, WIDE, MASK, ROWS, kl_coef=0.1), ["ref_logprobs", "(2, 4)"]),
        (lambda: token_rewards(X, X, MASK, X, kl_coef=0.1), ["score", "(2, 3)", "(2,)"]),
        (lambda: token_rewards(X, X, MASK.float(), ROWS, kl_coef=0.1), ["torch.bool", "float32"]),
        (lambda: token_rewards(ROWS, ROWS, MASK[:, 0], ROWS, kl_coef=0.1), ["mask", "2 axes"]),
        (lambda: token_rewards(X, X, MASK, ROWS, kl_coef=-0.1), ["kl_coef=-0.1"]),
        (lambda: gae(WIDE, X, MASK, gamma=1.0, lam=1.0), ["rewards", "(2, 4)", "(2, 3)"]),
        (lambda: gae(X, WIDE, MASK, gamma=1.0, lam=1.0), ["values", "(2, 4)", "(2, 3)"]),
        (lambda: gae(X, X, MASK.int(), gamma=1.0, lam=1.0), ["torch.bool", "int32"]),
        (lambda: gae(X[0], X[0], MASK[0], gamma=1.0, lam=1.0), ["mask", "2 axes"]),
        (lambda: gae(X, X, MASK, gamma=1.1, lam=1.0), ["gamma=1.1", "[0, 1]"]),
        (lambda: gae(X, X, MASK, gamma=1.0, lam=-0.1), ["lam=-0.1", "[0, 1]"]),
        (
            lambda: gae(X, X, MASK, gamma=1.0, lam=1.0, bootstrap=torch.zeros(3)),
            ["bootstrap", "(3,)", "(2,)"],
        ),
        (lambda: gae(X + 1j, X, MASK, gamma=1.0, lam=1.0), ["complex", "(2, 3)"]),
        (lambda: group_advantages(X, IDS), ["rewards", "(2, 3)"]),
        (lambda: group_advantages(ROWS, torch.arange(3)), ["group_ids", "(3,)", "(2,)"]),
        (lambda: group_advantages(ROWS, IDS, mask=MASK), ["mask", "(2, 3)", "(2,)"]),
        (lambda: group_advantages(ROWS, IDS, mask=IDS), ["torch.bool", "int64"]),
        (
            lambda: group_advantages(ROWS, IDS, baseline="max"),
            ["baseline='max'", "'mean'", "'leave_one_out'"],
        ),
        (lambda: group_advantages(ROWS, IDS, scale=None), ["scale=None", "'none'", "'std'"]),
        (lambda: whiten(WIDE, MASK), ["x has shape (2, 4)", "(2, 3)"]),
        (lambda: whiten(X, MASK.to(torch.uint8)), ["torch.bool", "uint8"]),
    ],
)
def test_errors_name_what_is_wrong(call: Callable[[], object], words: list[str]) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011, the words are checked below
        call()
    for word in words:
        assert word in str(error.value)
