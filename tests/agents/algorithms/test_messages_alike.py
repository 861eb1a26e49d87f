"""Messages of a turn that were all rewarded alike teach their policy nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from ppo_cases import PPO, make_experience, make_learner, one_step, parameters_of

from maporl_agents.algorithms.maporl import compared


def test_advantages_are_zero_where_rewards_have_no_spread_and_stay_elsewhere(checkpoint) -> None:
    experience = make_experience(make_learner(checkpoint))
    batch, before = experience.batch, experience.advantages.clone()
    rewards = torch.zeros(len(batch))
    for (turn, seat), rows in batch.by_message():
        apart = torch.arange(len(rows)) == 2
        rewards[rows] = torch.where(apart, 0.9, 0.7) if (turn, seat) == (1, 0) else 0.7
    found = compared(replace(experience, batch=replace(batch, rewards=rewards))).advantages
    for key, rows in batch.by_message():
        assert before[rows].abs().max() > 0.5  # whitened, so of unit variance
        assert torch.equal(found[rows], before[rows] if key == (1, 0) else before[rows] * 0)
    assert torch.equal(experience.advantages, before)


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_a_step_in_which_all_is_right_or_wrong_changes_no_policy(checkpoint, score: float) -> None:
    """Though critics err and the policies have left their reference."""
    learner = make_learner(checkpoint, replace(PPO, critic_coef=0.0))
    before = parameters_of(learner)
    metrics = one_step(learner, verifier=lambda questions, texts: [score] * len(texts))
    assert metrics["zero_spread"] == 1
    assert all(map(torch.equal, before, parameters_of(learner)))
