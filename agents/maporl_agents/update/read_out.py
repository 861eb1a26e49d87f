"""The output head over many tokens: log-probabilities, entropies and exact KLs, chunk by chunk.

A vocabulary of 152,000 tokens takes 600 KB of float32 per position and copy. Where positions x
vocabulary is large, the head therefore runs on a chunk of positions at a time, and the backward
pass computes each chunk again instead of keeping its logits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from maporl_agents.losses import full_kl
from maporl_agents.models.bases import Base
from maporl_agents.models.lm_head import chunks, temper
from maporl_agents.models.truncation import KeptSets, only

CHUNK = 2**25
"""Largest tokens x vocabulary in one chunk; 128 MiB of float32 in each of a few copies."""
BLOCK = 2**20
"""Largest tokens x vocabulary that a processor makes probabilities at once: 4 MiB of float32, which
stay near it between the passes over them, and in blocks that the allocator keeps."""


def read_out(
    base: Base,
    states: Tensor,
    ids: Tensor,
    temperature: float,
    *,
    kept: KeptSets | None = None,
    reference: bool = False,
    with_entropy: bool = False,
    train_entropy: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities of N ids and the entropies of their distributions, (N,) each.

    Args:
        base: the base model whose output head is used.
        states: (N, H), the trunk's states just before the ids.
        ids: (N,).
        temperature: the temperature at which the ids were sampled.
        kept: the N sets that the ids were drawn from, over which distributions are renormalised;
            None for the whole vocabulary.
        reference: use the reference policy's head.
        with_entropy: also compute the entropies; they are 0 without it.
        train_entropy: also compute the entropies, with gradient.
    """

    def of_chunk(states: Tensor, ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        logits = temper(base.logits(states, reference=reference), temperature)  # (n, V)
        logits = only(logits, mask)
        if not train_entropy:
            return _LogProbs.apply(logits, ids, with_entropy)
        all_logprobs = logits.log_softmax(-1)
        logprobs = all_logprobs.gather(1, ids[:, None])[:, 0]
        return logprobs, -(all_logprobs.exp() * all_logprobs).sum(-1)

    pieces = list(chunks(len(ids), base.vocab_size, CHUNK))
    if len(pieces) == 1:
        return of_chunk(states, ids, _mask(kept, pieces[0], base))
    run: Callable[..., tuple[Tensor, Tensor]] = of_chunk
    if torch.is_grad_enabled():
        run = partial(checkpoint, of_chunk, use_reentrant=False, preserve_rng_state=False)
    found = [run(states[piece], ids[piece], _mask(kept, piece, base)) for piece in pieces]
    return torch.cat([one[0] for one in found]), torch.cat([one[1] for one in found])


def read_out_candidates(
    base: Base, states: Tensor, candidates: Tensor, temperature: float
) -> Tensor:
    """Return the log-probabilities of K candidates for each of N tokens, (N, K).

    Args:
        base: the base model whose output head is used.
        states: (N, H), the trunk's states just before the tokens.
        candidates: (N, K) ids.
        temperature: divides the logits.
    """

    def of_chunk(states: Tensor, ids: Tensor) -> Tensor:
        return temper(base.logits(states), temperature).log_softmax(-1).gather(1, ids)

    pieces = list(chunks(len(states), base.vocab_size, CHUNK))
    run: Callable[..., Tensor] = of_chunk
    if torch.is_grad_enabled() and len(pieces) > 1:
        run = partial(checkpoint, of_chunk, use_reentrant=False, preserve_rng_state=False)
    return torch.cat([run(states[piece], candidates[piece]) for piece in pieces])


def read_out_kl(
    base: Base,
    states: Tensor,
    ref_states: Tensor,
    temperature: float,
    kept: KeptSets | None = None,
    *,
    divergence: Callable[[Tensor, Tensor], Tensor] = full_kl,
) -> Tensor:
    """Return a KL between policy and reference over the vocabulary, (N,), from states (N, H).

    The `divergence` of logits (n, V) each is `full_kl`, KL(ref || policy), or that of the other
    direction, `divergences.exact_kl`; the gradient is by `states`. With `kept`, both are
    renormalised over the sets that tokens were drawn from.
    """

    def of_chunk(states: Tensor, ref_states: Tensor, mask: Tensor | None) -> Tensor:
        with torch.no_grad():
            frozen = temper(base.logits(ref_states, reference=True), temperature)
        own = temper(base.logits(states), temperature)
        return divergence(only(own, mask), only(frozen, mask))

    pieces = list(chunks(len(states), base.vocab_size, CHUNK))
    run: Callable[..., Tensor] = of_chunk
    if torch.is_grad_enabled() and len(pieces) > 1:
        run = partial(checkpoint, of_chunk, use_reentrant=False, preserve_rng_state=False)
    return torch.cat(
        [run(states[piece], ref_states[piece], _mask(kept, piece, base)) for piece in pieces]
    )


def _mask(kept: KeptSets | None, piece: slice, base: Base) -> Tensor | None:
    """Return the kept sets of some tokens as booleans, (n, V); None for the whole vocabulary."""
    return None if kept is None else kept.part(piece).mask(base.vocab_size)


class _LogProbs(torch.autograd.Function):
    """Log-probabilities of ids, and entropies without gradient, from logits (N, V).

    The backward pass reads the probabilities p that the entropies need anyway, (N, V), and turns
    them into the gradient where they stand, so there is one backward pass:

        d log p(id) / d logit_v = [v = id] - p_v

    That takes a third of the passes over (N, V) that log_softmax and gather take.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, with_entropy: bool) -> tuple[Tensor, Tensor]:
        trained = ctx.needs_input_grad[0]
        block = CHUNK if logits.is_cuda else BLOCK  # a plan's tensors, too, are as a processor's
        logprobs, entropy = logits.new_empty(len(ids)), logits.new_zeros(len(ids))
        probabilities = torch.empty_like(logits if trained else logits[:0])  # (N, V)
        for rows in chunks(len(ids), logits.shape[1], block):
            part = logits[rows].log_softmax(-1)  # (n, V)
            logprobs[rows] = part.gather(1, ids[rows, None])[:, 0]
            if trained or with_entropy:
                some = torch.exp(part, out=probabilities[rows]) if trained else part.exp()
                if with_entropy:
                    entropy[rows] = -torch.linalg.vecdot(some, part)
        ctx.save_for_backward(probabilities, ids)
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        probabilities, ids = ctx.saved_tensors
        of_logprobs = gradients[0][:, None]  # (N, 1)
        gradient = probabilities.mul_(-of_logprobs)  # (N, V)
        return gradient.scatter_add_(1, ids[:, None], of_logprobs), None, None
