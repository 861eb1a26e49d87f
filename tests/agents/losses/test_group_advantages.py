"""Group-relative advantages and whitening: closed forms, slow twins, ties."""

from __future__ import annotations

import math
import random
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from masked_cases import NUM_CASES, assert_close, fp64, make_random_mask, real_columns, with_garbage
from torch import Tensor

from maporl_agents.advantages import group_advantages, running_advantages, whiten

# --- group_advantages --------------------------------------------------------


def test_group_advantages_by_hand() -> None:
    # Group 7: rewards 1, 0, 0, 3, mean 1, deviations 0, -1, -1, 2, variance (1 + 1 + 4) / 3 = 2
    # Group 2: rewards .2, .6, mean .4, deviations -.2, .2, variance .08
    rewards = fp64([1, 0.2, 0, 0, 0.6, 3])
    group_ids = torch.tensor([7, 2, 7, 7, 2, 7])
    centred = fp64([0, -0.2, -1, -1, 0.2, 2])
    assert_close(group_advantages(rewards, group_ids), centred)
    # Leave one out: 1 - 3/3; .2 - .6; 0 - 4/3; 0 - 4/3; .6 - .2; 3 - 1/3
    loo = fp64([0, -0.4, -4 / 3, -4 / 3, 0.4, 8 / 3])
    assert_close(group_advantages(rewards, group_ids, baseline="leave_one_out"), loo)
    s7, s2 = math.sqrt(2) + 1e-4, math.sqrt(0.08) + 1e-4
    scales = fp64([s7, s2, s7, s7, s2, s7])
    assert_close(group_advantages(rewards, group_ids, scale="std"), centred / scales)
    both = group_advantages(rewards, group_ids, baseline="leave_one_out", scale="std")
    assert_close(both, loo / scales)


def test_magrpo_worked_example() -> None:
    # Returns .65 and .30: mean .475, so +-.175; children [1, 0] and [.5, .3]: +-.5 and +-.1.
    returns, nodes = fp64([0.65, 0.30, 1, 0, 0.5, 0.3]), torch.tensor([0, 0, 1, 1, 2, 2])
    advantages = group_advantages(returns, nodes, baseline="mean", scale="none")
    assert_close(advantages, [0.175, -0.175, 0.5, -0.5, 0.1, -0.1])


@pytest.mark.parametrize("baseline", ["mean", "leave_one_out", "maximum"])
@pytest.mark.parametrize("scale", ["none", "std"])
@pytest.mark.parametrize("reward", [0.1, 0.7, 1e8 / 3, -0.3])
def test_equal_rewards_and_single_samples_give_exact_zeros(
    baseline: str, scale: str, reward: float
) -> None:
    # Three times .1 add up to .30000000000000004: the plain mean would leave dust behind.
    rewards = fp64([reward] * 7 + [5.0, reward])
    group_ids = torch.tensor([0] * 3 + [1] * 4 + [2, 3])
    advantages = group_advantages(rewards, group_ids, baseline=baseline, scale=scale)
    assert advantages.tolist() == [0.0] * 9


def slow_group_advantages(
    rewards: list[float], ids: list[int], baseline: str, scale: str
) -> list[float]:
    out = []
    for i, own in enumerate(rewards):
        group = [r for r, g in zip(rewards, ids, strict=True) if g == ids[i]]
        others = [r for j, r in enumerate(rewards) if ids[j] == ids[i] and j != i]
        base = {
            "mean": sum(group) / len(group),
            "leave_one_out": sum(others) / len(others) if others else own,
            "maximum": max(group),
            "none": 0.0,
        }[baseline]
        advantage = own - base
        std = statistics.stdev(group) if len(group) > 1 else 0.0
        out.append(advantage / (std + 1e-4) if scale == "std" else advantage)
    return out


@pytest.mark.parametrize("baseline", ["mean", "leave_one_out", "maximum", "none"])
@pytest.mark.parametrize("scale", ["none", "std"])
def test_group_advantages_equal_the_loop(baseline: str, scale: str) -> None:
    if (baseline, scale) == ("none", "std"):
        with pytest.raises(ValueError, match="needs a baseline"):
            group_advantages(fp64([1]), torch.tensor([0]), baseline=baseline, scale=scale)
        return
    rng = random.Random(3)
    for _ in range(NUM_CASES // 4):
        ids = [rng.choice((-3, 0, 4, 900)) for _ in range(rng.randint(1, 9))]
        rewards = [rng.gauss(0, 1) for _ in ids]
        actual = group_advantages(fp64(rewards), torch.tensor(ids), baseline=baseline, scale=scale)
        assert_close(actual, slow_group_advantages(rewards, ids, baseline, scale))


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-8, 8)), min_size=1), st.randoms())
def test_interleaving_groups_changes_nothing(
    samples: list[tuple[int, int]], rng: random.Random
) -> None:
    order = list(range(len(samples)))
    rng.shuffle(order)
    rewards = fp64([reward for _, reward in samples])
    group_ids = torch.tensor([group for group, _ in samples])
    advantages = group_advantages(rewards, group_ids, scale="std")
    assert_close(group_advantages(rewards[order], group_ids[order], scale="std"), advantages[order])


@pytest.mark.parametrize("scale", ["none", "std"])
@pytest.mark.parametrize("poison", [1e9, math.nan, math.inf])
def test_excluded_sample_moves_nobody(scale: str, poison: float) -> None:
    group_ids = torch.tensor([0, 0, 0, 1, 1])
    mask = torch.tensor([True, False, True, True, True])
    rewards = fp64([1, poison, 3, 0, 1])
    advantages = group_advantages(rewards, group_ids, scale=scale, mask=mask)
    assert advantages[1] == 0
    assert torch.equal(
        advantages[mask], group_advantages(rewards[mask], group_ids[mask], scale=scale)
    )


def test_nan_reward_stays_in_its_group() -> None:
    advantages = group_advantages(fp64([1, math.nan, 3, 5]), torch.tensor([0, 0, 1, 1]))
    assert advantages.isnan().tolist() == [True, True, False, False]


# --- whiten ------------------------------------------------------------------


def test_whiten_by_hand() -> None:
    # Real elements 1, 2, 6: mean 3, deviations -2, -1, 3, variance 14 / 2 = 7.
    x = fp64([[math.nan, 1, 2], [6, math.inf, -math.inf]])
    mask = torch.tensor([[False, True, True], [True, False, False]])
    root = math.sqrt(7)
    assert_close(whiten(x, mask), [[0, -2 / root, -1 / root], [3 / root, 0, 0]])
    kept = [[0, 3 - 2 / root, 3 - 1 / root], [3 + 3 / root, 0, 0]]
    assert_close(whiten(x, mask, shift_mean=False), kept)


@pytest.mark.parametrize("shift_mean", [True, False])
@pytest.mark.parametrize("values", [(), (4.0,), (0.1, 0.1, 0.1), (-1e9 / 3,) * 4, (0.0, 0.0)])
def test_no_spread_gives_zeros_or_the_mean(values: tuple[float, ...], shift_mean: bool) -> None:
    x = fp64([[math.nan, *values, math.inf]])
    mask = torch.tensor([[False, *[True] * len(values), False]])
    expected = [0.0, *((0.0 if shift_mean else v) for v in values), 0.0]
    assert whiten(x, mask, shift_mean=shift_mean).tolist() == [expected]


def test_rounding_dust_is_no_spread() -> None:
    # .1 + .2 differs from .3 in the last bit; blown up to unit variance it would be noise.
    x = fp64([0.1 + 0.2, 0.3, 0.3])
    assert not whiten(x, torch.ones(3, dtype=torch.bool)).any()


@pytest.mark.parametrize("size", [1e-200, 1e-8, 1e8, 1e200])
def test_whiten_is_blind_to_scale(size: float) -> None:
    x, mask = fp64([1, 2, 6]) * size, torch.ones(3, dtype=torch.bool)
    assert_close(whiten(x, mask), fp64([-2, -1, 3]) / math.sqrt(7))


def test_nan_among_the_real_elements_surfaces() -> None:
    mask = torch.tensor([True, True, False])
    assert whiten(fp64([1, math.nan, 2]), mask).isnan().tolist() == [True, True, False]


def slow_whiten(x: Tensor, mask: Tensor, shift_mean: bool) -> Tensor:
    real = [x[row, column].item() for row in range(len(x)) for column in real_columns(mask, row)]
    if not real:
        return torch.zeros_like(x)
    mean = statistics.fmean(real)
    std = statistics.stdev(real) if len(real) > 1 else 0.0
    out = torch.zeros_like(x)
    for row in range(len(x)):
        for column in real_columns(mask, row):
            scaled = (x[row, column].item() - mean) / std if std else 0.0
            out[row, column] = scaled if shift_mean else scaled + mean
    return out


@pytest.mark.parametrize("shift_mean", [True, False])
def test_whiten_equals_the_loop(shift_mean: bool) -> None:
    rng = random.Random(4)
    for _ in range(NUM_CASES // 2):
        mask = make_random_mask(rng)
        x = with_garbage(rng, mask)
        assert_close(whiten(x, mask, shift_mean=shift_mean), slow_whiten(x, mask, shift_mean))


# --- running_advantages ------------------------------------------------------


def test_running_advantages_by_hand() -> None:
    # decay .5. first: b = .5, A = .5; b = .25, A = -.25; second: b = .5 * 2 + .5 * 4 = 3, A = 1
    found, after = running_advantages(
        fp64([1, 4, 0]), ["first", "second", "first"], {"second": 2.0}, decay=0.5
    )
    assert_close(found, [0.5, 1.0, -0.25])
    assert after == {"first": 0.25, "second": 3.0}


def test_running_advantages_of_batches_are_those_of_one_batch() -> None:
    rng = random.Random(4)
    rewards, roles = [rng.random() for _ in range(20)], [rng.choice("ab") for _ in range(20)]
    whole, end = running_advantages(fp64(rewards), roles, {}, decay=0.95)
    parts, baselines = [], {}
    for start in range(0, 20, 7):
        part = slice(start, start + 7)
        found, baselines = running_advantages(
            fp64(rewards[part]), roles[part], baselines, decay=0.95
        )
        parts += found.tolist()
    assert parts == whole.tolist()
    assert baselines == end


def test_running_advantages_without_memory_teach_nothing() -> None:
    found, _ = running_advantages(fp64([3, -1]), ["a", "a"], {}, decay=0.0)
    assert found.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("roles", "decay", "words"), [
    (["a"], 0.5, "1 roles"), (["a", "b"], 1.0, "decay=1.0"), (["a", "b"], -0.1, "decay=-0.1"),
])  # fmt: skip
def test_running_advantages_refuse(roles: list[str], decay: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        running_advantages(fp64([1, 2]), roles, {}, decay=decay)
