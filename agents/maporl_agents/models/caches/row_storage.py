"""Storage for the keys and values of a batch that is decoded, allocated ahead of use.

Rows share one tensor per layer, so that reading one more id of each copies no cache.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from maporl_agents.models.caches.kept_caches import Past, States

_AHEAD = 64
"""Columns for new ids that are allocated at once, at least."""


class _Layer(DynamicLayer):
    """Keys and values of one layer, in storage that the rows of a `RowCache` share."""

    def __init__(self, owner: RowCache) -> None:
        super().__init__()
        # A cycle would keep the storage in memory until Python looks for cycles.
        self.owner = cast("RowCache", weakref.proxy(owner))
        self.is_initialized = True
        self.stored: list[Tensor] = []  # keys, values: (rows, heads, columns, size)

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the states of new ids (n, heads, S, size); return those of all columns so far."""
        rows, start = self.owner.rows, self.owner.length
        end = start + key_states.shape[2]
        self.reserve((key_states, value_states), end)
        for whole, new in zip(self.stored, (key_states, value_states), strict=True):
            whole[rows, :, start:end] = new
        self.keys, self.values = (whole[rows, :, :end] for whole in self.stored)
        return self.keys, self.values

    def reserve(self, like: Sequence[Tensor], columns: int) -> None:
        """Allocate storage for at least `columns` columns, keeping what is written.

        It is filled with zeros: an attention weight of 0 times NaN in a masked column would be NaN.
        """
        old = self.stored
        if old and old[0].shape[2] >= columns:
            return
        width = self.owner.width_for(columns)
        self.stored = []
        for place, one in enumerate(like):
            rows = self.owner.num_rows
            whole = one.new_zeros(rows, one.shape[-3], width, one.shape[-1])
            if old:
                whole[:, :, : old[place].shape[2]] = old[place][:rows]
            self.stored.append(whole)

    def get_seq_length(self) -> int:
        """Return the number of columns that are written."""
        return self.owner.length


class RowCache(Cache):
    """A cache in storage that is allocated ahead, with rows that can be dropped.

    Args:
        num_layers: number of layers of the model.
        num_rows: N.
        prompt_columns: columns of the prompts.
        columns: largest number of columns that the batch can need.

    Attributes:
        rows: the rows that the next pass reads.
        length: columns before those of the next pass.
    """

    def __init__(self, num_layers: int, num_rows: int, prompt_columns: int, columns: int) -> None:
        super().__init__(layers=[_Layer(self) for _ in range(num_layers)])
        self.num_rows = num_rows
        self.rows = slice(0, num_rows)
        self.length = 0
        self._prompt_columns, self._columns = prompt_columns, columns

    def width_for(self, columns: int) -> int:
        """Return the number of columns to allocate where `columns` are needed."""
        ahead = max(_AHEAD, (columns - self._prompt_columns) // 2)
        return min(max(columns, self._prompt_columns) + ahead, max(self._columns, columns))

    def pack(self, row: int, past: Past, end: int) -> None:
        """Copy a kept cache into a row, so that it ends before column `end`."""
        start = end - past.length
        for layer, states in zip(self.layers, past.states, strict=True):
            layer.reserve(states, end)
            for whole, kept in zip(layer.stored, states, strict=True):
                whole[row, :, start:end] = kept[:, : past.length]  # (heads, length, size)

    def copy(self, sources: Tensor, first: int, columns: int) -> None:
        """Copy the first `columns` columns of the rows `sources` to the places from `first` on."""
        for layer in self.layers:
            for whole in layer.stored:
                whole[first : first + len(sources), :, :columns] = whole[sources, :, :columns]

    def move(self, sources: Sequence[int], targets: Sequence[int], count: int) -> None:
        """Copy rows to other places, and drop all from place `count` on."""
        for source, target in zip(sources, targets, strict=True):
            for layer in self.layers:
                for whole in layer.stored:
                    whole[target, :, : self.length] = whole[source, :, : self.length]
        self.num_rows = count
        self.rows = slice(0, count)

    def states(self, row: int, runs: Sequence[slice]) -> States:
        """Return a copy of the keys and values of a row in some runs of columns."""

        def of(whole: Tensor) -> Tensor:
            return torch.cat([whole[row, :, run] for run in runs], 1)

        return tuple((of(layer.stored[0]), of(layer.stored[1])) for layer in self.layers)
