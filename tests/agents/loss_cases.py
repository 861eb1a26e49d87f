"""Random batches for tests of the losses, and slow twins' helpers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from maporl_agents.losses import (
    policy_loss,
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


def assert_close(actual: Tensor, expected: object, atol: float = 1e-9) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    assert actual.shape == expected.shape
    assert torch.allclose(actual, expected, rtol=0, atol=atol)
