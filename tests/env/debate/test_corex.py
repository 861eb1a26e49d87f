"""Protocols `teams_and_judge`, `review` and `retrieve`: judge, last version, best score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from maporl_env.batched import BatchedDebate, DebateConfig, Prompt
from maporl_env.protocols import Retrieve, TeamsAndJudge
from maporl_env.types import Question, Transcript
from maporl_env.voting import majority

QUESTION = Question("q", "What is 2 + 2?", "4")


def played(protocol: str, num_agents: int, say: Any, **options: Any) -> BatchedDebate:
    """Play one debate; `say` returns the text for a prompt."""
    given: dict[str, Any] = {"task": [QUESTION], "protocol": protocol, "num_agents": num_agents}
    batch = BatchedDebate(DebateConfig(**given | options), 1)
    batch.reset()
    while asked := batch.prompts():
        batch.step([say(prompt) for prompt in asked])
    return batch


# --- Teams and judge ----------------------------------------------------------------------


def test_members_read_their_team_and_the_judge_reads_both_at_the_end() -> None:
    read: dict[tuple[int, int], str] = {}

    def say(prompt: Prompt) -> str:
        read[prompt.turn, prompt.agent_index] = prompt.text
        return f"<{prompt.turn}{prompt.agent_index}> \\boxed{{{prompt.agent_index}}}"

    batch = played("teams_and_judge", 5, say, num_turns=3)
    [debate] = batch.debates
    protocol = debate.protocol
    assert isinstance(protocol, TeamsAndJudge)
    teams = protocol.teams(debate.transcript)
    assert sorted(teams[0] + teams[1]) == [0, 1, 2, 3]
    assert [len(team) for team in teams] == [2, 2]
    assert set(read) == {(t, a) for t in (0, 1) for a in range(4)} | {(2, 4)}
    for team in teams:
        for member in team:
            assert [f"<0{other}>" in read[1, member] for other in range(4)] == [
                other in team for other in range(4)
            ]
    assert all(f"<1{member}>" in read[2, 4] for member in range(4))
    assert not any(f"<0{member}>" in read[2, 4] for member in range(4))
    assert read[2, 4].index("team 1") < read[2, 4].index(f"<1{teams[0][0]}>")
    assert debate.outcome() == (4,)


def test_the_split_is_seeded_by_the_question() -> None:
    agents = tuple(f"agent_{n}" for n in range(7))
    histories = [Transcript(Question(f"q/{n}", "?", "4"), agents) for n in range(40)]
    splits = [TeamsAndJudge(split=3).teams(history) for history in histories]
    assert splits == [TeamsAndJudge(split=3).teams(history) for history in histories]
    assert splits != [TeamsAndJudge(split=4).teams(history) for history in histories]
    assert len(set(splits)) > 10
    assert all(len(first) == len(second) == 3 for first, second in splits)


def test_the_judge_may_overrule_and_before_it_there_is_no_answer() -> None:
    batch = played(
        "teams_and_judge", 4, lambda p: f"\\boxed{{{4 if p.agent_index == 3 else 5}}}", num_turns=2
    )
    [debate] = batch.debates
    assert debate.outcome() == (4,)
    assert debate.protocol.outcome(debate.transcript.until(1)) == ()
    # Members are paid with the judge's score too: (0 + .3 * 1) / 1.3
    assert debate.rewards()[0, :3] == pytest.approx([0.3 / 1.3] * 3)
    assert debate.rewards()[1].tolist() == [0.0, 0.0, 0.0, 1.0]


# --- Review ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("bugs", "reviewers"), [(3, 1), (3, 2), (3, 3), (2, 4)])
def test_reviewers_who_fix_one_bug_each_fix_as_many_as_there_are(bugs: int, reviewers: int) -> None:
    def say(prompt: Prompt) -> str:
        if prompt.agent_index == 0:
            return "bug " * bugs + "\\boxed{4}"
        newest = prompt.text.rsplit("```", 2)[1]  # the version before
        return newest.strip().replace("bug ", "", 1)

    batch = played("review", 1 + reviewers, say, num_turns=1)
    last = batch.transcripts[0].messages[-1].text
    assert last.count("bug") == bugs - min(reviewers, bugs)
    assert batch.debates[0].outcome() == (4,)


# --- Retrieve -------------------------------------------------------------------------------


def chains(prompt: Prompt) -> str:
    """Three answer; the majority is wrong, and the second alone entails its answer."""
    return ["so \\boxed{5}", "2 + 2 = 4, \\boxed{4}", "\\boxed{5}"][prompt.agent_index]


def test_retrieve_is_right_where_the_vote_is_wrong() -> None:
    def say(prompt: Prompt) -> str:
        if prompt.agent_index < 3:
            assert "boxed{5}" not in prompt.text
            return chains(prompt)
        assert "Agent 2:\n```\n2 + 2 = 4" in prompt.text
        return "Agent 1: 0.2\nAgent 2: 0.9\nAgent 3: .1"

    batch = played("retrieve", 4, say, num_turns=1)
    [debate] = batch.debates
    assert debate.outcome() == (4,)
    assert majority([5, 4, 5]) == (5,)
    last = debate.transcript.messages[-1]
    assert (last.answer, last.score) == ("2 + 2 = 4, \\boxed{4}", 1.0)
    assert debate.rewards()[0].tolist() == [0.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("said", "chosen"),
    [
        ("Agent 1: 0.5, Agent 2: 0.5", 0),
        ("Agent 3: 1", 2),
        ("Agent 9: 1\nAgent 2: 0.1", 1),
        ("Agent 1: 7\nAgent 3: 0.3", 2),
        ("Agent 1: 0.9. On reflection Agent 1: 0.1, Agent 2: 0.2", 1),
        ("agent 1 : 0.5 , AGENT 2 : 1", 1),
        ("the second", None),
        ("I say \\boxed{4}", 1),
        ("\\boxed{5}, as most do", 0),
        ("\\boxed{6}", None),
        ("Agent 9: 1, so \\boxed{4}", None),
        ("Agent 0: 1", None),
        ("", None),
    ],
)
def test_what_a_retriever_writes(said: str, chosen: int | None) -> None:
    batch = played("retrieve", 4, lambda p: said if p.agent_index == 3 else chains(p), num_turns=1)
    [debate] = batch.debates
    answers = Counter(m.text for m in debate.transcript.messages[:3])
    assert len(answers) == 3
    message = debate.transcript.messages[-1]
    assert message.answer == ("" if chosen is None else debate.transcript.messages[chosen].text)
    assert (debate.outcome() == ()) == (chosen is None)


def test_a_verifier_retrieves() -> None:
    def longest(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        return [min(len(text) / 100, 1.0) for text in responses]

    batch = played(
        *("retrieve", 3, chains),
        num_turns=1,
        protocol_options={"by": "score"},
        feedback_verifier=longest,
        reward_feedback=True,
    )
    assert batch.debates[0].outcome() == (4,)
    assert len(batch.transcripts[0].messages) == 3


# --- Bad input -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "options", "words"),
    [
        ("teams_and_judge", {"num_agents": 2}, "needs at least 3 agents, two teams and the judge"),
        ("teams_and_judge", {"num_turns": 1}, "needs num_turns >= 2"),
        ("retrieve", {"num_agents": 1, "num_turns": 1}, "needs at least 2 agents"),
        ("retrieve", {}, "protocol 'retrieve' has one turn, not 3: set num_turns=1"),
        ("retrieve", {"num_turns": 1, "protocol_options": {"by": "vote"}}, "unknown by 'vote'"),
    ],
)
def test_options_that_cannot_be(protocol: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DebateConfig(**{"task": [QUESTION], "protocol": protocol} | options).load()


def test_a_retrieve_of_another_length_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="has one turn"):
        Retrieve(num_turns=2)
