"""Protocol `dialogue`: an agent, and a simulated user who alone knows the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from maporl_env import prompts
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.credit import Credit
from maporl_env.debate import Debate
from maporl_env.protocols import Dialogue
from maporl_env.types import Question

SECRET = "the number is four, says the reference"
QUESTION = Question("q", "Guess the number.", "4", hidden=SECRET)


def talk(debate: Debate, *texts: str) -> list[str]:
    """Let the two speak in turn; return what each read."""
    read = []
    for text in texts:
        [agent] = debate.speakers
        read.append(debate.observation(agent))
        debate.post(agent, text)
        if debate.awaits_scores:
            debate.settle([1.0 if "4" in due else 0.0 for due in debate.due()])
    return read


def start(question: Question = QUESTION, **options: Any) -> Debate:
    debate = Debate(Dialogue(**options), 2, credit=Credit(horizon="last"))
    debate.reset(question)
    return debate


def test_the_agent_knows_the_reference_from_replies_alone() -> None:
    debate = start(num_turns=3)
    read = talk(debate, "Which number?", "It is four.", "Sure?", SECRET, "\\boxed{4}")
    assert [SECRET in text for text in read] == [False, True, False, True, True]
    assert "It is four." in read[2]
    mute = start(num_turns=3)
    told = talk(mute, "Which?", "", "Please?", "", "\\boxed{5}")
    assert [SECRET in text for text in told] == [False, True, False, True, False]


def test_the_marker_ends_the_dialogue_and_what_follows_is_the_answer() -> None:
    debate = start(num_turns=10)
    talk(debate, "Is it \\boxed{7}?", "No.", "So not 7. ANSWER: \\boxed{4}")
    assert debate.terminated
    assert debate.transcript.ends == (2, 3)
    last = debate.transcript.messages[-1]
    assert (last.answer, last.score) == (" \\boxed{4}", 1.0)
    assert debate.outcome() == (4,)


def test_the_tenth_message_ends_the_episode_and_counts() -> None:
    debate = start(num_turns=10)
    talk(debate, *["Which number?", "Guess."] * 9, "Then \\boxed{4}")
    assert debate.terminated
    assert debate.played == 10
    assert len(debate.transcript.of_turn(9)) == 1
    assert debate.transcript.messages[-1].score == 1.0
    assert debate.outcome() == (4,)


def test_the_answer_pays_all_messages_of_the_agent_and_none_of_the_user() -> None:
    debate = start(num_turns=4)
    talk(debate, "a?", "b", "c?", "d", "ANSWER: \\boxed{4}")
    expected = np.array([[1, 0], [1, 0], [1, 0], [0, 0]])
    np.testing.assert_array_equal(debate.rewards(), expected)
    np.testing.assert_array_equal(debate.scored(), expected == 1)
    assert [m.scored for m in debate.transcript.messages] == [False] * 4 + [True]


def test_views_only_grow_and_hold_the_whole_dialogue() -> None:
    debate = start(num_turns=4)
    said = ["What?", "It is even.", "Small?", "Yes.", "Two?", "No.", "\\boxed{4}"]
    read = talk(debate, *said)
    for place in range(2, 7):
        assert read[place].startswith(read[place - 2] + said[place - 2])
    assert all(text in read[6] for text in said[:6])
    assert debate.view("agent_0")[-1][0] == "own"
    assert read[6].count("Your answer in turn 4") == 1


def test_a_reply_is_cut_for_the_agent() -> None:
    debate = start(num_turns=2, reply_characters=10)
    *_, seen = talk(debate, "What?", "0123456789abcdef", "\\boxed{4}")
    assert "0123456789\n" in seen
    assert "abcdef" not in seen


def test_both_may_have_words_of_their_own() -> None:
    debate = start(num_turns=2, personas=("", "Be brief."))
    assert debate.view("agent_0")[0][0] == "user"
    debate.post("agent_0", "Which?")
    assert debate.view("agent_1")[0] == ("system", "Be brief.\n")
    assert "Be brief." not in prompts.render(debate.view("agent_0"))


def test_debates_that_end_at_different_turns_go_in_lock_step() -> None:
    config = DebateConfig(task=[QUESTION], protocol="dialogue", num_agents=2, num_turns=4)
    batch = BatchedDebate(config, 3)
    batch.reset([QUESTION] * 3)
    while asked := batch.prompts():
        batch.step(
            ["ANSWER: \\boxed{4}" if p.agent_index == 0 and p.turn >= p.debate else "hm"
             for p in asked]
        )  # fmt: skip
    assert [len(one.messages) for one in batch.transcripts] == [1, 3, 5]
    assert batch.score_mask().sum() == 1 + 2 + 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_agents": 3}, "is of an agent and a user: set num_agents=2, not 3"),
        ({"personas": ["a"]}, "1 entries in personas for 2 agents"),
        ({"history": "last"}, "protocol 'dialogue' has no option 'history'"),
        ({"protocol_options": {"marker": " "}}, "marker must be a text that ends the dialogue"),
        ({"protocol_options": {"reply_characters": 0}}, "reply_characters must be an integer"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DebateConfig(
            **{"task": [QUESTION], "protocol": "dialogue", "num_agents": 2} | options
        ).load()
