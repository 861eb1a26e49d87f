"""Products of rows with the low-rank matrices of several adapters, each row by its own adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

PIECE = 128
"""Rows that are converted to another format at once: so few stay in a processor's cache."""


class RowGroups:
    """The adapters of the texts of one batch, and the places of each adapter's texts.

    Args:
        names: the adapter of each of N texts; a name that no layer has means the base alone.
        width: S, ids per text. A layer may get N texts of S ids or their N x S ids as rows.

    Attributes:
        adapters: the distinct names.
        spans: (adapter, first, last + 1) of each adapter's texts, after sorting by `order`.
        order: the permutation of texts that puts those of an adapter together; None where they
            are together already.
        kept: tensors made for these texts, by key: scales and permutations that layers share.
    """

    def __init__(self, names: Sequence[str], width: int) -> None:
        self.names = tuple(names)
        self.width = width
        self.kept: dict[Any, Tensor] = {}
        places = {name: place for place, name in enumerate(dict.fromkeys(names))}
        order = sorted(range(len(names)), key=lambda row: places[self.names[row]])
        self.order = None if order == list(range(len(order))) else order
        self.adapters = frozenset(places)
        self.spans: list[tuple[str, int, int]] = []
        start = 0
        for name in places:
            end = start + self.names.count(name)
            self.spans.append((name, start, end))
            start = end

    def row_spans(self, count: int) -> list[tuple[str, int, int]]:
        """Return `spans` in rows: of the N texts themselves, or of their N x S ids."""
        per_text = self.rows_per_text(count)
        return [(name, start * per_text, end * per_text) for name, start, end in self.spans]

    def rows_per_text(self, count: int) -> int:
        """Return 1 for the N texts themselves, S for their N x S ids as rows.

        Raises:
            ValueError: `count` is neither N nor N x S.
        """
        texts = len(self.names)
        if count not in (texts, texts * self.width):
            raise ValueError(f"{count} rows for {texts} texts of {self.width} ids")
        return count // texts

    def names_of_rows(self, count: int) -> list[str]:
        """Return the adapter of each of the N texts, or of each of their N x S ids as rows."""
        repeats = self.rows_per_text(count)
        return [name for name in self.names for _ in range(repeats)]

    def order_of_rows(self, count: int, device: torch.device) -> Tensor:
        """Return the permutation (T,) of T = `count` rows, as `order` is of texts."""
        per_text = self.rows_per_text(count)
        key = (per_text, device)
        if key not in self.kept:
            order = torch.tensor(self.order, device=device)
            places = torch.arange(per_text, device=device)
            self.kept[key] = (order[:, None] * per_text + places).flatten()
        return self.kept[key]


class RowRuns:
    """The adapters of rows that stand together: `RowGroups` for texts of unequal lengths.

    Args:
        runs: (adapter, rows, selected rows) in order; a layer may get either kind of rows.
    """

    order = None

    def __init__(self, runs: Sequence[tuple[str, int, int]]) -> None:
        self.adapters = frozenset(name for name, _, _ in runs)
        self._of: dict[int, list[tuple[str, int, int]]] = {}
        for selected in (False, True):
            spans: list[tuple[str, int, int]] = []
            end = 0
            for name, every, some in runs:
                start, end = end, end + (some if selected else every)
                if spans and spans[-1][0] == name:
                    start = spans.pop()[1]
                spans.append((name, start, end))
            self._of[end] = spans

    def row_spans(self, count: int) -> list[tuple[str, int, int]]:
        """Return (adapter, first, last + 1) of the rows of each run, `count` rows in all.

        Raises:
            ValueError: `count` is neither the number of rows nor of the selected ones.
        """
        if count not in self._of:
            raise ValueError(f"{count} rows, where runs have {sorted(self._of)}")
        return self._of[count]

    def names_of_rows(self, count: int) -> list[str]:
        """Return the adapter of each row."""
        return [name for name, start, end in self.row_spans(count) for _ in range(start, end)]


class Matrices(NamedTuple):
    """One adapter on one layer: it adds scale * B A x.

    Attributes:
        a: (r, in).
        b: (out, r).
        scale: alpha / r, or as peft's settings say.
    """

    a: nn.Parameter
    b: nn.Parameter
    scale: float


class LowRank(torch.autograd.Function):
    """A frozen linear layer plus, on spans of its rows, scale * B A x of an adapter each.

    Arguments of `apply`:
    - x: (T, in).
    - weight: (out, in) of the base, in the format of x; None to return the adapters' part alone.
    - bias: (out,) of the base, or None.
    - spans: (first, last + 1, scale) of the rows of each adapter.
    - matrices: A (r, in) and B (out, r) of each span in turn; r may differ.

    As in peft, the adapters' part is computed in their own format and rounded to that of x.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        spans: Sequence[tuple[int, int, float]],
        *matrices: Tensor,
    ) -> Tensor:
        """Return (T, out)."""
        out = len(matrices[1])  # B is (out, r)
        y = x.new_zeros(len(x), out) if weight is None else F.linear(x, weight, bias)  # (T, out)
        inner = []
        for (start, end, scale), a, b in zip(spans, matrices[::2], matrices[1::2], strict=True):
            h = a.new_empty(end - start, len(a))  # (rows, r)
            for piece in _pieces(x, start, end, a.dtype):
                some = h[piece.start - start : piece.stop - start]
                torch.mm(x[piece].to(a.dtype), a.t(), out=some)
                _add_product(y[piece], some, b.t(), scale)
            inner.append(h)
        ctx.spans, ctx.weight = spans, weight
        ctx.save_for_backward(x, *matrices, *inner)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        """Return the gradients of x and the matrices; the base has none."""
        x, *saved = ctx.saved_tensors
        count = len(ctx.spans)
        matrices, inner = saved[: 2 * count], saved[2 * count :]
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.zeros_like(x) if ctx.weight is None else grad @ ctx.weight  # (T, in)
        wanted = ctx.needs_input_grad[4:]  # of A and B of each span in turn
        grads: list[Tensor | None] = []
        for i, (start, end, scale) in enumerate(ctx.spans):
            a, b = matrices[2 * i], matrices[2 * i + 1]
            of_a: Tensor | None = None
            of_b: Tensor | None = None
            for piece in _pieces(grad, start, end, b.dtype):
                part = grad[piece].to(b.dtype)  # (rows, out)
                grad_h = (part @ b).mul_(scale)  # (rows, r)
                if wanted[2 * i]:
                    of_a = _sum(of_a, grad_h.t() @ x[piece].to(a.dtype))
                if wanted[2 * i + 1]:
                    h = inner[i][piece.start - start : piece.stop - start]
                    of_b = _sum(of_b, (part.t() @ h).mul_(scale))
                if grad_x is not None:
                    _add_product(grad_x[piece], grad_h, a, 1.0)
            grads += [of_a, of_b]
        return grad_x, None, None, None, *grads


class Stack:
    """The matrices of several adapters on layers that read the same input, stacked.

    One product with all A gives the inner numbers (T, R) of every adapter and layer, R the sum of
    the ranks. A row keeps those of its own adapter; the others are multiplied by 0.

    Args:
        layers: the adapters of each layer, by name.
        names: the adapters to stack; a layer may lack some, but not all layers lack all.

    Attributes:
        names: the stacked adapters.
    """

    def __init__(self, layers: Sequence[Mapping[str, Matrices]], names: Sequence[str]) -> None:
        self.names = frozenset(names)
        found = [[(n, layer[n]) for n in names if n in layer] for layer in layers]
        self._layout = tuple((n, len(m.a), m.scale) for layer in found for n, m in layer)
        self._ranks = [sum(len(m.a) for _, m in layer) for layer in found]
        self._a = torch.cat([m.a for layer in found for _, m in layer])  # (R, in)
        # Per layer (sum of its ranks, out).
        self._b = [torch.cat([m.b.t() for _, m in layer]) if layer else None for layer in found]
        self._last: tuple[RowGroups, Tensor] | None = None

    def add(self, outputs: Sequence[Tensor], x: Tensor, groups: RowGroups) -> None:
        """Add the adapters' parts to the base's outputs (T, out) of each layer for x (T, in)."""
        h = x.to(self._a.dtype) @ self._a.t()  # (T, R)
        h.view(len(groups.names), -1, h.shape[1]).mul_(self._scales(groups))  # (N, T / N, R)
        parts = h.split(self._ranks, 1) if len(outputs) > 1 else [h]
        for y, part, b in zip(outputs, parts, self._b, strict=True):
            if b is not None:
                _add_product(y, part, b, 1.0)

    def _scales(self, groups: RowGroups) -> Tensor:
        """Return (N, 1, R): the scale of an adapter in its columns for its own texts, else 0.

        Layers with the same ranks and scales share the tensor.
        """
        if self._last is None or self._last[0] is not groups:
            key = (self._layout, self._a.device)
            if key not in groups.kept:
                groups.kept[key] = self._make_scales(groups)
            self._last = (groups, groups.kept[key])
        return self._last[1]

    def _make_scales(self, groups: RowGroups) -> Tensor:
        rows = {
            name: [s if name == n else 0.0 for n, r, s in self._layout for _ in range(r)]
            for name in groups.adapters
        }
        scales = torch.tensor([rows[name] for name in groups.names], dtype=self._a.dtype)
        return scales[:, None].to(self._a.device)


def _add_product(total: Tensor, left: Tensor, right: Tensor, scale: float) -> None:
    """Add scale * left @ right to a tensor in place, converted to its format first."""
    if total.dtype == left.dtype:
        total.addmm_(left, right, alpha=scale)
    else:
        total.add_((left @ right).mul_(scale).to(total.dtype))


def _sum(total: Tensor | None, more: Tensor) -> Tensor:
    return more if total is None else total.add_(more)


def _pieces(rows: Tensor, start: int, end: int, form: torch.dtype) -> Iterator[slice]:
    """Cut rows of a CPU that are converted to another format; others stay whole."""
    convert = rows.dtype != form and rows.device.type == "cpu"
    size = PIECE if convert else max(end - start, 1)
    for first in range(start, end, size):
        yield slice(first, min(first + size, end))
