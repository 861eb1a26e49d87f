"""The memory of key-value caches is given back as soon as nothing can read them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cache_cases import QUESTIONS, debates, make_team, said
from miniatures import load_team
from torch import Tensor

from maporl_agents.config import Sampling
from maporl_agents.models.caches.kept_caches import BaseCaches, KeptCaches, States
from maporl_agents.models.caches.row_caches import StoredRows
from maporl_agents.models.caches.row_storage import RowCache
from maporl_agents.models.team import Team
from maporl_agents.play.local_engine import complete
from maporl_agents.play.rollout import play
from maporl_agents.trees.sample_tree import grow_trees
from maporl_agents.types import Request

SAMPLING = Sampling(max_new_tokens=4)
PROMPTS = [(5, 6, 7, 8), (5, 6, 7, 9, 10)]


@pytest.fixture(autouse=True)
def _no_search_for_cycles() -> Iterator[None]:
    """References alone decide what lives."""
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


@pytest.mark.parametrize(
    ("settings", "options", "expected"),
    [
        ({"tuning": "lora", "sharing": "agent"}, {}, 2 * 3),
        ({"tuning": "lora", "sharing": "one"}, {}, 2 * 3),
        ({"tuning": "lora", "sharing": "turn"}, {}, 0),
        ({"tuning": "lora", "sharing": "first_turn"}, {}, 3),  # later turns read the second's
        ({"tuning": "none", "sharing": "turn"}, {}, 2 * 3),  # the same weights by three names
        ({"tuning": "lora", "sharing": "agent"}, {"protocol": "sequential"}, 2 * 3),
        ({"tuning": "lora", "sharing": "one"}, {"protocol": "sequential"}, 3 * 3),
        ({"tuning": "lora", "sharing": "agent"}, {"turns": 1}, 0),
        ({"tuning": "lora", "sharing": "agent"}, {"turns": 5}, 4 * 3),  # than the team was made for
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_what_nobody_can_read_is_not_kept(
    checkpoint: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
    options: dict[str, object],
    expected: int,
) -> None:
    """Caches of the last turn, and of weights that do not write again; messages stay the same."""
    team = make_team(checkpoint, **settings)
    kept: list[int] = []
    put = BaseCaches.put

    def counted(self: BaseCaches, reader: str, ids: tuple[int, ...], states: States) -> None:
        kept.append(len(ids))
        put(self, reader, ids, states)

    monkeypatch.setattr(BaseCaches, "put", counted)
    several = play(team, debates(**options), QUESTIONS[:1], SAMPLING, seed=1)
    assert len(kept) == expected
    fresh = play(team, debates(**options), QUESTIONS[:1], replace(SAMPLING, cache_gb=0.0), seed=1)
    assert said(several) == said(fresh)


@pytest.mark.parametrize("protocol", ["joint", "pipeline"])
def test_the_last_level_of_a_tree_keeps_nothing(
    checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    team = make_team(checkpoint, tuning="lora", turns=1)
    kept: list[int] = []
    monkeypatch.setattr(BaseCaches, "put", lambda self, *_: kept.append(1))
    game = debates(turns=1, protocol=protocol)
    sizes, joining = ((2,), "aligned") if protocol == "joint" else ((2, 1, 2), None)
    grow_trees(team, game, QUESTIONS[:1], SAMPLING, sizes, joining=joining, seed=1)  # type: ignore[arg-type]
    assert not kept
