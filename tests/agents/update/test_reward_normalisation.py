"""Rewards over the running standard deviation of all rewards of a run."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import stdev

import pytest
import torch
from miniatures import load_team
from ppo_cases import PPO, make_batch, make_learner, one_step

from maporl_agents.update.optimiser import PPOLearner
from maporl_agents.update.reward_normalisation import RunningSpread


class TestRewardScale:
    def test_the_running_spread_is_that_of_all(self) -> None:
        numbers = torch.randn(57, generator=torch.Generator().manual_seed(2)) * 3 + 100
        spread = RunningSpread()
        for part in numbers.split((1, 20, 3, 33)):
            spread.add(part)
        assert spread.std == pytest.approx(stdev(numbers.tolist()), rel=1e-9)
        assert spread.mean == pytest.approx(float(numbers.double().mean()), rel=1e-12)
        assert spread.count == 57

    def test_without_spread_nothing_is_scaled(self) -> None:
        spread = RunningSpread()
        assert spread.std == 1
        spread.add(torch.tensor([0.5]))
        assert spread.std == 1
        spread.add(torch.tensor([0.5, 0.5]))
        assert spread.std == 1

    def test_rewards_are_divided_and_not_shifted(self, checkpoint) -> None:
        """[1, 3] has the deviation sqrt(2); with [1, 3, 5] it is 2."""
        learner = make_learner(checkpoint, replace(PPO, reward_scale=True))
        batch = make_batch(learner.team)
        two = replace(batch.select([0, 1]), rewards=torch.tensor([1.0, 3.0]))
        assert learner.normalise_rewards(two).rewards.tolist() == pytest.approx(
            [1 / math.sqrt(2), 3 / math.sqrt(2)]
        )
        one = replace(batch.select([0]), rewards=torch.tensor([5.0]))
        assert learner.normalise_rewards(one).rewards.tolist() == pytest.approx([2.5])
        assert learner.adapt(0.0)["reward_std"] == pytest.approx(2)

    def test_off_it_is_the_same_object(self, checkpoint) -> None:
        learner = make_learner(checkpoint)
        batch = make_batch(learner.team)
        assert learner.normalise_rewards(batch) is batch
        assert learner.adapt(9.0) == {}

    def test_an_empty_batch_leaves_it(self, checkpoint) -> None:
        learner = make_learner(checkpoint, replace(PPO, reward_scale=True))
        learner.normalise_rewards(make_batch(learner.team).select([]))
        assert learner.spread == RunningSpread()

    def test_a_step_learns_from_what_is_scaled(self, checkpoint) -> None:
        """A fresh critic says 0, so its first loss is half the mean square of the returns."""
        losses = {}
        for scaled in (False, True):
            ppo = replace(
                PPO, epochs=1, reward_scale=scaled, kl_coef=0.0, gae_lambda=1.0, token_gamma=1.0
            )
            team = load_team(checkpoint("llama"), num_turns=2)
            learner = PPOLearner(team, ppo, steps=10)
            metrics = one_step(learner)
            losses[scaled] = metrics["loss/value"]
        spread = learner.spread.std
        assert spread != pytest.approx(1, abs=0.1)
        assert losses[True] == pytest.approx(losses[False] / spread**2, rel=1e-4)
