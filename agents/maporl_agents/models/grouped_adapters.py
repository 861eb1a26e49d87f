"""Rows of several LoRA adapters through one frozen linear layer, forward and backward.

A batch of N texts, each read by an adapter or by the base alone, goes through a layer as one matrix
product with the base weight and, for the adapters, either

- two products per adapter over the rows of that adapter, which stand together (`LowRank`). The
  parameters are read as they are; nothing is stacked or copied. This serves training, long texts,
  and batches of one adapter.
- two products with the matrices of all adapters stacked, between which each row keeps the part of
  its own adapter (`Stack`). This serves decoding: without gradients and with few rows, the number
  of operators decides. Ranks may differ, and rows may stand in any order.

`AdapterRoute` gives this forward pass to the plain LoRA layers of a peft model; other kinds keep
peft's own, which loops over the adapters. Inside `AdapterRoute.through` calling such a layer is
enough. A trunk with a forward pass of its own can also name layers that read the same input, which
saves operators:

    q, k, v = grouped_linears([attention.q_proj, attention.k_proj, attention.v_proj], x)

Batches whose texts stand together by adapter are fastest (`RowGroups.order` is None).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import Linear
from peft.utils import AuxiliaryTrainingWrapper
from torch import Tensor, nn
from torch.nn import functional as F

from maporl_agents.models.grouped_products import LowRank, Matrices, RowGroups, RowRuns, Stack

Groups = RowGroups | RowRuns

_FEW_ROWS_CPU, _FEW_ROWS_GPU = 8, 128
"""Rows per adapter up to which stacked matrices are faster."""


class GroupedLayer:
    """The forward pass of one peft layer: grouped inside `AdapterRoute.through`, else peft's own.

    Args:
        layer: a plain LoRA layer on a linear one (`expressible`), whose forward pass this replaces.
        route: names the adapter of each row.
    """

    def __init__(self, layer: Any, route: AdapterRoute) -> None:
        self.by_peft: Callable[..., Tensor] = layer.forward
        self.base: Any = layer.base_layer
        self.route = route
        self.matrices = {
            name: Matrices(a.weight, layer.lora_B[name].weight, float(layer.scaling[name]))
            for name, a in layer.lora_A.items()
        }

    def __call__(self, x: Tensor, *args: Any, **options: Any) -> Tensor:
        """Return the layer's output (..., out) for its input (..., in)."""
        if self.route.groups is None or args or options:
            return self.by_peft(x, *args, **options)
        return _together([self], x, self.route.groups)[0]

    def without_adapters(self, rows: Tensor) -> Tensor:
        """Return the base's output (T, out) for rows (T, in)."""
        if self.plain(rows):
            return F.linear(rows, self.base.weight, self.base.bias)
        return self.base(rows)

    def plain(self, x: Tensor) -> bool:
        """Return whether the base layer is one frozen matrix in the format of x, without hooks."""
        base = self.base
        return (
            type(base) is nn.Linear
            and not base.weight.requires_grad
            and base.weight.dtype == x.dtype
            and "forward" not in vars(base)
            and not (base._forward_hooks or base._forward_pre_hooks)
        )


class AdapterRoute:
    """Tells the layers of a peft model, when they are called, which adapter reads which row.

    peft's own argument for this lasts for one forward pass, and a layer that is recomputed in the
    backward pass needs the names a second time.

    Args:
        model: the model that peft wrapped; the forward passes of its layers change in place.
    """

    def __init__(self, model: nn.Module) -> None:
        self.groups: Groups | None = None
        self.stacks: dict[tuple[GroupedLayer, ...], Stack] = {}
        self._last: tuple[bool, RowGroups] | None = None
        self._weights: list[nn.Parameter] = []
        self._changes = 0
        self._layers: list[GroupedLayer] = []
        for layer in model.modules():
            if expressible(layer):
                layer.forward = own = GroupedLayer(layer, self)
                self._layers.append(own)
                self._weights += [w for found in own.matrices.values() for w in found[:2]]
            elif isinstance(layer, (LoraLayer, AuxiliaryTrainingWrapper)):
                layer.register_forward_pre_hook(self._name_rows, with_kwargs=True)

    def lay_out_for_few_rows(self) -> None:
        """Keep the matrices of frozen float32 bases on a CPU column by column in memory.

        Products with few rows, as in decoding, then take .6 to .9 of their time, and those with
        many rows as long as before. Shapes and numbers stay as they are.
        """
        for layer in self._layers:
            weight = getattr(layer.base, "weight", None)
            if weight is None or type(layer.base) is not nn.Linear or weight.requires_grad:
                continue
            if weight.device.type == "cpu" and weight.dtype == torch.float32:
                weight.data = weight.data.t().contiguous().t()

    def _name_rows(self, _layer: nn.Module, args: Any, options: dict[str, Any]) -> Any:
        """Add the names to the arguments of a layer that peft runs: a forward pre-hook."""
        if self.groups is None:
            return args, options
        return args, options | {"adapter_names": self.groups.names_of_rows(len(args[0]))}

    def grouped(self, names: Sequence[str], width: int) -> RowGroups:
        """Return the groups of a batch: the last ones again if nothing changed."""
        inference = torch.is_inference_mode_enabled()
        if self._last is None or self._last[0] != inference or self._last[1].width != width:
            self._last = None
        if self._last is None or self._last[1].names != tuple(names):
            self._last = (inference, RowGroups(names, width))
        return self._last[1]

    @contextmanager
    def through(self, groups: Groups | None) -> Iterator[None]:
        """Route rows to the adapters of `groups` inside the block; None leaves that to peft."""
        before, self.groups = self.groups, groups
        changes = sum(weight._version for weight in self._weights)
        if torch.is_grad_enabled() or changes != self._changes:
            self.forget()
            self._changes = changes
        try:
            yield
        finally:
            self.groups = before

    def again(self) -> tuple[Any, Any]:
        """Return the contexts of a layer's first run and of its recomputation."""
        return nullcontext(), self.through(self.groups)

    def forget(self) -> None:
        """Free the stacked matrices, which cost as much memory as the adapters of a batch."""
        self.stacks.clear()


def expressible(layer: nn.Module) -> bool:
    """Return whether a layer is a linear one with plain LoRA: no DoRA, no aLoRA, no bias, ...

    Its base may be quantised by bitsandbytes.
    """
    plain = type(layer) is Linear or type(layer).__name__ in ("Linear4bit", "Linear8bitLt")
    return (
        plain
        and isinstance(layer, LoraLayer)
        and bool(layer.lora_A)
        and not layer.lora_variant
        and not any(layer.lora_bias.values())
        and len({part.weight.dtype for part in layer.lora_A.values()}) == 1
    )


def grouped_linear(layer: nn.Module, x: Tensor, groups: Groups | None = None) -> Tensor:
    """Return a layer's output (..., out) for x (..., in); see `grouped_linears`."""
    return grouped_linears([layer], x, groups)[0]


def grouped_linears(
    layers: Sequence[nn.Module], x: Tensor, groups: Groups | None = None
) -> list[Tensor]:
    """Return the outputs (..., out) of layers that read the same x, each row by its adapter.

    Args:
        layers: modules of a model that has an `AdapterRoute`, or others, which are called.
        x: (N, ..., in) or (N x S, in) for N texts of S ids.
        groups: which adapter reads which row; None for those of `AdapterRoute.through`.
    """
    found = [vars(layer).get("forward") for layer in layers]
    own = [layer for layer in found if isinstance(layer, GroupedLayer)]
    groups = groups or (own[0].route.groups if own else None)
    if groups is None or len(own) != len(layers):
        return [layer(x) for layer in layers]
    return _together(own, x, groups)


def _together(layers: Sequence[GroupedLayer], x: Tensor, groups: Groups) -> list[Tensor]:
    """Return the outputs of layers that read the same x."""
    groups.row_spans(len(x))  # checks the number of rows
    rows = x.reshape(-1, x.shape[-1])  # (T, in), texts one after the other in both forms of x
    adapters = len(groups.adapters)
    few = (_FEW_ROWS_CPU if x.device.type == "cpu" else _FEW_ROWS_GPU) * adapters
    if isinstance(groups, RowRuns) or torch.is_grad_enabled() or adapters == 1 or len(rows) > few:
        outputs = [_by_spans(layer, rows, groups) for layer in layers]
    else:
        outputs = _stacked(layers, rows, groups)
    return [output.view(*x.shape[:-1], output.shape[-1]) for output in outputs]


def _by_spans(layer: GroupedLayer, rows: Tensor, groups: Groups) -> Tensor:
    """Return a layer's output (T, out) for rows (T, in), adapter by adapter."""
    spans: list[tuple[int, int, float]] = []
    weights: list[Tensor] = []
    for name, start, end in groups.row_spans(len(rows)):
        if found := layer.matrices.get(name):
            spans.append((start, end, found.scale))
            weights += [found.a, found.b]
    if not spans:
        return layer.without_adapters(rows)
    plain = layer.plain(rows)
    base = (layer.base.weight, layer.base.bias) if plain else (None, None)
    x = rows if plain else rows.to(weights[0].dtype)
    if groups.order is None:
        y = LowRank.apply(x, *base, spans, *weights)
    else:
        order = groups.order_of_rows(len(rows), rows.device)
        ordered = LowRank.apply(x[order], *base, spans, *weights)
        y = torch.empty_like(ordered).index_copy(0, order, ordered)
    if plain:
        return y
    result = layer.base(rows)
    return result + y.to(result.dtype)


def _stacked(layers: Sequence[GroupedLayer], rows: Tensor, groups: RowGroups) -> list[Tensor]:
    """Return the outputs (T, out) of layers for rows (T, in), all adapters in two products."""
    outputs = [layer.without_adapters(rows) for layer in layers]
    stacks, key = layers[0].route.stacks, tuple(layers)
    stack = stacks.get(key)
    if stack is None or not stack.names >= groups.adapters:
        if not any(layer.matrices.keys() & groups.adapters for layer in layers):
            return outputs
        names = [name for name, _, _ in groups.spans]
        stack = stacks[key] = Stack([layer.matrices for layer in layers], names)
    stack.add(outputs, rows, groups)
    return outputs
