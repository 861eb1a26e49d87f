"""Drafts: tries that their author alone reads, under every protocol."""

from __future__ import annotations

import json
from typing import Any

import gymnasium
import pytest
from pettingzoo.test import api_test

from maporl_env import debate_v0
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.protocols import PROTOCOLS, Protocol
from maporl_env.types import Question

from .partial_turns import Ushers

QUESTION = Question("q", "What is 2 + 2?", "4", hidden="the reference of the user")
DRAFT, RIGHT = "<a draft>", "\\boxed{4}"
AGENTS = {"self_correction": 1, "pipeline": 3, "teams_and_judge": 3}
TURNS = {"retrieve": 1, "lessons": 3}


def game(protocol: str | Protocol, num_agents: int, **options: Any) -> DebateConfig:
    turns = TURNS.get(str(protocol), 2)
    fixed: dict[str, Any] = {"task": [QUESTION], "num_turns": turns, "tries": 3}
    return DebateConfig(**fixed | options, protocol=protocol, num_agents=num_agents)


@pytest.mark.parametrize(
    "protocol",
    [*sorted(PROTOCOLS), Ushers(num_turns=2)],
    ids=lambda one: one if isinstance(one, str) else type(one).__name__,
)
def test_a_draft_is_read_by_its_author_until_the_message_is_there(protocol: Any) -> None:
    """In every call agent 0 tries twice; the others are accepted at once."""
    num_agents = 3 if isinstance(protocol, Ushers) else AGENTS.get(protocol, 2)
    batch = BatchedDebate(game(protocol, num_agents), 1)
    batch.reset()
    first = {(p.agent, p.turn): p.text for p in batch.prompts()}
    tried: set[tuple[str, int]] = set()
    while asked := batch.prompts():
        texts = []
        for prompt in asked:
            place = prompt.agent, prompt.turn
            trying = prompt.agent == "agent_0" and place not in tried
            again = prompt.agent == "agent_0" and place in tried
            assert (DRAFT in prompt.text) == again
            if again:
                assert prompt.view[-2] == ("own", DRAFT)
                assert prompt.text.endswith("\nThis try does not count. Try again:\n")
                assert place not in first or prompt.text.startswith(first[place])
            texts.append(DRAFT if trying else RIGHT)
            tried.add(place)
        assert batch.step(texts) == [text == RIGHT for text in texts]
    [debate] = batch.debates
    assert debate.terminated
    assert DRAFT not in debate.transcript.to_json()
    assert not debate.drafts


def test_the_last_try_counts_in_any_case() -> None:
    batch = BatchedDebate(game("debate", 1, num_turns=1), 1)
    batch.reset()
    assert [batch.step([f"try {n}"]) for n in range(3)] == [[False], [False], [True]]
    assert [m.text for m in batch.transcripts[0].messages] == ["try 2"]
    assert batch.transcripts[0].messages[0].score == 0.0


def test_ones_own_rule_reads_no_secret_and_must_decide() -> None:
    seen: list[Question] = []

    def accept(question: Question, text: str) -> Any:
        seen.append(question)
        return {"yes": True, "no": False}.get(text)

    batch = BatchedDebate(game("debate", 1, num_turns=1, accept=accept), 1)
    batch.reset()
    assert batch.step(["no"]) == [False]
    with pytest.raises(ValueError, match="accept must return True or False, not None"):
        batch.step(["maybe"])
    assert batch.step(["yes"]) == [True]
    assert "reference of the user" not in json.dumps([one.to_dict() for one in seen])


def test_a_game_that_is_reset_or_cut_short_has_no_drafts() -> None:
    batch = BatchedDebate(game("debate", 1), 1)
    for end in (lambda: batch.truncate(0, "enough"), lambda: batch.reset()):
        batch.reset()
        batch.step([DRAFT])
        end()
        assert not batch.debates[0].drafts


@pytest.mark.parametrize("options", [{}, {"observation": "tokens"}])
def test_the_other_interfaces(options: dict[str, Any]) -> None:
    setting: dict[str, Any] = {"task": [QUESTION], "num_agents": 2, "num_turns": 2, "tries": 2}
    api_test(debate_v0.env(**setting, **options), num_cycles=30)
    with pytest.raises(ValueError, match="at once in every"):
        debate_v0.parallel_env(**setting, **options)


def test_token_observations_hold_the_draft() -> None:
    env = debate_v0.env(task=[QUESTION], num_agents=1, tries=2, observation="tokens")
    env.reset(seed=0)
    before = env.observe("agent_0")
    env.step(env.action_space("agent_0").sample() * 0)  # an empty message
    assert (env.observe("agent_0") != before).any()


def test_one_learner_tries_again_while_its_partner_waits() -> None:
    env = gymnasium.make("maporl/Debate-v0", task=[QUESTION], num_agents=2, tries=2, num_turns=1,
                         partners=[[RIGHT]])  # fmt: skip
    env.reset(seed=0)
    observation, reward, over, *_ = env.step("hm")
    assert (over, reward) == (False, 0.0)
    assert observation.endswith("Try again:\n")
    _, reward, over, *_ = env.step(RIGHT)
    assert (over, reward) == (True, 1.0)


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="tries must be an integer >= 1, not 0"):
        game("debate", 2, tries=0)
    with pytest.raises(ValueError, match="accept says which tries are drafts: set tries to 2"):
        game("debate", 2, tries=1, accept=lambda question, text: True)
