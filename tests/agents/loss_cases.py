"""Random batches for tests of the losses."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from masked_cases import make_mask, with_garbage
from torch import Tensor

from maporl_agents.losses import policy_loss, value_loss

REDUCTIONS = ("token", "sequence", "constant")
MAX_TOKENS = 10


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
