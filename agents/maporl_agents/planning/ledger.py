"""Counts the cost of a computation, op by op: bytes alive at once, flops, bytes moved.

A `Ledger` watches every tensor operator that runs inside it. It counts real tensors and tensors on
torch's device "meta" alike, and the latter have shapes but no content, so that the cost of a model
far too large for this machine can be read off its own code, without its weights.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_READ_ONE_NUMBER = torch.ops.aten._local_scalar_dense.default


@dataclass(frozen=True)
class Cost:
    """The cost of a computation.

    Attributes:
        flops: additions and multiplications of matrix products.
        moved_bytes: what all operators together read and write.
        ops: how many operators run.
        peak_bytes: most bytes alive at once that were not before.
    """

    flops: float = 0.0
    moved_bytes: float = 0.0
    ops: float = 0.0
    peak_bytes: int = 0

    def times(self, factor: float) -> Cost:
        """Return the cost of doing it again and again: more work, the same peak."""
        return Cost(
            self.flops * factor, self.moved_bytes * factor, self.ops * factor, self.peak_bytes
        )

    def then(self, other: Cost) -> Cost:
        """Return the cost of doing both, one after the other."""
        return Cost(
            self.flops + other.flops,
            self.moved_bytes + other.moved_bytes,
            self.ops + other.ops,
            max(self.peak_bytes, other.peak_bytes),
        )


class Ledger(TorchDispatchMode):
    """Counts what runs inside ``with ledger:``, the backward pass included.

    Args:
        owned: tensors that are there already and are not counted, e.g. a model's parameters.
        padded: the answer to models that ask a tensor without content whether there is padding.

    Attributes:
        flops: as in `Cost`; so are `moved_bytes` and `ops`.
        live_bytes: alive now, of all that was made inside.
        peak_bytes: the most that was alive at once since the last `start`.
    """

    def __init__(self, owned: Iterable[Tensor] = (), *, padded: bool = True) -> None:
        super().__init__()
        self._padded = padded
        self._known = {_key(tensor) for tensor in owned}
        self.live_bytes = 0
        self.start()

    def start(self) -> None:
        """Reset the count: tensors that are alive now do not count."""
        self._taken_for_granted = self.peak_bytes = self.live_bytes
        self.flops = self.moved_bytes = self.ops = 0.0

    def cost(self) -> Cost:
        """Return the cost since the last `start`."""
        peak = self.peak_bytes - self._taken_for_granted
        return Cost(self.flops, self.moved_bytes, self.ops, peak)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operator and count it."""
        kwargs = kwargs or {}
        if func is _READ_ONE_NUMBER and args[0].is_meta:
            return int(not self._padded)  # "are all of these real tokens?"
        with self:  # in inference mode operators come in whole that are made of others
            out = func.decompose(*args, **kwargs)
        if out is not NotImplemented:
            return out
        out = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if not func.is_view:
            given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            self.ops += 1
            self.moved_bytes += sum(map(_nbytes, given)) + sum(map(_nbytes, made))
            count = flop_registry.get(func.overloadpacket)
            self.flops += count(*args, **kwargs, out_val=out) if count else 0
        for tensor in made:
            self._hold(tensor)
        return out

    def _hold(self, tensor: Tensor) -> None:
        storage, key = tensor.untyped_storage(), _key(tensor)
        if key in self._known:
            return
        self._known.add(key)
        size = storage.nbytes()
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._let_go, key, size)

    def _let_go(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live_bytes -= size


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@contextmanager
def sketching(ledger: Ledger) -> Iterator[Ledger]:
    """Count work on tensors without content, with the attention that real devices run.

    Torch would spell attention out on "meta", scores and all. Every device that matters has a
    kernel that keeps only the result and one number per query; that is what is counted. Not for
    several threads at once: torch's function is exchanged meanwhile. (A `TorchFunctionMode` would
    be off in the backward pass, where layers may be recomputed.)
    """
    spelt_out = functional.scaled_dot_product_attention

    def fused(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not query.is_meta:
            return spelt_out(query, key, value, *args, **kwargs)
        mask = args[0] if args else kwargs.get("attn_mask")
        return _Attention.apply(query, key, value, mask, ledger)

    functional.scaled_dot_product_attention = fused
    try:
        with ledger:
            yield ledger
    finally:
        functional.scaled_dot_product_attention = spelt_out


class _Attention(torch.autograd.Function):
    """Attention by shapes: the tensors it keeps and returns, and its flops."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, ledger: Ledger
    ) -> Tensor:
        out = torch.empty_like(query)
        sums = torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)
        if mask is not None and mask.dtype == torch.bool:
            mask = torch.empty_like(mask, dtype=query.dtype)  # kernels take numbers to add
        ctx.save_for_backward(query, key, value, mask, out, sums)
        ctx.ledger = ledger
        ledger.flops += _attention_flops(query, key)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *_ = ctx.saved_tensors
        ctx.ledger.flops += 2.5 * _attention_flops(query, key)
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None, None


def _attention_flops(query: Tensor, key: Tensor) -> float:
    """Two products of (queries x size) by (size x keys) in each head; masked ones are made too."""
    return 4.0 * math.prod(query.shape) * key.shape[-2]
