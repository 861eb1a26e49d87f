"""The preference loss: closed forms, a slow twin, a tabular policy."""

from __future__ import annotations

import math
import random

import pytest
import torch
from masked_cases import NUM_CASES, assert_close, fp64, leaf
from torch import Tensor

from maporl_agents.losses import (
    preference_loss,
)

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
