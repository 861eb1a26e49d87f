"""Sampling by prompts: `sample` gives what `complete` gives for a request each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from miniatures import load_team

from maporl_agents.config import Sampling
from maporl_agents.phases import measured
from maporl_agents.play.local_engine import complete, sample
from maporl_agents.types import Request

PROMPTS = [(3, 4, 5), (3, 4, 5), (6, 7), (8,)]
LIMITS = Sampling(agent_max_new_tokens=(5, 2))


def test_prompts_are_completed_as_debates_of_their_own(checkpoint: Callable[..., Path]) -> None:
    team = load_team(checkpoint("llama"), num_turns=1)
    policies = [team.policy(agent, 0) for agent in (0, 0, 1, 1)]
    found = sample(team, PROMPTS, policies, LIMITS, 3, seats=[0, 0, 1, 1])
    asked = [
        Request(policy, prompt, agent, debate)
        for debate, (policy, prompt, agent) in enumerate(
            zip(policies, PROMPTS, (0, 0, 1, 1), strict=True)
        )
    ]
    assert [one.ids for one in found] == [one.ids for one in complete(team, asked, LIMITS, 3)]
    assert max(len(one.ids) for one in found[2:]) <= 2


def test_equal_prompts_have_completions_of_their_own(checkpoint: Callable[..., Path]) -> None:
    team = load_team(checkpoint("llama"), num_turns=1)
    policy = team.policy(0, 0)
    found = sample(team, [(3, 4, 5)] * 20, [policy] * 20, Sampling(max_new_tokens=8), 0)
    assert len({one.ids for one in found}) > 1


def test_reading_and_writing_are_phases(checkpoint: Callable[..., Path]) -> None:
    team = load_team(checkpoint("llama"), num_turns=1)
    with measured() as seconds:
        sample(team, PROMPTS, [team.policy(0, 0)] * 4, LIMITS, 0)
    assert seconds["play/prefill"] > 0
    assert seconds["play/decode"] > 0
