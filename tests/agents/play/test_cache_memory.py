"""The memory of key-value caches is given back as soon as nothing can read them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from miniatures import load_team
from torch import Tensor

from maporl_agents.config import Sampling
from maporl_agents.models.caches.kept_caches import KeptCaches
from maporl_agents.models.caches.row_caches import StoredRows
from maporl_agents.models.caches.row_storage import RowCache
from maporl_agents.models.team import Team
from maporl_agents.play.sampler import complete
from maporl_agents.types import Request

SAMPLING = Sampling(max_new_tokens=4)
PROMPTS = [(5, 6, 7, 8), (5, 6, 7, 9, 10)]


@pytest.fixture(autouse=True)
def _no_search_for_cycles() -> Iterator[None]:
    """References alone decide what lives."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def team(checkpoint: Callable[..., Path]) -> Team:
    """A team whose messages all reach their limit."""
    made = load_team(checkpoint("llama"), tuning="full", sharing="one")
    for base in made.bases:
        base.chat.stop_ids = frozenset()
    return made


def asked(team: Team, prompts: list[tuple[int, ...]]) -> list[Request]:
    policy = team.bases[0].policies[0]
    return [Request(policy, prompt, 0, debate) for debate, prompt in enumerate(prompts)]


def test_storage_goes_with_its_batch(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[weakref.ref[Tensor]] = []
    read_next = StoredRows.read_next

    def watched(batch: StoredRows, ids: Tensor) -> Tensor:
        hidden = read_next(batch, ids)
        stored.extend(weakref.ref(whole) for layer in batch._cache.layers for whole in layer.stored)
        return hidden

    monkeypatch.setattr(StoredRows, "read_next", watched)
    complete(team, asked(team, PROMPTS), SAMPLING, 1)
    assert stored
    assert not [one for one in stored if one() is not None]


def test_a_cache_that_is_kept_goes_once_it_is_copied(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that one turn's caches are not held twice while the next turn is written."""
    kept = KeptCaches(team.bases, 1.0)
    copied: list[weakref.ref[Tensor]] = []
    alive: list[int] = []
    pack, read_next = RowCache.pack, StoredRows.read_next

    def packed(cache: RowCache, row: int, past, end: int) -> None:  # type: ignore[no-untyped-def]
        copied.extend(weakref.ref(one) for layer in past.states for one in layer)
        pack(cache, row, past, end)

    def watched(batch: StoredRows, ids: Tensor) -> Tensor:
        alive.append(sum(one() is not None for one in copied))
        return read_next(batch, ids)

    monkeypatch.setattr(RowCache, "pack", packed)
    monkeypatch.setattr(StoredRows, "read_next", watched)
    said = complete(team, asked(team, PROMPTS), SAMPLING, 1, kept)
    assert not copied
    longer = [prompt + one.ids + (5,) for prompt, one in zip(PROMPTS, said, strict=True)]
    complete(team, asked(team, longer), SAMPLING, 2, kept)
    assert len(copied) == 2 * 2 * len(team.bases[0].model.model.layers)
    assert not any(alive)
