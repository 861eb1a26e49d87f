"""The arithmetic of `lean_trunk`: norms, rotations, attention and SwiGLU in few operations.

On a CPU an elementwise operation on activations takes as long as moving them through memory. The
backward passes here are written by hand where that saves whole tensors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from maporl_agents.models.packed_texts import Attention, Attentions


def rms_norm(norm: Any, states: Tensor) -> Tensor:
    """Return ``weight * states / sqrt(mean(states**2) + eps)`` over the last axis.

    Args:
        norm: a module of transformers with `weight` and `variance_epsilon`.
        states: (..., H).
    """
    if states.dtype == torch.float64:  # transformers rounds to float32 here: do the same
        normed: Tensor = norm(states)
        return normed
    if states.device.type == "cpu":
        if torch.is_grad_enabled():
            graded: Tensor = _RMSNorm.apply(states, norm.weight, norm.variance_epsilon)
            return graded
        return _normed(states, norm.variance_epsilon)[0].mul_(norm.weight)
    return F.rms_norm(states, states.shape[-1:], norm.weight, norm.variance_epsilon)


def _normed(states: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return states over their root mean square, (..., H), and its inverse, (..., 1)."""
    wide = states.float()
    inverse = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    inverse = inverse.square_().div_(wide.shape[-1]).add_(eps).rsqrt_()
    return (wide * inverse).to(states.dtype), inverse


class _RMSNorm(torch.autograd.Function):
    """RMSNorm whose backward pass reads one saved tensor.

    With n = x / r, r = sqrt(mean(x**2) + eps) and the gradient g of n, that of x is
    (g - n * mean(g * n)) / r.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, eps: float) -> Tensor:
        normed, inverse = _normed(states, eps)
        ctx.save_for_backward(normed, inverse, weight)
        return normed * weight

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        normed, inverse, weight = ctx.saved_tensors
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = (gradient * normed).flatten(0, -2).sum(0)
        inner = (gradient * weight).to(inverse.dtype)  # g, the gradient of n, (..., H)
        mean = (inner * normed).sum(-1, keepdim=True).div_(-normed.shape[-1])  # -mean(g * n)
        of_states = inner.addcmul_(normed.to(inner.dtype), mean).mul_(inverse)
        return of_states.to(gradient.dtype), of_weight, None


def rotate(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotate each pair (i, i + D / 2) of a head's D numbers by the angle of its position.

    Args:
        heads: (N, S, K, D) of K heads.
        cosines: (N, S, 1, D).
        sines: (N, S, 1, D), negated in the first half.
    """
    if heads.requires_grad and torch.is_grad_enabled():
        turned: Tensor = _Rotation.apply(heads, cosines, sines)
        return turned
    return _rotated(heads, cosines, sines, 1)


def _rotated(heads: Tensor, cosines: Tensor, sines: Tensor, sign: float) -> Tensor:
    swapped = heads.roll(heads.shape[-1] // 2, -1)  # the halves of each head exchanged
    return (heads * cosines).addcmul_(swapped, sines, value=sign)


class _Rotation(torch.autograd.Function):
    """A rotation that saves no input for the backward pass, which rotates the gradient back."""

    @staticmethod
    def forward(ctx: Any, heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        ctx.save_for_backward(cosines, sines)
        return _rotated(heads, cosines, sines, 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        cosines, sines = ctx.saved_tensors
        return _rotated(gradients[0], cosines, sines, -1), None, None


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return ``silu(gate) * up``; where no gradient is recorded, in the memory of `gate`."""
    if torch.is_grad_enabled():
        return F.silu(gate) * up
    return F.silu(gate, inplace=True).mul_(up)


def grouped_attention(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, *, causal: bool
) -> Tensor:
    """Return the attention heads' outputs side by side, (N, S, Q x D).

    Query head q of Q reads key-value head q // (Q / K) of K. A single query per row (S = 1) is
    computed by two matrix products on CPUs, which is faster there than PyTorch's kernel.

    Args:
        queries: (N, S, Q, D).
        keys: (N, K, L, D).
        values: (N, K, L, D).
        mask: added to the scores, (N or 1, 1, S, L).
        causal: query s attends to columns up to s alone.
    """
    num_rows, width, num_heads, _ = queries.shape
    if width == 1:
        outputs = _of_one_query(queries[:, 0], keys, values, mask)
    else:
        outputs = F.scaled_dot_product_attention(
            queries.transpose(1, 2),
            keys,
            values,
            attn_mask=mask,
            is_causal=causal,
            enable_gqa=num_heads != keys.shape[1],
        ).transpose(1, 2)
    return outputs.reshape(num_rows, width, -1)


def _of_one_query(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the outputs of one query (N, Q, D) per row, (N x K, Q / K, D), by matrix products."""
    num_rows, num_groups, num_columns, size = keys.shape
    if queries.device.type != "cpu" or queries.dtype not in (torch.float32, torch.float64):
        groups = queries.unflatten(1, (num_groups, -1))
        return F.scaled_dot_product_attention(groups, keys, values, attn_mask=mask)
    groups = queries.reshape(num_rows * num_groups, -1, size) * size**-0.5  # (N x K, Q / K, D)
    scores = torch.bmm(groups, keys.flatten(0, 1).transpose(1, 2))  # (N x K, Q / K, L)
    if mask is not None:
        scores.view(num_rows, num_groups, -1, num_columns).add_(mask)
    return torch.bmm(scores.softmax(-1), values.flatten(0, 1))


class PackedAttention:
    """The attention of packed texts in a layer, with masks that are made once for all layers.

    Args:
        attentions: the calls and the order of their results.
        dtype: format of the scores.
    """

    def __init__(self, attentions: Attentions, dtype: torch.dtype) -> None:
        self._calls = attentions.calls
        self._order = attentions.order
        self._masks = [None if c.mask is None else to_add(c.mask, dtype) for c in self._calls]

    def __call__(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return the heads' outputs side by side, (C, Q x D).

        Args:
            queries: (C, Q, D).
            keys: (T, K, D).
            values: (T, K, D).
        """
        found = [
            _of_call(call, mask, queries, keys, values)
            for call, mask in zip(self._calls, self._masks, strict=True)
        ]
        together = found[0] if len(found) == 1 else torch.cat(found)
        return together if self._order is None else gathered(self._order, together)


def _of_call(
    call: Attention, mask: Tensor | None, queries: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """Return the outputs of one call, (n x S, Q x D)."""

    def taken(places: Tensor, rows: Tensor, *, ordered: bool) -> Tensor:
        if call.first is None or not ordered:
            return gathered(places, rows)
        run = rows[call.first : call.first + places.numel()]
        return run.view(*places.shape, *rows.shape[1:])

    causal = mask is None
    attended = grouped_attention(
        taken(call.queries, queries, ordered=True),
        taken(call.keys, keys, ordered=causal).transpose(1, 2),
        taken(call.keys, values, ordered=causal).transpose(1, 2),
        mask,
        causal=causal,
    )
    return attended.flatten(0, 1)


def gathered(places: Tensor, rows: Tensor) -> Tensor:
    """Return the rows of a tensor (T, A, B, ...) at places (P, Q, ...), as (P, Q, ..., A, B, ...).

    The backward pass of an embedding adds up faster than that of an index.
    """
    return F.embedding(places, rows.flatten(1)).unflatten(-1, rows.shape[1:])


def to_add(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """Return numbers to add to scores: 0 where a column is visible, else the least number."""
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)
