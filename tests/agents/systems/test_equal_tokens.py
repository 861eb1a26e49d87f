"""Closed forms: the number of passes that a budget of tokens buys."""

from __future__ import annotations

from maporl_agents.systems.equal_tokens import passes_for, tokens_of_first
from maporl_agents.systems.votes import Pass


def test_the_first_k_passes_cost_the_sum_of_their_tokens() -> None:
    passes = [Pass([(1,)], 4.0), Pass([(2,)], 6.0), Pass([(2,)], 5.0)]
    assert tokens_of_first(passes) == [4.0, 10.0, 15.0]


def test_the_number_of_passes_comes_nearest_to_the_budget() -> None:
    assert [passes_for(96, tokens) for tokens in (16, 48, 64, 70, 90, 500, 0)] == [
        *(6, 2, 1, 1, 1, 1, 1)
    ]
