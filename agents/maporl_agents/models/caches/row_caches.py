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
from maporl_agents.models.caches.kept_caches import Past, States
from maporl_agents.models.caches.row_storage import RowCache
from maporl_agents.types import TokenIds, flush_right

PREFILL_TOKENS = 8192
"""Largest number of ids that are read in one pass of prompts, longer prompts excepted."""
_PADDING = 256
"""Ids of padding that cost less than another pass."""


class Prompted(Protocol):
    """A row: its prompt, its policy, how many ids may follow, and the kept cache of its prefix."""

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
        """Read one more id of each row, (N,); return the states after them, (N, H)."""

    def drop(self, going: Sequence[bool]) -> list[int]:
        """Keep the rows that go on; return for each new place the place it had before."""


def batch_rows(base: Base, rows: Sequence[Prompted]) -> BatchRows:
    """Return the rows in the form that suits the model: stored ahead or growing."""
    return StoredRows(base, rows) if base.packs else GrowingRows(base, rows)


def plain_attention(model: PreTrainedModel) -> bool:
    """Return whether every layer attends to all earlier ids, by the model's settings.

    Then the keys and values of a text do not depend on what follows, nor on the columns they are
    stored in. That fails for sliding windows, whose masks count columns, for state spaces, which
    have no keys, and for rotary angles that depend on the longest text of the batch.
    """
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    layers = DynamicCache(config=model.config).layers
    return (
        rope.get("rope_type") not in ("dynamic", "longrope")
        and bool(layers)
        and all(type(layer) is DynamicLayer for layer in layers)
    )


class _Distinct(NamedTuple):
    """A prompt and the indices of its rows. `length` of its ids are cached, `unread` are not."""

    rows: list[int]
    prompt: TokenIds
    policy: str
    length: int

    @property
    def unread(self) -> int:
        return len(self.prompt) - self.length


def _distinct(base: Base, rows: Sequence[Prompted]) -> list[_Distinct]:
    """Return the distinct pairs of prompt and weights, those with most unread ids first."""
    found: dict[tuple[str, TokenIds], _Distinct] = {}
    for index, row in enumerate(rows):
        key = base.weights_of(row.policy), row.prompt
        length = 0 if row.past is None else row.past.length
        found.setdefault(key, _Distinct([], row.prompt, row.policy, length)).rows.append(index)
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
    """Rows whose caches are packed into storage that is allocated ahead.

    Columns, for rows with K kept ids of at most K*, and U unread ids of at most U*:

        0 .. K*            kept ids, flush right
        K* .. K* + U*      unread ids of the prompt, flush right (`_prompts` = K* + U*)
        from K* + U* on    a column per sampled token

    The attention mask is 0 in the columns between, which hold no id of the row.
    """

    def __init__(self, base: Base, rows: Sequence[Prompted]) -> None:
        super().__init__(base, rows)
        self._passes = _passes(self._distinct)
        for first, last in self._passes:  # rows of equal weights together: fewer copies
            some = self._distinct[first:last]
            some.sort(key=lambda one: base.weights_of(one.policy))
            self._distinct[first:last] = some
        self.alive = [one.rows[0] for one in self._distinct]
        self.alive += [row for one in self._distinct for row in one.rows[1:]]
        self._kept = max(one.length for one in self._distinct)  # K*
        self._prompts = self._kept + max(one.unread for one in self._distinct)  # K* + U*
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
        """Read the unread ids of all prompts; return the states after their last ids, (N, H)."""
        self._pack()
        states = [self._read(first, last) for first, last in self._passes]
        hidden = torch.cat(states)  # (distinct prompts, H)
        repeats = [place for place, one in enumerate(self._distinct) for _ in one.rows[1:]]
        if repeats:
            sources = torch.tensor(repeats, device=hidden.device)
            self._cache.copy(sources, len(self._distinct), self._prompts)
            hidden = torch.cat([hidden, hidden[sources]])
        self._cache.rows = slice(0, len(self.alive))
        self._cache.length = self._prompts
        return hidden

    def _pack(self) -> None:
        """Copy what is kept of the prompts, and let each go: its memory can be had again."""
        for place, one in enumerate(self._distinct):
            if (past := self._rows[one.rows[0]].past) is not None:
                self._cache.pack(place, past, self._kept)
            for row in one.rows:
                self._rows[row].past = None

    def _read(self, first: int, last: int) -> Tensor:
        """Read the prompts in places first to last - 1; return the states after their last ids."""
        some = self._distinct[first:last]
        width = max(one.unread for one in some)
        start = self._prompts - width
        ids = flush_right([one.prompt[one.length :] for one in some], self._base.chat.pad_id)
        ends = torch.tensor([len(one.prompt) for one in some])[:, None]  # (n, 1)
        positions = (torch.arange(-width, 0) + ends).clamp(min=0)
        self._cache.rows, self._cache.length = slice(first, last), start
        device = self._base.device
        return self._base.hidden(
            ids.to(device),
            self._attention[first:last, : self._prompts],
            positions.to(device),
            [one.policy for one in some],
            cache=self._cache,
            at_end=True,
        )[:, -1].clone()  # frees the other states, if there are any

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
        """Return the keys and values of a row, in the order of its ids."""
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
    """Rows whose prompts are read from the beginning, with the library's cache."""

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
            self._ids, self._attention, self._positions, names, cache=self._cache, at_end=True
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
        """Move the row at `places[i]` to place i; return `places` as a tensor."""
        index = torch.tensor(places, device=self._base.device)
        self._cache.reorder_cache(index)
        self._attention, self._positions = self._attention[index], self._positions[index]
        return index


def _left_pad(
    prompts: Sequence[TokenIds], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return ids and attention mask, (N, P) each, with the prompts flush right."""
    ids = flush_right(prompts, pad_id)
    attention = flush_right([(1,) * len(prompt) for prompt in prompts])
    return ids.to(device), attention.to(device)
