"""Truncation of the distribution that tokens are drawn from: top-k, top-p, min-p, and kept sets.

The ids that truncation leaves, the kept set of a token, are part of the distribution: sampling and
scoring renormalise over the same set. A set is recorded when its token is drawn and carried to the
loss, because after an update the policy would leave other ids (DeepSeek-V3.2, arXiv 2512.02556,
section 3.1, "Keep Sampling Mask").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from maporl_agents.config import Truncation
from maporl_agents.types import KeptIds, TokenBatch

NEVER = -1e30
"""A logit whose probability is 0 at any temperature. Not -inf: times 0 it would be NaN."""

_SORTED = 1024
"""Most probable ids that top-p looks at before it sorts a whole vocabulary."""


class KeptSets(NamedTuple):
    """The kept sets of N tokens.

    Attributes:
        counts: (N,) int64, ids in each set; 0 stands for the whole vocabulary.
        ids: (K,) int64, the sets one after another.
    """

    counts: Tensor
    ids: Tensor

    def part(self, piece: slice) -> KeptSets:
        """Return the sets of some tokens in a row."""
        ends = torch.cat([self.counts.new_zeros(1), self.counts.cumsum(0)])
        first, last = piece.start, min(piece.stop, len(self.counts))
        return KeptSets(self.counts[piece], self.ids[ends[first] : ends[last]])

    def mask(self, vocab_size: int) -> Tensor:
        """Return the sets as booleans, (N, V)."""
        places = torch.arange(len(self.counts), device=self.counts.device)
        mask = (self.counts == 0)[:, None].repeat(1, vocab_size)
        mask[places.repeat_interleave(self.counts), self.ids] = True
        return mask


def kept_sets(batch: TokenBatch) -> KeptSets | None:
    """Return the sets of all sampled tokens of a batch, row by row; None if no row has any."""
    if batch.kept is None:
        return None
    counts = _counts(batch.kept, batch)
    ids = b"".join(one.ids for one in batch.kept if one)
    device = batch.ids.device
    flat = torch.from_numpy(np.frombuffer(ids, dtype=np.int32).astype(np.int64))
    return KeptSets(torch.tensor(counts, dtype=torch.long, device=device), flat.to(device))


def _counts(kept: Sequence[KeptIds | None], batch: TokenBatch) -> list[int]:
    """Return the ids in the set of each sampled token; those of tools' results have no set."""
    lengths = batch.written.sum(1).tolist()
    rows = zip(kept, lengths, strict=True)
    counts = [n for one, length in rows for n in (one.counts if one else (0,) * length)]
    if batch.results is None:
        return counts
    sampled = batch.mask[batch.written].tolist()
    return [n for n, own in zip(counts, sampled, strict=True) if own]


def only(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Return logits (N, V) with probability 0 outside the mask; None leaves them as they are."""
    return logits if mask is None else logits.masked_fill(~mask, NEVER)


def kept_mask(logits: Tensor, truncation: Truncation) -> Tensor:
    """Return which ids truncation keeps, (N, V); ids of equal logits are kept or left together.

    One after another, each on what the one before left: top-k, the ids whose logit is at least the
    k-th largest; top-p, the smallest set {p >= c} of probability top_p at least; min-p, the ids
    with p >= min_p max p. The most probable id is always kept. But for ties this is what
    transformers does in `generate`.

    Args:
        logits: (N, V), at the sampling temperature.
        truncation: the three settings.
    """
    largest = logits.amax(-1, keepdim=True)  # (N, 1)
    floor = torch.full_like(largest, -torch.inf)
    if 0 < truncation.top_k < logits.shape[1]:
        floor = logits.topk(truncation.top_k).values[:, -1:]
    if truncation.top_p < 1:
        floor = _nucleus_floor(only(logits, logits >= floor), truncation.top_p)
    if truncation.min_p > 0:
        share = torch.tensor(truncation.min_p, dtype=logits.dtype, device=logits.device)
        floor = torch.maximum(floor, largest + share.log())
    return logits >= torch.minimum(floor, largest)


def _nucleus_floor(logits: Tensor, top_p: float) -> Tensor:
    """Return the least logit in the nucleus of each row, (N, 1)."""
    width = min(_SORTED, logits.shape[1])
    total = logits.logsumexp(-1, keepdim=True)  # (N, 1)
    ordered = logits.topk(width).values  # (N, W), descending
    floor = _least_inside(ordered, total, top_p)
    if width < logits.shape[1]:
        larger = (ordered - total).exp().sum(-1) < top_p
        if bool(larger.any()):
            whole = logits[larger].sort(-1, descending=True).values
            floor[larger] = _least_inside(whole, total[larger], top_p)
    return floor


def _least_inside(ordered: Tensor, total: Tensor, top_p: float) -> Tensor:
    """Return the last of descending logits, before which there is less probability than top_p."""
    before = (ordered - total).exp().cumsum(-1)[:, :-1]  # (N, W - 1): of all up to this one
    last = (before < top_p).sum(-1, keepdim=True)
    return ordered.gather(1, last)
