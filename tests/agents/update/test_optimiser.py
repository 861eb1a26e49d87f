"""The optimiser of a run: its learning rates, and Adam."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from ppo_cases import PPO, make_learner, one_step

from maporl_agents.update.optimiser import learning_rate_factor


def test_the_learning_rate_warms_up_and_decays_to_a_tenth() -> None:
    rates = [learning_rate_factor(step, 3, 13) for step in range(14)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[8] == pytest.approx(0.1 + 0.9 * 0.5)  # half of the ten steps of decay are left
    assert rates[13] == pytest.approx(0.1)
    assert learning_rate_factor(99, 3, 13) == pytest.approx(0.1)
    assert learning_rate_factor(0, 0, 1) == 1


def test_the_schedule_reaches_every_group(checkpoint) -> None:
    """Failure A12."""
    learner = make_learner(checkpoint, replace(PPO, warmup_steps=1))
    rates = [group["lr"] for group in learner.optimizer.param_groups]
    assert rates == pytest.approx([0.5e-2, 0.5e-2, 1.5e-2])
    declared = {id(p) for group in learner.optimizer.param_groups for p in group["params"]}
    assert declared == {id(p) for p in learner.parameter_names()}


class TestSchedules:
    def test_cosine(self) -> None:
        """Half a wave from 1 to 0.2 over ten steps: 0.2 + 0.8 * (1 + cos(pi s / 10)) / 2."""
        for step in range(11):
            by_hand = 0.2 + 0.8 * (1 + math.cos(math.pi * step / 10)) / 2
            found = learning_rate_factor(step, 0, 10, schedule="cosine", final=0.2)
            assert found == pytest.approx(by_hand, abs=1e-12)
        assert learning_rate_factor(99, 0, 10, schedule="cosine", final=0.2) == pytest.approx(0.2)

    def test_constant_after_the_warm_up(self) -> None:
        found = [learning_rate_factor(s, 3, 10, schedule="constant", final=0.0) for s in range(12)]
        assert found == pytest.approx([0.25, 0.5, 0.75, *[1.0] * 9])

    def test_linear_to_zero(self) -> None:
        assert learning_rate_factor(10, 0, 10, final=0.0) == 0
        assert learning_rate_factor(5, 0, 10, final=0.0) == 0.5

    @pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
    def test_it_reaches_every_group(self, checkpoint, schedule: str) -> None:
        """Failure A12."""
        ppo = replace(PPO, schedule=schedule, final_fraction=0.3)  # type: ignore[arg-type]
        learner = make_learner(checkpoint, ppo)
        for step in range(4):
            factor = learning_rate_factor(step, 0, 10, schedule=schedule, final=0.3)  # type: ignore[arg-type]
            rates = [group["lr"] for group in learner.optimizer.param_groups]
            assert rates == pytest.approx([1e-2 * factor] * 2 + [3e-2 * factor])
            learner.optimizer.step()
            learner.schedule.step()

    def test_adam_is_as_the_settings_say(self, checkpoint) -> None:
        """Failure A42."""
        ppo = replace(PPO, adam_betas=(0.8, 0.95), adam_eps=1e-5)
        for group in make_learner(checkpoint, ppo).optimizer.param_groups:
            assert group["betas"] == (0.8, 0.95)
            assert group["eps"] == 1e-5
            assert group["weight_decay"] == 0
            assert group["amsgrad"] is False

    @pytest.mark.parametrize("minibatches", [1, 3])
    def test_it_moves_once_per_step_however_many_updates_that_has(
        self, checkpoint, minibatches: int
    ) -> None:
        ppo = replace(PPO, epochs=2, minibatches=minibatches, warmup_steps=3)
        learner = make_learner(checkpoint, ppo)
        metrics = one_step(learner)
        assert metrics["updates"] == 2 * minibatches
        second_of_three = PPO.learning_rate * 2 / 4
        assert learner.learning_rate == pytest.approx(second_of_three)
