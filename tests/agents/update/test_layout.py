"""Texts into sequences, sequences into passes."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maporl_agents.types import TokenBatch
from maporl_agents.update.layout import PASS_TOKENS, in_order, lay_out, pack, texts_from, texts_of

CONVERSATION = [(5, 6, 7, 11), (5, 6, 7, 11, 12, 0, 14), (5, 6, 7, 11, 12, 0, 14, 24, 30)]


def test_texts_are_flush_left() -> None:
    batch = TokenBatch(
        prompts=((1, 2, 3), (4,)),
        ids=torch.tensor([[5, 0, 0], [6, 7, 8]]),
        mask=torch.tensor([[True, False, False], [True, True, True]]),
        sampled_logprobs=torch.zeros(2, 3),
        policies=("a", "b"),
        critics=("a", "b"),
        agents=torch.zeros(2, dtype=torch.long),
        turns=torch.zeros(2, dtype=torch.long),
        episodes=torch.zeros(2, dtype=torch.long),
        rewards=torch.zeros(2),
    )
    texts = texts_of(batch)
    assert texts.ids.tolist() == [[1, 2, 3, 5], [4, 6, 7, 8]]
    assert (texts.starts.tolist(), texts.lengths.tolist()) == ([3, 1], [4, 4])
    part = texts_of(batch.select([1]))
    assert part.ids.tolist() == [[4, 6, 7, 8]]


class TestLayout:
    def test_a_conversation_is_one_sequence(self) -> None:
        layout = lay_out(texts_from(CONVERSATION), ["a"] * 3, 0)
        assert layout.ids.tolist() == [list(CONVERSATION[2])]
        assert layout.hosts.tolist() == [0, 0, 0]

    def test_policies_never_share_one(self) -> None:
        layout = lay_out(texts_from([(1, 2), (1, 2), (1, 2, 3)]), ["a", "b", "a"], 0)
        hosts = layout.hosts.tolist()
        assert len(layout.ids) == 2
        assert hosts[0] == hosts[2] != hosts[1]

    @given(
        st.lists(
            st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=5), st.sampled_from("ab"))
        )
    )
    @settings(max_examples=100)
    def test_every_row_opens_its_host(self, given_rows: list[tuple[list[int], str]]) -> None:
        """In as few sequences as there are rows that no other row begins with."""
        rows = [tuple(ids) for ids, _ in given_rows]
        owners = [owner for _, owner in given_rows]
        layout = lay_out(texts_from(rows), owners, 9)
        leaders = layout.leaders.tolist()
        assert len(leaders) == len(layout.ids)
        for row, host in enumerate(layout.hosts.tolist()):
            length = len(rows[row])
            assert layout.ids[host, :length].tolist() == list(rows[row])
            assert owners[leaders[host]] == owners[row]
            assert layout.attention[host, :length].all()
            assert layout.positions[host, :length].tolist() == list(range(length))
        for host, leader in enumerate(leaders):
            assert int(layout.attention[host].sum()) == len(rows[leader])
            assert (layout.ids[host, len(rows[leader]) :] == 9).all()
        said = set(zip(owners, rows, strict=True))
        whole = [
            (owner, row)
            for owner, row in said
            if not any(o == owner and r != row and r[: len(row)] == row for o, r in said)
        ]
        assert len(leaders) == len(whole)


class TestPack:
    def test_by_length_within_the_budget(self) -> None:
        units = [(1, 10), (1, 40), (1, 30), (1, 10), (1, 40)]
        assert pack(units, 80) == [[1, 4], [2, 0], [3]]
        assert pack(units, 1) == [[1], [4], [2], [0], [3]]
        assert pack([], 80) == []

    def test_a_unit_of_several_sequences_stays_whole(self) -> None:
        assert pack([(2, 10), (1, 10), (2, 10)], 30) == [[0, 1], [2]]

    def test_a_pass_ends_before_padding_costs_more_than_another_pass(self) -> None:
        long, short = PASS_TOKENS + 20, 10
        assert pack([(1, long), (1, short)], 10**9) == [[0], [1]]
        assert pack([(1, short + PASS_TOKENS), (1, short)], 10**9) == [[0, 1]]


class TestPassesInOrder:
    """Passes of packed texts."""

    def test_what_begins_alike_stands_together_and_counts_once(self) -> None:
        texts = [(1, 2, 3, 4), (9, 9), (1, 2, 3, 5), (1, 2, 3)]
        assert in_order(texts, "aaaa", range(4), 5) == [[3, 0, 2], [1]]
        assert in_order(texts, "aaaa", range(4), 4) == [[3, 0], [2], [1]]

    def test_owners_share_nothing(self) -> None:
        texts = [(1, 2, 3, 4), (1, 2, 3, 5), (1, 2, 3, 4)]
        assert in_order(texts, "aab", range(3), 9) == [[0, 2, 1]]
        assert in_order(texts, "aab", range(3), 8) == [[0, 2], [1]]

    def test_units_stay_whole_and_the_largest_pass_is_first(self) -> None:
        texts = [(5, 1), (7, 7, 7, 7), (6, 2), (7, 8)]
        assert in_order(texts, "aaaa", ["x", "y", "x", "y"], 1) == [[1, 3], [0, 2]]
