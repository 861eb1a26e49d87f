"""Which weights spoke: log-probabilities of a server against those that the trainer computes.

With s the server's log-probabilities of some tokens, p those of the weights that were sent and q
those of other weights (the version before, the base, another agent), the least-squares slope of
s - q on p - q is 1 where the sent weights spoke and 0 where the others did, whatever noise the
server's kernels add to s:

    slope = sum (s - q) (p - q) / sum (p - q)^2        error = std(residual) / sqrt(sum (p - q)^2)

The mean distance of s and p finds what is none of these: another base, or log-probabilities at
another temperature. Where p and q do not differ beyond the noise, the error is large and nothing is
said.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from maporl_agents.models.bases import Base
from maporl_agents.models.lm_head import temper
from maporl_agents.models.lora import LoraBase
from maporl_agents.types import TokenIds

SURE = 5.0
"""Standard errors by which the slope must lie below 1 before a run is stopped."""
HALF = 0.5
"""The slope must also be nearer to the other weights than to those that were sent."""


class Slope(NamedTuple):
    """The slope of s - q on p - q, and its standard error; NaN and infinite where p = q."""

    slope: float
    error: float

    @property
    def others(self) -> bool:
        """Whether it says that the other weights spoke."""
        return self.slope < HALF and self.slope + SURE * self.error < 1


def slope_of(said: Tensor, sent: Tensor, other: Tensor) -> Slope:
    """Return the slope that tells which of two weights spoke.

    Args:
        said: (N,) log-probabilities of the server.
        sent: (N,) those of the weights that were sent.
        other: (N,) those of other weights.
    """
    said, sent, other = said.double(), sent.double(), other.double()
    way = sent - other  # (N,), the regressor: p - q
    length = float(way @ way)
    if len(way) < 2 or not length:
        return Slope(math.nan, math.inf)
    slope = float((said - other) @ way) / length  # least squares through 0
    rest = said - other - slope * way
    spread = math.sqrt(float(rest @ rest) / (len(way) - 1))
    return Slope(slope, spread / math.sqrt(length))


@torch.no_grad()
def logprobs_of(
    base: Base, adapter: str | None, prompt: TokenIds, ids: TokenIds, temperature: float
) -> Tensor:
    """Return the log-probabilities of a message's ids by transformers and peft, (L,)."""
    text = torch.tensor((*prompt, *ids[:-1]), device=base.device)
    # Row i predicts id i + 1: the last row of the prompt predicts the message's first id.
    logits = base.logits_of(text, adapter)[len(prompt) - 1 :]  # (L, V)
    table = temper(logits, temperature).log_softmax(-1)
    chosen = torch.tensor(ids, device=table.device)[:, None]
    return table.gather(1, chosen)[:, 0]


@contextmanager
def as_before(base: LoraBase, adapter: str, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Let an adapter have other weights inside the block, for `logprobs_of` alone."""
    own = base.adapter_weights(adapter)
    now = copies(own)
    with torch.no_grad():
        _copy(weights, own)
    try:
        yield
    finally:
        with torch.no_grad():
            _copy(now, own)


def copies(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of weights, by name."""
    return {name: weight.detach().clone() for name, weight in weights.items()}


def _copy(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    for name, weight in own.items():
        weight.copy_(given[name])


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Return log-probabilities of several messages one after another."""
    return torch.cat([part.double().cpu() for part in parts])
