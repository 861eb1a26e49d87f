"""pass@k, majority of k and best of k: against every subset, by hand, and where they coincide."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maporl_agents.measure.pass_at_k import (
    Outcome,
    best_at_k,
    final_texts,
    majority_at_k,
    outcome_of,
    pass_at_k,
    repeated_rows,
)
from maporl_env.protocols import SimultaneousDebate
from maporl_env.types import Message, Question, Transcript

CHANCES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=6)


@given(CHANCES, st.data())
def test_pass_at_k_is_the_mean_over_all_subsets(chances: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(chances)))
    wrong = [math.prod(1 - p for p in some) for some in combinations(chances, k)]
    assert pass_at_k(chances, k) == pytest.approx(1 - np.mean(wrong), abs=1e-12)


@pytest.mark.parametrize("right", range(11))
def test_pass_at_k_of_right_and_wrong_is_chens(right: int) -> None:
    for k in (1, 3, 10):
        expected = 1 - math.comb(10 - right, k) / math.comb(10, k)
        found = pass_at_k([1.0] * right + [0.0] * (10 - right), k)
        assert found == pytest.approx(expected, abs=1e-12)


def test_pass_at_k_of_many_stays_a_chance() -> None:
    found = [pass_at_k([0.02] * 400, k) for k in (1, 50, 399, 400)]
    expected = [1 - 0.98**k for k in (1, 50, 399, 400)]
    assert found == pytest.approx(expected, abs=1e-9)


@given(
    st.lists(
        st.tuples(st.sampled_from([-math.inf, 0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0])),
        min_size=1,
        max_size=6,
    ),
    st.data(),
)
def test_best_at_k_is_the_mean_over_all_subsets(
    tried: list[tuple[float, float]], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(tried)))
    means = []
    for some in combinations(tried, k):
        top = max(score for score, _ in some)
        means.append(np.mean([chance for score, chance in some if score == top]))
    assert best_at_k(tried, k) == pytest.approx(np.mean(means), abs=1e-12)


def test_a_verifier_that_knows_the_answer_picks_what_passes() -> None:
    """Whoever picks by the key finds a right debate where there is one."""
    right = [1.0, 0.0, 0.0, 1.0, 0.0]
    for k in range(1, 6):
        assert best_at_k([(x, x) for x in right], k) == pytest.approx(pass_at_k(right, k))


def test_majority_of_blocks_by_hand() -> None:
    yes, no, none = (8, True), (7, False), (None, False)
    ballots = [[yes, no], [yes, yes], [no, no], [none, none], [yes, yes]]
    assert majority_at_k(ballots, 1) == (0.5 + 1 + 0 + 0 + 1) / 5
    assert majority_at_k(ballots, 2) == (1 + 0) / 2  # three to one, two to none; the fifth is over
    assert majority_at_k(ballots, 5) == 1.0  # five to three


def test_the_best_text_of_a_debate() -> None:
    ballots = ((1, True), (2, False), (1, True))
    assert Outcome(ballots, (0.2, 0.9, 0.1)).best == (0.9, 0.0)
    assert Outcome(ballots, (0.9, 0.9, 0.1)).best == (0.9, 0.5)
    assert Outcome(ballots, (None, None, None)).best == (-math.inf, 2 / 3)
    assert Outcome(ballots, (None, 0.0, None)).best == (0.0, 0.0)


def debate(*answers: object, key: str = "8") -> Transcript:
    agents = tuple(f"agent_{i}" for i in range(len(answers)))
    messages = tuple(
        Message(0, agent, rf"\boxed{{{answer}}}")
        for agent, answer in zip(agents, answers, strict=True)
    )
    return Transcript(Question("q", "?", key), agents, messages)


def test_an_outcome_is_the_last_turn() -> None:
    protocol = SimultaneousDebate(num_turns=2)
    first = debate(8, 8)
    last = first.publish(Message(1, agent, r"\boxed{7}") for agent in first.agents)
    assert outcome_of(protocol, first).ballots == ((8, True), (8, True))
    assert outcome_of(protocol, last).ballots == ((7, False), (7, False))
    assert final_texts(protocol, last) == [r"\boxed{7}"] * 2
    assert outcome_of(protocol, debate(8, 7)).chance == 0.5


def test_programs_are_right_by_the_score_of_the_last_turn() -> None:
    """No key tells: the score of the last message does."""
    agents = ("agent_0", "agent_1")
    scores = [[1.0, 1.0], [0.0, 1.0]]
    messages = [
        Message(turn, agent, "def f(): pass", scores[turn][place])
        for turn in range(2)
        for place, agent in enumerate(agents)
    ]
    whole = Transcript(Question("q", "?", "", "code"), agents, tuple(messages))
    found = outcome_of(SimultaneousDebate(num_turns=2), whole)
    assert [is_right for _, is_right in found.ballots] == [False, True]


def test_rows_go_up_in_twos_to_all() -> None:
    protocol = SimultaneousDebate(num_turns=1)
    tried = [debate(*answers) for answers in [(8, 8), (7, 7), (8, 8), (7, 8), (7, 7), (8, 8)]]
    outcomes = [outcome_of(protocol, one, (0.0, 1.0)) for one in tried]
    rows = repeated_rows([outcomes, outcomes[::-1]])
    assert [row.k for row in rows] == [1, 2, 4, 6]
    assert [rows[0].passed.mean, rows[0].majority.mean] == pytest.approx([3.5 / 6] * 2)
    assert rows[-1].passed.mean == 1.0
    assert rows[-1].passed.interval == "wilson"
    assert rows[0].passed.interval == "bootstrap"
    assert rows[-1].best is not None
    assert rows[-1].best.mean == pytest.approx(4 / 6)  # all texts picked have the same score
    assert set(rows[0].to_dict()) == {"k", "pass", "majority", "best"}
    bare = repeated_rows([[outcome_of(protocol, one) for one in tried]])
    assert bare[0].best is None
    assert "best" not in bare[0].to_dict()
