"""With `leave_out_equal_rewards`, messages of a turn rewarded alike teach a policy nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from ppo_cases import PPO, make_batch, make_learner, one_step, parameters_of

from maporl_agents.algorithms.maporl import rewards_differ


def test_messages_count_whose_turn_and_agent_have_different_rewards(checkpoint) -> None:
    batch = make_batch(make_learner(checkpoint).team)
    rewards = torch.full((len(batch),), 0.7)
    expected = torch.zeros(len(batch), dtype=torch.bool)
    for key, rows in batch.by_message():
        if key in ((0, 1), (1, 0)):
            rewards[rows[2]] = 0.9
            expected[rows] = True
    assert torch.equal(rewards_differ(replace(batch, rewards=rewards)), expected)
    assert not rewards_differ(replace(batch, rewards=rewards * 0 + 0.1)).any()
    assert rewards_differ(replace(batch, rewards=torch.arange(len(batch)).float())).all()
    single = batch.select(torch.tensor([0, 1, 2, 3]))  # one of each: nothing to compare
    assert len({(int(t), int(a)) for t, a in zip(single.turns, single.agents, strict=True)}) == 4
    assert not rewards_differ(single).any()


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_a_step_in_which_all_is_right_or_wrong_changes_nothing(checkpoint, score: float) -> None:
    """Though critics err, the policies have left their reference, and momentum is left."""
    learner = make_learner(checkpoint, replace(PPO, leave_out_equal_rewards=True))
    one_step(learner, seed=2)
    before = parameters_of(learner)
    metrics = one_step(learner, verifier=lambda questions, texts: [score] * len(texts))
    assert metrics["zero_spread"] == 1
    assert "loss/policy" not in metrics
    assert all(map(torch.equal, before, parameters_of(learner)))
