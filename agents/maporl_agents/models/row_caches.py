"""The rows of a batch that is decoded, and the key-value caches that they are read with.

- `StoredRows`, for models of plain attention: storage is allocated ahead, caches kept from earlier
  turns are packed into it, and only what is new is read. Rows of unequal length leave holes, which
  the attention mask names.
- `GrowingRows`, for all other models: prompts are padded and read from their beginning, and the
  cache is the library's own for that architecture.

In both, equal prompts of the same weights are read once, and rows that have ended are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from maporl_agents.models.bases import Base
from maporl_agents.models.kept_caches import Past, States
from maporl_agents.models.row_storage import RowCache
from maporl_agents.types import TokenIds

PREFILL_TOKENS = 8192
"""Largest number of ids that are read in one pass of prompts, longer prompts excepted."""
_PADDING = 256
"""Ids of padding that cost less than another pass."""


class Prompted(Protocol):
    """A row: its prompt, who reads it, how many ids may follow, and what is read already."""

    prompt: TokenIds
    policy: str
    limit: int
    past: Past | None


class BatchRows(Protocol):
    """N rows in decoding, each in a place; places change as rows are dropped.

    Attributes:
        alive: place -> index of the row.
    """

    alive: list[int]

    def read_prompts(self) -> Tensor:
        """Read all prompts; return the states after their last ids, (N, H) by place."""

    def read_next(self, ids: Tensor) -> Tensor:
        """Read one id (N,) more of each row; return the states after them, (N, H)."""

    def drop(self, going: Sequence[bool]) -> list[int]:
        """Keep the rows that go on; return for each new place the place it had before."""


def batch_rows(base: Base, rows: Sequence[Prompted]) -> BatchRows:
    """Return rows as the model can be run with them."""
    return StoredRows(base, rows) if base.packs else GrowingRows(base, rows)


def plain_attention(model: PreTrainedModel) -> bool:
    """Return whether all layers attend to all that precedes, by the model's settings.

    Then keys and values of a text stay what they are whatever follows, wherever they are stored.
    Not so with sliding windows, whose masks count columns, with states in place of keys, and with
    angles that depend on the longest text.
    """
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    layers = DynamicCache(config=model.config).layers
    return (
        rope.get("rope_type") not in ("dynamic", "longrope")
        and bool(layers)
        and all(type(layer) is DynamicLayer for layer in layers)
    )


class _Distinct(NamedTuple):
    """A prompt and the rows that begin with it; `length` ids of it are read already."""

    rows: list[int]
    prompt: TokenIds
    policy: str
    past: Past | None

    @property
    def length(self) -> int:
        return 0 if self.past is None else self.past.length

    @property
    def unread(self) -> int:
        return len(self.prompt) - self.length


def _distinct(base: Base, rows: Sequence[Prompted]) -> list[_Distinct]:
    """Return the prompts that differ, or are read by other weights; the longest to read first."""
    found: dict[tuple[str, TokenIds], _Distinct] = {}
    for index, row in enumerate(rows):
        key = base.weights_of(row.policy), row.prompt
        found.setdefault(key, _Distinct([], row.prompt, row.policy, row.past)).rows.append(index)
    return sorted(found.values(), key=lambda one: -one.unread)


class _Rows:
    """The rows of a batch, and the prompts that differ among them.

    Args:
        base: the model.
        rows: N rows.

    Attributes:
        alive: place -> index of the row; set by the subclass.
    """

    alive: list[int]

    def __init__(self, base: Base, rows: Sequence[Prompted]) -> None:
        self._base, self._rows = base, rows
        self._distinct = _distinct(base, rows)

    def _policies(self) -> list[str]:
        """Return the policy of the row in each place."""
        return [self._rows[row].policy for row in self.alive]


class StoredRows(_Rows):
    """Rows whose caches are packed.

    First come columns of kept ids, then columns of new ids of prompts, then a column per token that
    is sampled. In the first two, rows are flush right.
    """

    def __init__(self, base: Base, rows: Sequence[Prompted]) -> None:
        super().__init__(base, rows)
        self.alive = [one.rows[0] for one in self._distinct]
        self.alive += [row for one in self._distinct for row in one.rows[1:]]
        self._kept = max(one.length for one in self._distinct)
        self._prompts = self._kept + self._distinct[0].unread
        columns = self._prompts + max(row.limit for row in rows)
        layers = len(DynamicCache(config=base.model.config).layers)
        self._cache = RowCache(layers, len(rows), self._prompts, columns - 1)
        lengths = {row: one.length for one in self._distinct for row in one.rows}
        self._lengths = [lengths[row] for row in range(len(rows))]
        self._attention = self._mask(columns).to(base.device)
        self._positions = torch.tensor(
            [len(rows[row].prompt) for row in self.alive], device=base.device
        )

    def _mask(self, columns: int) -> Tensor:
        """Return the attention mask of all columns, (N, columns), by place."""
        mask = torch.ones(len(self.alive), columns, dtype=torch.long)
        for place, row in enumerate(self.alive):
            length = self._lengths[row]
            mask[place, : self._kept - length] = 0
            mask[place, self._kept : self._prompts - (len(self._rows[row].prompt) - length)] = 0
        return mask

    def read_prompts(self) -> Tensor:
        """Read what is new in all prompts; return the states after their last ids, (N, H)."""
        for place, one in enumerate(self._distinct):
            if one.past is not None:
                self._cache.pack(place, one.past, self._kept)
        for row in self._rows:
            row.past = None  # copied: its memory can be had for something else
        states = [self._read(first, last) for first, last in _passes(self._distinct)]
        hidden = torch.cat(states)
        repeats = [place for place, one in enumerate(self._distinct) for _ in one.rows[1:]]
        if repeats:
            sources = torch.tensor(repeats, device=hidden.device)
            self._cache.copy(sources, len(self._distinct), self._prompts)
            hidden = torch.cat([hidden, hidden[sources]])
        self._cache.rows = slice(0, len(self.alive))
        self._cache.length = self._prompts
        return hidden

    def _read(self, first: int, last: int) -> Tensor:
        """Read the prompts in some places; return the states after their last ids."""
        some = self._distinct[first:last]
        width = some[0].unread
        start = self._prompts - width
        ids = torch.full((len(some), width), self._base.chat.pad_id)
        for place, one in enumerate(some):
            ids[place, width - one.unread :] = torch.tensor(one.prompt[one.length :])
        ends = torch.tensor([len(one.prompt) for one in some])[:, None]
        positions = (torch.arange(-width, 0) + ends).clamp(min=0)
        self._cache.rows, self._cache.length = slice(first, last), start
        device = self._base.device
        return self._base.hidden(
            ids.to(device),
            self._attention[first:last, : self._prompts],
            positions.to(device),
            [one.policy for one in some],
            cache=self._cache,
        )[:, -1]

    def read_next(self, ids: Tensor) -> Tensor:
        """Read one id (N,) more of each row; return the states after them, (N, H)."""
        attention = self._attention[:, : self._cache.length + 1]
        hidden = self._base.hidden(
            ids[:, None], attention, self._positions[:, None], self._policies(), cache=self._cache
        )
        self._positions = self._positions + 1
        self._cache.length += 1
        return hidden[:, -1]

    def drop(self, going: Sequence[bool]) -> list[int]:
        """Keep the rows that go on; the last of them move to the places of those that ended."""
        count = sum(going)
        free = [place for place in range(count) if not going[place]]
        late = [place for place in range(count, len(going)) if going[place]]
        places = list(range(count))
        for target, source in zip(free, late, strict=True):
            places[target] = source
        index = torch.tensor(places, device=self._base.device)
        self._cache.move(late, free, count)
        self._attention, self._positions = self._attention[index], self._positions[index]
        self.alive = [self.alive[place] for place in places]
        return places

    def states(self, place: int) -> States:
        """Return what is read of a row, prompt and sampled tokens, in the order of its ids."""
        row = self.alive[place]
        length = self._lengths[row]
        unread = len(self._rows[row].prompt) - length
        runs = [
            slice(self._kept - length, self._kept),
            slice(self._prompts - unread, self._cache.length),
        ]
        return self._cache.states(place, runs)


def _passes(prompts: Sequence[_Distinct]) -> list[tuple[int, int]]:
    """Divide prompts, the longest first, into passes of about equally long ones: (first, last)."""
    found: list[tuple[int, int]] = []
    first, real = 0, 0
    for place, one in enumerate(prompts):
        whole = (place + 1 - first) * prompts[first].unread
        padding = whole - real - one.unread
        if place > first and (whole > PREFILL_TOKENS or padding > max(_PADDING, whole // 8)):
            found.append((first, place))
            first, real = place, 0
        real += one.unread
    return [*found, (first, len(prompts))]


class GrowingRows(_Rows):
    """Rows that are read from their beginning, with the library's own cache."""

    def __init__(self, base: Base, rows: Sequence[Prompted]) -> None:
        super().__init__(base, rows)
        self.alive = [row for one in self._distinct for row in one.rows]
        self._cache = DynamicCache(config=base.model.config)
        prompts = [one.prompt for one in self._distinct]
        self._ids, self._attention = _left_pad(prompts, base.chat.pad_id, base.device)
        self._positions = (self._attention.cumsum(1) - 1).clamp(min=0)

    def read_prompts(self) -> Tensor:
        """Read all prompts; return the states after their last ids, (N, H) by place."""
        names = [one.policy for one in self._distinct]
        hidden = self._base.hidden(
            self._ids, self._attention, self._positions, names, cache=self._cache
        )[:, -1]
        self._positions = self._positions[:, -1:]
        places = [place for place, one in enumerate(self._distinct) for _ in one.rows]
        return hidden if len(places) == len(hidden) else hidden[self._select(places)]

    def read_next(self, ids: Tensor) -> Tensor:
        """Read one id (N,) more of each row; return the states after them, (N, H)."""
        ones = self._attention.new_ones(len(self._attention), 1)
        self._attention = torch.cat([self._attention, ones], 1)
        self._positions = self._positions + 1
        return self._base.hidden(
            ids[:, None], self._attention, self._positions, self._policies(), cache=self._cache
        )[:, -1]

    def drop(self, going: Sequence[bool]) -> list[int]:
        """Keep the rows that go on; return for each new place the place it had before."""
        places = [place for place, goes in enumerate(going) if goes]
        self._select(places)
        self.alive = [self.alive[place] for place in places]
        return places

    def _select(self, places: list[int]) -> Tensor:
        """Let the i-th row be that of the i-th place."""
        index = torch.tensor(places, device=self._base.device)
        self._cache.reorder_cache(index)
        self._attention, self._positions = self._attention[index], self._positions[index]
        return index


def _left_pad(
    prompts: Sequence[TokenIds], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return ids and attention mask, (N, P) each, prompts flush right; the mask is from lengths."""
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad_id)
    attention = torch.zeros((len(prompts), width), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        attention[row, width - len(prompt) :] = 1
    return ids.to(device), attention.to(device)
