"""Sampling noise: one uniform number per token, named by the token, and the token that it draws.

A token's number depends on the seed of the call and the name of its message alone: not on the rows
beside it, on how many there are, on when they end, or on the process that writes them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from maporl_agents.tensor_checks import working_dtype


def uniforms(streams: Sequence[int], count: int) -> np.ndarray:
    """Return the first `count` numbers of N streams, (N, count) float64 in [0, 1).

    Philox, a generator made for streams by key (Salmon et al. 2011, "Parallel random numbers: as
    easy as 1, 2, 3"). A longer table begins with the shorter one.

    Args:
        streams: N keys, below 2^128.
        count: numbers of each.
    """
    rows = [np.random.Generator(np.random.Philox(key=key)).random(count) for key in streams]
    return np.stack(rows) if rows else np.empty((0, count))


def draw(logprobs: Tensor, uniform: Tensor) -> Tensor:
    """Return one id per row by the inverse of its distribution function, (N,).

    The id is the first whose cumulated probability exceeds the uniform number. One of probability 0
    is never drawn, also where the number rounds up to 1.

    Args:
        logprobs: (N, V) log-probabilities, float32 or float64.
        uniform: (N,) numbers in [0, 1).
    """
    probabilities = logprobs.exp()
    cumulated = probabilities.cumsum(-1)  # (N, V)
    total = cumulated[:, -1:].contiguous()  # 1, but for rounding
    below_total = torch.nextafter(total, torch.zeros_like(total))
    levels = torch.minimum(uniform[:, None].to(working_dtype(logprobs)) * total, below_total)
    chosen = torch.searchsorted(cumulated, levels, right=True)[:, 0]
    chosen = chosen.clamp(max=logprobs.shape[1] - 1)  # beyond the end if one is no number
    # Accelerators add in parallel: by rounding, their sums can change where nothing is added.
    return _possible(probabilities, chosen) if probabilities.is_cuda else chosen


def _possible(probabilities: Tensor, chosen: Tensor) -> Tensor:
    """Return chosen ids (N,), the most probable one in place of an id of probability 0."""
    stray = probabilities.gather(1, chosen[:, None])[:, 0] == 0
    return torch.where(stray, probabilities.argmax(-1), chosen)
