"""Masks, and random tensors with garbage outside them, for tests of the mathematics."""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor

NUM_CASES = 1_000
GARBAGE = (math.nan, math.inf, -math.inf, 1e300, -7.0)


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


def make_random_mask(rng: random.Random) -> Tensor:
    return make_mask(rng, rng.randint(1, 4), rng.randint(1, 7))


def with_garbage(rng: random.Random, mask: Tensor, std: float = 1.0) -> Tensor:
    """Normal variates on the mask, NaN, infinities and huge numbers elsewhere."""
    flat = [rng.gauss(0, std) if m else rng.choice(GARBAGE) for m in mask.flatten().tolist()]
    return fp64(flat).reshape(mask.shape)


def real_columns(mask: Tensor, row: int) -> list[int]:
    return [column for column, is_real in enumerate(mask[row].tolist()) if is_real]


def assert_close(actual: Tensor, expected: object, atol: float = 1e-9) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    assert actual.shape == expected.shape
    assert torch.allclose(actual, expected, rtol=0, atol=atol)
