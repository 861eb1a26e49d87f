"""Critics: value heads that predict the expected return from a policy's hidden states."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def critic_name(agent: int, turn: int) -> str:
    """Return the name of the critic of agent `agent` in turn `turn`, both counted from 0."""
    return f"agent_{agent}_turn_{turn}"


def critic_adapter(critic: str) -> str:
    """Return the name of the LoRA adapter of a critic that has a trunk of its own."""
    return f"critic_{critic}"


class ValueHead(nn.Module):
    """A critic: maps the hidden state before each token to the expected return from there on.

    It reads the trunk of the policy, or a trunk with an adapter of its own (`critic_adapter`). The
    last layer starts at zero, so that every first value is 0.

    Args:
        width: H, the size of the hidden states.
        hidden: units of the layer between.
        generator: draws the first layer's weights.
    """

    def __init__(self, width: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        # skip_init: PyTorch's own initialisation would draw from the global random state.
        self.inner = nn.utils.skip_init(nn.Linear, width, hidden)
        self.outer = nn.utils.skip_init(nn.Linear, hidden, 1)
        with torch.no_grad():
            self.inner.weight.normal_(0, width**-0.5, generator=generator)
            self.inner.bias.zero_()
            self.outer.weight.zero_()
            self.outer.bias.zero_()

    def forward(self, hidden: Tensor) -> Tensor:
        """Return values (...) of hidden states (..., H), in the format of the head's weights."""
        return self.outer(torch.tanh(self.inner(hidden.to(self.inner.weight.dtype))))[..., 0]


def units_of(weights: Mapping[str, Tensor]) -> int:
    """Return the hidden units of saved value heads, 1 where the weights are of none."""
    return max((len(w) for name, w in weights.items() if name.endswith("inner.bias")), default=1)
