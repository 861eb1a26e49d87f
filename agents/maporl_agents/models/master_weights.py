"""Float32 copies of the trained weights of a model that computes in bfloat16 or float16.

A step of an optimiser is often smaller than the last digit of a bfloat16 or float16 weight and
would be lost; in float16 Adam's eps of 1e-8 is 0 besides. So a float32 copy of every such weight is
trained, and the model computes with that copy rounded to its own format (Micikevicius et al.,
arXiv 1710.03740). The gradient of each backward pass is added to the copies' in float32.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Pairs = Mapping[str, tuple[nn.Parameter, nn.Parameter]]
"""Name of a 16-bit weight -> (the model's parameter, its float32 copy)."""


class MasterWeights:
    """The float32 copies of a model's trained 16-bit weights; empty for a float32 model.

    Args:
        pairs: as `pairs_of` returns them.
    """

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs
        for own, master in pairs.values():
            own.register_post_accumulate_grad_hook(partial(_hand_over, master))

    def __deepcopy__(self, memo: dict[int, Any]) -> MasterWeights:
        """Return a copy with hooks of its own: a parameter is copied without its hooks."""
        return MasterWeights(copy.deepcopy(self._pairs, memo))

    def of(self, name: str, own: nn.Parameter) -> nn.Parameter:
        """Return the tensor that the optimiser updates for a parameter: its copy, or itself."""
        return self._pairs[name][1] if name in self._pairs else own

    @torch.no_grad()
    def round(self) -> None:
        """Round the copies into the model."""
        for own, master in self._pairs.values():
            own.copy_(master)


def pairs_of(model: nn.Module) -> Pairs:
    """Return every parameter below float32 that has a gradient, with a new float32 copy of it."""
    return {
        name: (own, nn.Parameter(own.detach().float()))
        for name, own in model.named_parameters()
        if own.requires_grad and torch.finfo(own.dtype).bits < 32
    }


def _hand_over(master: nn.Parameter, own: Tensor) -> None:
    """Add a new gradient to that of the copy."""
    assert own.grad is not None
    gradient, own.grad = own.grad.float(), None
    master.grad = gradient if master.grad is None else master.grad.add_(gradient)
