"""The rules of one episode."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maporl_env.credit import Credit
from maporl_env.debate import Debate, clean
from maporl_env.protocols import SequentialDebate, SimultaneousDebate
from maporl_env.types import Question

from .by_hand import QUESTION, make_debate, play


def loop_rewards(scores: list[list[float]], gamma: float) -> list[list[float]]:
    """Definition 1, cell by cell."""
    turns, agents = len(scores), len(scores[0])
    table = []
    for t in range(turns):
        row = []
        for a in range(agents):
            top, bottom = scores[t][a], 1.0
            for k in range(1, turns - t):
                top += gamma**k * sum(scores[t + k]) / agents
                bottom += gamma**k
            row.append(top / bottom)
        table.append(row)
    return table


def test_a_turn_is_published_at_once_and_then_awaits_its_scores() -> None:
    debate = make_debate()
    before = debate.observation("agent_1")
    debate.post("agent_0", "secret \\boxed{4}")
    assert debate.speakers == ("agent_1",)
    assert [m.text for m in debate.pending] == ["secret \\boxed{4}"]
    assert debate.transcript.messages == ()
    assert debate.observation("agent_1") == before
    debate.post("agent_1", "mine")
    assert debate.pending == ()
    assert (debate.speakers, debate.due()) == ((), ["secret \\boxed{4}", "mine"])
    assert not debate.over
    debate.settle([1.0, 0.0])
    assert "secret" in debate.observation("agent_1")
    assert debate.speakers == ("agent_0", "agent_1")


def test_messages_stand_in_seat_order_whoever_speaks_first() -> None:
    debate = make_debate()
    debate.post("agent_1", "b")
    debate.post("agent_0", "a")
    assert [m.text for m in debate.transcript.messages] == ["a", "b"]


@given(
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from([0.0, 0.3, 0.77, 1.0]),
    st.integers(0, 2**32),
)
def test_rewards_against_a_slow_loop_on_fractional_scores(
    turns: int, agents: int, gamma: float, seed: int
) -> None:
    draw = random.Random(seed)
    scores = [[draw.random() for _ in range(agents)] for _ in range(turns)]
    debate = make_debate(agents, turns, credit=Credit(gamma=gamma))
    play(debate, lambda t, a: f"message {t} {a}", scores)  # type: ignore[arg-type]
    np.testing.assert_allclose(debate.rewards(), loop_rewards(scores, gamma), atol=1e-12)
    assert debate.turn_rewards().dtype == np.float32
    np.testing.assert_allclose(debate.turn_rewards()[-1], scores[-1], rtol=1e-6)


def test_rewards_of_the_worked_example() -> None:
    # g = 0.3, V = [[1,0],[0,1],[1,1]]: R(0,0) = (1 + 0.3*0.5 + 0.09*1) / 1.39 = 0.8921
    debate = make_debate()
    play(debate, lambda t, a: "x", [[1, 0], [0, 1], [1, 1]])
    assert debate.rewards() == pytest.approx(
        np.array([[0.8921, 0.1727], [0.2308, 1.0], [1, 1]]), abs=5e-5
    )


def test_where_no_key_can_tell_alpha_looks_at_the_scores() -> None:
    # Two programs, both other than the key's: 0.5 is right, 0.4 wrong, None unknown.
    # Agent 0 goes wrong -> right -> right; agent 1, whose turn 1 is unknown, wrong -> ? -> right.
    debate = make_debate(2, 3, credit=Credit(gamma=0, alpha=(7, 9)))
    debate.reset(Question("q", "Write f.", "def f(): return 1", "code"))
    play(debate, lambda t, a: f"```python\n{t}\n```", [[0.4, 0.0], [0.5, None], [1.0, 1.0]])
    # gamma 0 pays the own score; in turn 1 agent 0 leaves a wrong majority (agent 1): + alpha0.
    expected = [[0.4, 0.0], [0.5 + 7, 0.0], [1.0, 1.0]]
    assert debate.rewards() == pytest.approx(np.array(expected))


def test_unplayed_turns_are_paid_nothing_after_an_early_consensus() -> None:
    debate = make_debate(
        2, 4, stop="consensus", credit=Credit(gamma=0.5, alpha=(7, 7), beta=(7, 7))
    )
    say = [["\\boxed{3}", "\\boxed{4}"], ["\\boxed{5}", "nothing"]]
    play(debate, lambda t, a: say[t][a], [[0.25, 0.5], [0.5, 1.0]])
    assert (debate.played, debate.terminated, debate.truncated) == (2, True, False)
    assert debate.outcome() == (5,)
    # One valid answer agrees with itself. R(0,0) = (0.25 + 0.5 * 0.75) / 1.5, R(0,1) likewise.
    # Agent 1 goes right -> wrong against a wrong majority (agent 0): -alpha0 = -7 in turn 1. For
    # agent 0 the others' majority goes right -> wrong while it is wrong: -beta0 = -7 in turn 0.
    expected = [[0.625 / 1.5 - 7, 0.875 / 1.5], [0.5, 1.0 - 7], [0, 0], [0, 0]]
    np.testing.assert_allclose(debate.rewards(), expected)
    assert debate.scored().tolist() == [[True, True]] * 2 + [[False, False]] * 2


def test_agreement_in_the_first_turn_pays_no_bonus() -> None:
    credit = Credit(alpha=(5, 5), beta=(5, 5))
    debate = make_debate(3, 3, stop="consensus", credit=credit)
    play(debate, lambda t, a: "\\boxed{4}", [[1, 1, 1]])
    assert debate.played == 1
    assert debate.rewards().tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 0]]


def test_no_valid_answer_is_no_consensus() -> None:
    debate = make_debate(2, 2, stop="consensus")
    play(debate, lambda t, a: "silence", [[0, 0], [0, 0]])
    assert debate.played == 2
    assert debate.outcome() == ()


def test_a_missing_score_is_masked_and_left_out_of_the_team_mean() -> None:
    debate = make_debate(2, 2, credit=Credit(gamma=0.5))
    play(debate, lambda t, a: "x", [[1.0, None], [None, 0.25]])
    # The team mean of turn 1 is 0.25: R(0,0) = (1 + 0.5 * 0.25) / 1.5 = 0.75.
    np.testing.assert_allclose(debate.rewards(), [[0.75, 0.0], [0.0, 0.25]])
    assert debate.scored().tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize("text", [None, 3, b"x", ["x"], 1.5])
def test_what_is_no_text_changes_nothing(text: object) -> None:
    debate = make_debate()
    debate.post("agent_0", "a")
    before = pickle.dumps(debate)
    with pytest.raises(ValueError, match="the message of agent_1 must be a string"):
        debate.post("agent_1", text)  # type: ignore[arg-type]
    assert pickle.dumps(debate) == before


def test_speaking_out_of_turn_changes_nothing() -> None:
    debate = make_debate()
    debate.post("agent_0", "a")
    with pytest.raises(ValueError, match="agent_0 may not speak now; next: agent_1"):
        debate.post("agent_0", "again")
    with pytest.raises(ValueError, match="unknown agent 'agent_9'"):
        debate.post("agent_9", "who")
    debate.post("agent_1", "b")
    with pytest.raises(ValueError, match="settle its scores"):
        debate.post("agent_0", "too early")
    assert [m.text for m in debate.transcript.messages] == ["a", "b"]


@pytest.mark.parametrize(
    ("scores", "complaint"),
    [([1.0], "1 scores for 2"), ([1.0, 1.5], "must lie in"), ([1.0, float("nan")], "must lie in")],
)
def test_wrong_scores_are_refused(scores: list[float], complaint: str) -> None:
    debate = make_debate()
    with pytest.raises(ValueError, match="no scores are due"):
        debate.settle([0, 0])
    for agent in debate.agents:
        debate.post(agent, "x")
    with pytest.raises(ValueError, match=complaint):
        debate.settle(scores)
    assert debate.due() == ["x", "x"]


def test_too_long_is_an_error_where_asked() -> None:
    debate = make_debate(max_chars=3, on_long="error")
    with pytest.raises(ValueError, match="4 characters, more than max_chars=3"):
        debate.post("agent_0", "four")
    debate.post("agent_0", "abc")


@given(st.text(st.characters(exclude_categories=()), max_size=30))
def test_every_text_can_be_encoded_once_it_is_clean(text: str) -> None:
    cleaned = clean(text)
    cleaned.encode()
    assert clean(cleaned) == cleaned
    if not any("\ud800" <= c <= "\udfff" for c in text):
        assert cleaned == text


def test_lone_surrogates_become_replacement_characters() -> None:
    assert clean("a\ud800b\udfff") == "a\ufffdb\ufffd"
    assert clean("\ufeffbom") == "\ufeffbom"


def test_truncation_ends_the_debate_and_pays_only_complete_turns() -> None:
    debate = make_debate(2, 3)
    for agent in debate.agents:
        debate.post(agent, "x")
    debate.settle([1.0, 0.5])
    debate.post("agent_0", "half a turn")
    debate.truncate("generation timed out")
    assert (debate.over, debate.truncated, debate.terminated) == (True, True, False)
    assert debate.truncation_reason == "generation timed out"
    assert debate.rewards().tolist() == [[1.0, 0.5], [0, 0], [0, 0]]
    with pytest.raises(ValueError, match="nothing to truncate"):
        debate.truncate("again")
    with pytest.raises(ValueError, match="over"):
        debate.post("agent_1", "late")


def test_a_reset_leaves_nothing_behind() -> None:
    debate = make_debate(reward_feedback=True)
    fresh = debate.observation("agent_0")
    debate.post("agent_1", "pending")
    debate.reset(QUESTION)
    assert debate.pending == ()
    debate.post("agent_0", "x")
    debate.post("agent_1", "y")
    debate.reset(QUESTION)  # with scores due
    assert debate.observation("agent_0") == fresh
    assert debate.speakers == debate.agents
    debate.truncate("for a while")
    debate.reset(QUESTION)
    assert not debate.truncated


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
def test_a_copy_in_mid_turn_continues_alike(duplicate: Callable[[Debate], Debate]) -> None:
    debate = make_debate()
    debate.observation("agent_1")
    debate.post("agent_0", "a")
    twin = duplicate(debate)
    for one in (debate, twin):
        one.post("agent_1", "b")
        one.settle([0.5, 0.75])
    assert twin.transcript == debate.transcript
    assert twin.observation("agent_1") == debate.observation("agent_1")


def test_before_the_first_reset_there_is_no_debate() -> None:
    with pytest.raises(RuntimeError, match="call reset"):
        _ = Debate(SequentialDebate(), 2).transcript


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "3", None])
def test_the_number_of_agents_is_checked(number: object) -> None:
    with pytest.raises(ValueError, match="num_agents"):
        Debate(SimultaneousDebate(), number)  # type: ignore[arg-type]
