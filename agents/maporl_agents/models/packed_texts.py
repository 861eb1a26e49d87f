"""Texts packed for one forward pass: what several begin with is there once, padding nowhere.

Texts of one owner form a tree. A run of ids up to the next fork is a segment; its ids attend to
those before it in the segment and to the segments above. This is exact, because attention is
causal. Linear layers read the ids of all segments as rows of one matrix. In the last layer only
the states that are asked for are computed, from the keys and values of all.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from maporl_agents.types import TokenIds

SHARED = 16
"""Ids that texts must have in common below a fork before they become a segment."""
_PADDING = 1.25
"""Largest queries x keys of a call of attention over those of its segments, but for `_CALL`."""
_CALL = 2**15
"""Queries x keys that cost about as much as another call."""


@dataclass(frozen=True)
class Attention:
    """n segments whose attention is one call, with S queries and L keys each, padded.

    Attributes:
        queries: (n, S) places of the queries. Padding names any place; its result is not read.
        keys: (n, L) places of the ids, in the order of their positions.
        mask: (n or 1, 1, S, L), True = visible; None where each id sees those up to itself.
        first: place of the first query if queries, and keys if `mask` is None, are n x S
            places in order; None if they must be gathered.
    """

    queries: Tensor
    keys: Tensor
    mask: Tensor | None
    first: int | None


@dataclass(frozen=True)
class Attentions:
    """The calls of attention of a layer, for C queries.

    Attributes:
        calls: whose results, put one after the other, are M >= C rows.
        order: (C,) row of each query in the results; None if they are in order.
    """

    calls: tuple[Attention, ...]
    order: Tensor | None


class Run(NamedTuple):
    """Ids and asked states of one owner, which stand together."""

    owner: str
    ids: int
    asked: int


@dataclass(frozen=True)
class PackedTexts:
    """The segments of texts, one after the other, T ids in all.

    Attributes:
        ids: (T,).
        positions: (T,), of each id in its text.
        asked: (W,) distinct places of the states that are asked for, ascending.
        runs: the owners in order.
        every: attention of all ids.
        last: attention of the asked states alone; its query places count among `asked`.
    """

    ids: Tensor
    positions: Tensor
    asked: Tensor
    runs: tuple[Run, ...]
    every: Attentions
    last: Attentions


class _Segment(NamedTuple):
    """Ids at positions start to end - 1 of the texts first to last - 1; `place` of the first."""

    first: int
    last: int
    start: int
    end: int
    place: int


class _Queries(NamedTuple):
    """Queries of one segment: their places, their positions, and the places of all its keys."""

    places: np.ndarray
    positions: np.ndarray
    keys: np.ndarray


def pack_texts(
    texts: Sequence[TokenIds],
    owners: Sequence[str],
    asked: Sequence[range],
    device: torch.device,
    shared: int = SHARED,
) -> tuple[PackedTexts, Tensor]:
    """Pack texts; two owners share nothing.

    Args:
        texts: N texts, none empty.
        owners: of each.
        asked: the positions of each text whose states are asked for, one run.
        device: of the tensors.
        shared: ids that texts must have in common below a fork to share them.

    Returns:
        The packed texts, and the places among `PackedTexts.asked` of the states asked for, text
        by text.
    """
    # In this order texts with a common beginning are neighbours, and what two texts share is the
    # least that neighbours between them share.
    order = sorted(range(len(texts)), key=lambda i: (owners[i], texts[i]))
    lengths = np.array([len(texts[i]) for i in order])
    alike = _common([texts[i] for i in order], [owners[i] for i in order])
    leads = np.append(alike < lengths[:-1], True)  # not the beginning of the next text
    leaders = np.flatnonzero(leads)
    # What a leader shares with the next one: the least between neighbours on the way to it.
    forks = np.minimum.reduceat(alike, leaders[:-1]) if len(leaders) > 1 else alike[:0]
    segments = _segments(lengths[leaders], forks, shared)
    places = np.zeros((len(leaders), lengths.max()), dtype=np.int64)  # of each leader's ids
    for one in segments:
        run = np.arange(one.place, one.place + one.end - one.start)
        places[one.first : one.last, one.start : one.end] = run
    host = np.empty(len(texts), dtype=np.int64)
    host[order] = np.cumsum(leads) - leads  # the leader that begins with each text
    # A state that several texts ask for is computed once: `index` deals it out again.
    wanted, index = np.unique(
        np.concatenate([places[h, a.start : a.stop] for h, a in zip(host, asked, strict=True)]),
        return_inverse=True,
    )
    total = segments[-1].place + segments[-1].end - segments[-1].start
    ids, positions = np.empty((2, total), dtype=np.int64)
    every, last = [], []
    for one in segments:
        here = slice(one.place, one.place + one.end - one.start)
        text = texts[order[leaders[one.first]]]
        ids[here], positions[here] = text[one.start : one.end], np.arange(one.start, one.end)
        keys = places[one.first, : one.end]  # of the segment and of all that its text has before
        every.append(_Queries(np.arange(here.start, here.stop), positions[here], keys))
        low, high = np.searchsorted(wanted, (here.start, here.stop))
        if low < high:
            last.append(_Queries(np.arange(low, high), positions[wanted[low:high]], keys))
    first_owners = [owners[order[leaders[one.first]]] for one in segments]
    packed = PackedTexts(
        _tensor(ids, device),
        _tensor(positions, device),
        _tensor(wanted, device),
        _runs(first_owners, segments, wanted),
        _attentions(every, total, device),
        _attentions(last, len(wanted), device),
    )
    return packed, _tensor(index.reshape(-1), device)


def common(one: TokenIds, other: TokenIds) -> int:
    """Return the length of the common beginning of two texts, found by halving."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _common(texts: Sequence[TokenIds], owners: Sequence[str]) -> np.ndarray:
    """Return the ids that each text but the last has in common with the next one, (N - 1,)."""
    return np.array(
        [
            common(texts[i], texts[i + 1]) if owners[i] == owners[i + 1] else 0
            for i in range(len(texts) - 1)
        ],
        dtype=np.int64,
    )


def _segments(lengths: np.ndarray, forks: np.ndarray, shared: int) -> list[_Segment]:
    """Return the segments of Q sorted texts, none of which begins another.

    Args:
        lengths: (Q,).
        forks: (Q - 1,), ids that each has in common with the next.
        shared: as in `pack_texts`.
    """
    found: list[_Segment] = []
    place = 0
    open_ = [(0, len(lengths), 0)]  # texts first to last - 1 from position start on
    while open_:
        first, last, start = open_.pop()
        # Texts part where they share fewer than `shared` ids more: too few for a segment.
        apart = first + 1 + np.flatnonzero(forks[first : last - 1] < start + shared)
        bounds = [first, *apart.tolist(), last]
        parts = list(itertools.pairwise(bounds))
        if len(parts) > 1:
            open_ += [(a, b, start) for a, b in reversed(parts)]
            continue
        alone = last - first == 1
        # Alone a text goes to its end; together they go to where the first two of them part.
        end = int(lengths[first] if alone else forks[first : last - 1].min())
        found.append(_Segment(first, last, start, end, place))
        place += end - start
        if not alone:
            open_.append((first, last, end))
    return found


def _runs(
    owners: Sequence[str], segments: Sequence[_Segment], wanted: np.ndarray
) -> tuple[Run, ...]:
    runs: list[Run] = []
    for owner, one in zip(owners, segments, strict=True):
        end = one.place + one.end - one.start
        low, high = np.searchsorted(wanted, (one.place, end))
        if runs and runs[-1].owner == owner:
            before = runs.pop()
            runs.append(Run(owner, before.ids + end - one.place, before.asked + int(high - low)))
        else:
            runs.append(Run(owner, end - one.place, int(high - low)))
    return tuple(runs)


def _attentions(segments: Sequence[_Queries], count: int, device: torch.device) -> Attentions:
    """Divide segments into calls of about equal sizes; `count` queries in all."""
    # Longest keys first: a group is as wide as its first, so its others are padded least.
    left = sorted(segments, key=lambda one: (-len(one.keys), -len(one.places)))
    groups: list[list[_Queries]] = []
    real = queries = 0
    for one in left:
        cells = len(one.places) * len(one.keys)
        if groups:
            widest = max(queries, len(one.places))
            # Cells of the padded call (segments x queries x keys) if this one joins the group.
            whole = (len(groups[-1]) + 1) * widest * len(groups[-1][0].keys)
        if not groups or whole > _PADDING * (real + cells) + _CALL:
            groups.append([])
            real = queries = 0
        groups[-1].append(one)
        real, queries = real + cells, max(queries, len(one.places))
    order, rows = np.empty(count, dtype=np.int64), 0
    for group in groups:
        widest = max(len(one.places) for one in group)
        for one in group:
            order[one.places] = np.arange(rows, rows + len(one.places))
            rows += widest
    calls = tuple(_attention(group, device) for group in groups)
    sorted_ = rows == count and bool((order == np.arange(count)).all())
    return Attentions(calls, None if sorted_ else _tensor(order, device))


def _attention(group: Sequence[_Queries], device: torch.device) -> Attention:
    """Return the call of attention of some segments."""
    queries = _padded([one.places for one in group])
    keys = _padded([one.keys for one in group])
    positions = _padded([one.positions for one in group], fill=0)
    columns = np.arange(keys.shape[1])
    causal = positions.shape[1] == keys.shape[1] and all(
        len(one.places) == len(one.keys) for one in group
    )
    mask = None
    if not causal:
        if (positions == positions[0]).all():
            positions = positions[:1]
        # (segments or 1, 1, queries, keys); column = position
        mask = _tensor(columns <= positions[:, None, :, None], device)
    first = int(queries[0, 0])
    ordered = bool((queries.ravel() == np.arange(first, first + queries.size)).all())
    ordered = ordered and (mask is not None or bool((queries == keys).all()))
    return Attention(
        _tensor(queries, device), _tensor(keys, device), mask, first if ordered else None
    )


def _padded(rows: Sequence[np.ndarray], fill: int | None = None) -> np.ndarray:
    """Return rows flush left, filled with `fill`, or with the last number of each row."""
    table = np.empty((len(rows), max(map(len, rows))), dtype=np.int64)
    for place, row in zip(table, rows, strict=True):
        place[: len(row)] = row
        place[len(row) :] = row[-1] if fill is None else fill
    return table


def _tensor(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
