"""Protocol `leader`: peers answer alone, the leader reads them, peers read the leader."""

from __future__ import annotations

from typing import Any

import pytest

from maporl_env import prompts
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.bridges import speakers
from maporl_env.bridges.endpoint import Endpoint
from maporl_env.debate import Debate
from maporl_env.protocols import Leader, SelfCorrection
from maporl_env.services.http_json import RemoteUnavailable
from maporl_env.types import Question

QUESTION = Question("q", "What is 2 + 2?", "4")


def mark(turn: int, agent: str) -> str:
    return f"<{turn}-{agent[-1]}>"


def reads(protocol: Leader, num_agents: int) -> tuple[dict[tuple[int, str], str], Debate]:
    """Play to the end; return what each agent read before its message of each turn."""
    debate, read = Debate(protocol, num_agents), {}
    debate.reset(QUESTION)
    while not debate.over:
        for agent in debate.speakers:
            read[debate.played, agent] = debate.observation(agent)
            assert prompts.render(debate.view(agent)) == debate.observation(agent)
            assert (
                prompts.render(protocol.view(agent, debate.transcript))
                == read[debate.played, agent]
            )
        turn = debate.played
        for agent in debate.speakers:
            debate.post(agent, mark(turn, agent))
        if debate.awaits_scores:
            debate.settle([(turn + 1) / 10] * len(debate.due()))
    return read, debate


def shown(text: str, num_agents: int, num_turns: int) -> set[str]:
    marks = {mark(t, f"agent_{a}") for t in range(num_turns) for a in range(num_agents)}
    return {one for one in marks if one in text}


@pytest.mark.parametrize("history", ["all", "last"])
def test_a_peer_reads_itself_and_the_leader_never_a_peer(history: Any) -> None:
    read, _ = reads(Leader(num_turns=3, history=history), 4)
    for (turn, agent), text in read.items():
        first = max(turn - 1, 0) if history == "last" else 0
        own = {mark(t, agent) for t in range(first, turn)}
        if agent == "agent_3":
            peers = {mark(t, f"agent_{a}") for t in range(first, turn + 1) for a in range(3)}
            assert shown(text, 4, 3) == own | peers
        else:
            assert shown(text, 4, 3) == own | {mark(t, "agent_3") for t in range(first, turn)}


def test_whether_the_leader_reads_itself_is_an_option() -> None:
    read, _ = reads(Leader(num_turns=3, leader_remembers=False), 3)
    for turn in range(3):
        expected = {mark(turn, "agent_0"), mark(turn, "agent_1")}
        assert shown(read[turn, "agent_2"], 3, 3) == expected


def test_views_only_grow() -> None:
    read, _ = reads(Leader(num_turns=3, reward_feedback=True), 3)
    for (turn, agent), text in read.items():
        if turn:
            assert text.startswith(read[turn - 1, agent] + mark(turn - 1, agent))
            assert "score" in text


def test_scores_of_the_turn_in_play_are_not_shown() -> None:
    read, _ = reads(Leader(num_turns=2, reward_feedback=True), 3)
    assert "score" not in read[0, "agent_2"]
    assert read[1, "agent_2"].count("(score") == 1  # its own
    assert read[1, "agent_0"].count("(score") == 2  # its own and the leader's


def test_three_peers_and_five_turns_are_twenty_generations() -> None:
    batch = BatchedDebate(
        DebateConfig(task=[QUESTION], num_agents=4, num_turns=5, protocol="leader"), 1
    )
    batch.reset()
    rounds = 0
    while asked := batch.prompts():
        batch.step(["\\boxed{4}"] * len(asked))
        rounds += 1
    assert (rounds, len(batch.transcripts[0].messages)) == (10, 20)


def test_the_leader_alone_is_paid_and_its_answer_is_the_teams() -> None:
    debate = Debate(Leader(num_turns=2), 3)
    debate.reset(QUESTION)
    for answers in ((5, 5, 4), (4, 4, 5)):
        for agent, answer in zip(debate.agents, answers, strict=True):
            debate.post(agent, f"\\boxed{{{answer}}}")
        debate.settle([float(answer == 4) for answer in answers])
        assert debate.outcome() == (answers[-1],)
    assert {m.agent for m in debate.transcript.messages if m.votes} == {"agent_2"}
    assert not debate.rewards()[:, :2].any()
    assert not debate.scored()[:, :2].any()
    assert debate.scored()[:, 2].all()
    assert debate.rewards()[1, 2] == 0.0
    both = Debate(Leader(num_turns=1, paid_agents="all"), 2)
    both.reset(QUESTION)
    both.post("agent_0", "x")
    both.post("agent_1", "x")
    both.settle([1.0, 0.5])
    assert both.rewards().tolist() == [[1.0, 0.5]]


def test_a_leader_without_peers_is_a_lone_agent() -> None:
    """K = 0: every view is that of self-correction, character by character."""
    alone, _ = reads(Leader(num_turns=3), 1)
    debate = Debate(SelfCorrection(num_turns=3), 1)
    debate.reset(QUESTION)
    for turn in range(3):
        assert debate.observation("agent_0") == alone[turn, "agent_0"]
        debate.post("agent_0", mark(turn, "agent_0"))
        debate.settle([0.5])


def test_the_order_of_peers_changes_no_view() -> None:
    texts = {}
    for order in (("agent_0", "agent_1"), ("agent_1", "agent_0")):
        debate = Debate(Leader(num_turns=1), 3)
        debate.reset(QUESTION)
        for agent in order:
            debate.post(agent, mark(0, agent))
        texts[order] = debate.observation("agent_2")
    assert len(set(texts.values())) == 1


def test_a_token_budget_drops_old_turns_never_the_question() -> None:
    protocol = Leader(num_turns=6, token_budget=90)
    read, _ = reads(protocol, 3)
    assert all("What is 2 + 2?" in text for text in read.values())
    assert "left out" in read[5, "agent_2"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"paid_agents": "peers"}, "unknown paid_agents 'peers': choose one of leader, all"),
        ({"leader_remembers": 1}, "leader_remembers must be True or False, not 1"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DebateConfig(task=[QUESTION], protocol="leader", protocol_options=options).load()


def test_peers_may_be_scripts_functions_and_people() -> None:
    person = speakers.Person(read=lambda cue: "a person says \\boxed{5}", show=lambda text: None)
    read: list[str] = []

    def leader(asked: Any) -> list[str]:
        read.extend(asked)
        return ["\\boxed{4}"] * len(asked)

    script = ["first \\boxed{3}", "then \\boxed{4}"]
    model = lambda asked: ["a model says \\boxed{6}"] * len(asked)  # noqa: E731
    batch = speakers.play(
        [script, person, model, leader], [QUESTION], protocol="leader", num_turns=2
    )
    assert batch.debates[0].outcome() == (4,)
    for turn, text in enumerate(read):
        assert all(said in text for said in ("a person says", "a model says", script[turn]))


def test_a_peer_that_fails_is_a_fault_and_never_a_wrong_answer() -> None:
    """An endpoint that is not there: one sentence, and no debate goes on without it."""
    endpoint = Endpoint("http://127.0.0.1:9/v1", "nobody", retries=0, timeout_seconds=2.0)
    leader = ["\\boxed{4}"]
    with pytest.raises(RemoteUnavailable, match=r"127\.0\.0\.1:9"):
        speakers.play([endpoint, leader], [QUESTION], protocol="leader", num_turns=1)
