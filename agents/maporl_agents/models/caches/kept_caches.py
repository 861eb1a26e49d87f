"""Key-value caches that are kept from one message of an agent to its next.

In a debate, an agent's prompt begins with its previous prompt and message. Their keys and values
are kept, so that the next turn reads only the new ids. A cache is looked up by the weights that
computed it and by its ids, so it serves any prompt with the same prefix: the branches of a tree
share the cache of theirs.
"""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from maporl_agents.models.bases import Base
from maporl_agents.types import TokenIds

States = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values (heads, L, size) of L ids, by layer."""


class Past(NamedTuple):
    """The kept keys and values of the first `length` ids of a prompt; `states` may hold more."""

    states: States
    length: int


class KeptCaches:
    """The kept caches of one play, tree or speaker, bounded in bytes.

    Args:
        bases: the models of a team; each may use the same share of the memory.
        gigabytes: bound of all bases together, in 10^9 bytes; 0 keeps nothing.
    """

    def __init__(self, bases: Sequence[Base], gigabytes: float) -> None:
        room = gigabytes * 1e9 / max(len(bases), 1)
        self._of = {id(base): BaseCaches(base, room) for base in bases}

    def of(self, base: Base) -> BaseCaches | None:
        """Return the caches of one base; None where nothing is or can be kept."""
        caches = self._of.get(id(base))
        return caches if caches is not None and caches.room and base.packs else None


class BaseCaches:
    """The kept caches of one base model.

    A cache that a prompt uses as a whole is removed; it is put back, longer, when the row ends.
    Where memory is short, caches of earlier calls are removed, the oldest first. Those of the same
    call stay, because all of them are equally likely to be used next.

    Args:
        base: the model.
        room: bound in bytes.

    Attributes:
        nbytes: bytes that are kept now.
    """

    def __init__(self, base: Base, room: float) -> None:
        self.room = room
        self.nbytes = 0
        self._base = base
        self._call = 0
        self._weights = self._versions()
        self._kept: OrderedDict[tuple[str, TokenIds], tuple[int, int, States]] = OrderedDict()
        self._sorted: dict[str, list[TokenIds]] = {}

    def take(self, readers: Sequence[str], prompts: Sequence[TokenIds]) -> list[Past | None]:
        """Begin a call; return the longest kept prefix of each of N prompts.

        The last id of a prompt is always left to be read, since sampling needs the state after it.

        Args:
            readers: N names of weights, as `Base.weights_of` returns them.
            prompts: N prompts.
        """
        self._begin()
        found: list[Past | None] = []
        whole = set()
        for reader, prompt in zip(readers, prompts, strict=True):
            ids, length = self._longest(reader, prompt)
            if not length:
                found.append(None)
                continue
            found.append(Past(self._kept[reader, ids][2], length))
            if length == len(ids):
                whole.add((reader, ids))
        for key in whole:
            self._remove(key)
        return found

    def holds(self, reader: str, ids: TokenIds) -> bool:
        """Whether all of `ids` are kept, as the beginning of some text."""
        self._forget_other_weights()
        known = self._sorted.get(reader, [])
        place = bisect.bisect_left(known, ids)
        return place < len(known) and known[place][: len(ids)] == ids

    def put(self, reader: str, ids: TokenIds, states: States) -> None:
        """Keep the states of ids, if there is room, and remove those of their prefixes."""
        nbytes = sum(x.nbytes for pair in states for x in pair)
        known = self._sorted.setdefault(reader, [])
        # Sorted, so prefixes of `ids` stand right before them, and ids that they begin right after.
        place = bisect.bisect_left(known, ids)
        if place < len(known) and known[place][: len(ids)] == ids:
            return  # a prefix of kept ids
        while place and ids[: len(known[place - 1])] == known[place - 1]:
            place -= 1
            self._remove((reader, known[place]))
        while self._kept and self.nbytes + nbytes > self.room:
            key, (call, *_) = next(iter(self._kept.items()))
            if call == self._call:
                return
            self._remove(key)
        if nbytes <= self.room:
            bisect.insort(known, ids)
            self._kept[reader, ids] = (self._call, nbytes, states)
            self.nbytes += nbytes

    def _begin(self) -> None:
        """Count a call; forget everything if the weights have changed since the last one."""
        self._call += 1
        self._forget_other_weights()

    def _forget_other_weights(self) -> None:
        if (weights := self._versions()) != self._weights:
            self._weights = weights
            self._kept.clear()
            self._sorted.clear()
            self.nbytes = 0

    def _versions(self) -> int:
        """Return a number that changes with the weights: torch counts changes made in place."""
        return hash(tuple((id(p), p._version) for p in self._base.model.parameters()))

    def _longest(self, reader: str, prompt: TokenIds) -> tuple[TokenIds, int]:
        """Return the kept ids with the longest prefix in common with a prompt, and its length.

        In sorted order they are a neighbour of the prompt.
        """
        known = self._sorted.get(reader, [])
        place = bisect.bisect_right(known, prompt)
        near = known[max(place - 1, 0) : place + 1]
        shared = [min(_shared(ids, prompt), len(prompt) - 1) for ids in near]
        best = max(range(len(near)), key=shared.__getitem__, default=None)
        return ((), 0) if best is None else (near[best], shared[best])

    def _remove(self, key: tuple[str, TokenIds]) -> None:
        reader, ids = key
        self.nbytes -= self._kept.pop(key)[1]
        known = self._sorted[reader]
        known.pop(bisect.bisect_left(known, ids))


def _shared(one: TokenIds, other: TokenIds) -> int:
    """Return the length of the common prefix of two texts."""
    shorter = min(len(one), len(other))
    if one[:shorter] == other[:shorter]:
        return shorter
    return next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
