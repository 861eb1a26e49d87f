"""Work dealt out to processes, and what they tell each other."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.distributed import TCPStore

sys.path.insert(0, str(Path(__file__).parent))

from rank_cases import HERE, ends, start

from maporl_agents import distributed
from maporl_agents.types import TokenBatch
from maporl_agents.update.batching import rows_of_rank


@pytest.fixture
def world() -> Iterator[distributed._World]:
    """As rank 0 of three that never speak."""
    distributed._world = distributed._World(0, 3, None)
    yield distributed._world
    distributed._world = None


@given(st.lists(st.integers(0, 1000), max_size=40), st.integers(1, 7))
def test_every_unit_has_one_rank_and_none_has_much_more_than_its_share(
    sizes: list[int], count: int
) -> None:
    """At most the largest unit beyond the mean."""
    distributed._world = distributed._World(0, count, None)
    try:
        owners = distributed.deal(sizes)
    finally:
        distributed._world = None
    assert len(owners) == len(sizes)
    assert all(0 <= owner < count for owner in owners)
    loads = [sum(s for s, o in zip(sizes, owners, strict=True) if o == r) for r in range(count)]
    assert max(loads) <= sum(sizes) / count + max(sizes, default=0)


def test_parts_are_all_items_in_order(world: distributed._World) -> None:
    for length in range(8):
        found = []
        for world.rank in range(3):
            found += list(range(length))[distributed.part_of(length)]
        assert found == list(range(length))


def test_one_process_gets_back_what_it_gives() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.ones(2)
    distributed.reduce_gradients([parameter])
    assert parameter.grad.tolist() == [1, 1]
    assert distributed.gather("x", 5) == [5]
    assert distributed.first(lambda: 7) == 7
    assert distributed.joined("x", (1, 2)) == [1, 2]
    assert (distributed.rank(), distributed.count(), distributed.part_of(9)) == (0, 1, slice(0, 9))
    distributed.require_same({"code": "x"})
    distributed.tell(ValueError("nobody is told"))
    assert not distributed.tell_later(ValueError("nobody is told"))
    assert not distributed.begun("run")
    with distributed.together():
        assert distributed.count() == 1


def test_rows_that_begin_alike_stay_with_one_rank(world: distributed._World) -> None:
    """Of five debates with two agents and three turns, each row has one of the three ranks."""
    rows = [(e, a, t) for e in range(5) for t in range(3) for a in range(2)]
    prompts = [tuple(range(10 * e + a, 10 * e + a + 4 + 3 * t)) for e, a, t in rows]
    column = torch.tensor(rows)
    ids = torch.arange(len(rows))[:, None]
    batch = TokenBatch(
        prompts=tuple(prompts), ids=ids, mask=torch.ones_like(ids, dtype=torch.bool),
        sampled_logprobs=torch.zeros(ids.shape), policies=("p",) * 30, critics=("c",) * 30,
        agents=column[:, 1], turns=column[:, 2], episodes=column[:, 0], rewards=torch.zeros(30),
    )  # fmt: skip
    for whole, unit in ((False, lambda e, a, _: (e, a)), (True, lambda e, *_: e)):
        owner: dict[object, int] = {}
        seen: list[int] = []
        for world.rank in range(3):
            own = rows_of_rank(batch, whole_episodes=whole).tolist()
            assert own == sorted(own)
            seen += own
            for row in own:
                assert owner.setdefault(unit(*rows[row]), world.rank) == world.rank
        assert sorted(seen) == list(range(30))


def test_two_processes_hear_the_same() -> None:
    """Values, sums of gradients, and errors: a rank that fails ends all with its own sentence."""
    (code, first), (other, second) = ends(start(2, HERE / "rank_talk.py"), seconds=100)
    assert (code, other) == (0, 0), (first, second)
    found, there = (json.loads(text.splitlines()[-1]) for text in (first, second))
    assert {**found, "out of step": ""} == {**there, "out of step": ""}
    assert found.pop("gathered") == [0, 10]
    assert found.pop("first") == "of rank 0"
    assert found.pop("joined") == list(range(7))
    assert found.pop("gradients") == [[3.0], [2.0], [4.0], None, [5.0]]
    assert found.pop("file") == "ValueError: there is no file data.jsonl"
    assert found.pop("facts").startswith("ValueError: rank 1 has other setting steps than rank 0")
    assert found.pop("signal") == "TimeoutError: stop"
    assert found.pop("out of step").startswith("RankLost: ranks are out of step")
    assert not found


def test_the_group_is_ended_before_the_interpreter() -> None:
    """Else a thread of it may ask for an interpreter that is gone, which aborts the process."""
    done = ends(start(2, HERE / "rank_end.py"), seconds=100)
    assert [(code, text.splitlines()[-1]) for code, text in done] == [(3, "ended, no thread")] * 2


def test_ranks_of_a_start_never_meet_those_of_an_earlier_one() -> None:
    """Though what these wrote is still in the store, and a rank may come before rank 0."""
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)

    def started(first: int) -> set[str]:
        """Return the names that three ranks go by, rank `first` a little before the others."""
        order = [first, *(rank for rank in range(3) if rank != first)]
        with ThreadPoolExecutor(3) as pool:
            jobs = []
            for place, rank in enumerate(order):
                own = TCPStore("localhost", store.port, is_master=False, wait_for_workers=False)
                jobs.append(pool.submit(distributed.meet, own, rank, 3))
                if not place:
                    wait(jobs, timeout=0.2)
            return {job.result(timeout=30) for job in jobs}

    names = [started(first) for first in (0, 1, 2, 0)]
    assert all(len(name) == 1 for name in names)
    assert len(set.union(*names)) == 4
