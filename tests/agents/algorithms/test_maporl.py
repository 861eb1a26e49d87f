"""MAPoRL's update: in pieces, under faults, and as a step of training."""

from __future__ import annotations

import copy
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from miniatures import load_team, make_rollout
from ppo_cases import (
    CONFIG,
    PPO,
    QUESTIONS,
    TEMPERATURE,
    gradients_of,
    make_debates,
    make_experience,
    make_learner,
    one_step,
    one_update,
    parameters_of,
)
from torch import Tensor

from maporl_agents.algorithms.maporl import evaluate_tokens, train_step
from maporl_agents.measure.step_metrics import experience_metrics
from maporl_agents.update.batching import collate
from maporl_agents.update.optimiser import PPOLearner


def mean_by_hand(x: Tensor, mask: Tensor, reduction: str) -> float:
    """Mean over tokens, or over rows of the mean over their tokens."""
    rows = [row[real].tolist() for row, real in zip(x, mask, strict=True)]
    if reduction == "sequence":
        return sum(sum(row) / len(row) for row in rows) / len(rows)
    return sum(map(sum, rows)) / sum(map(len, rows))


class TestPieces:
    @pytest.mark.parametrize("tuning", ["full", "lora"])
    def test_the_size_of_the_pieces_changes_no_gradient(self, checkpoint, tuning: str) -> None:
        """Failure A20: one, some or all conversations at once; unequal lengths; 1e-6."""
        learner = make_learner(checkpoint, tuning=tuning)
        experience = make_experience(learner)
        whole = gradients_of(learner, experience)
        assert any(g.any() for g in whole)
        for size in (1, 40):
            learner.ppo = replace(PPO, micro_tokens=size)
            for one, other in zip(gradients_of(learner, experience), whole, strict=True):
                torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)

    @pytest.mark.parametrize("reduction", ["token", "sequence"])
    def test_the_reduction_is_that_of_the_whole_minibatch(self, checkpoint, reduction: str) -> None:
        """By hand, messages of 2, 1, 3 and more tokens; however they are cut into pieces."""
        ppo = replace(PPO, reduction=reduction, entropy_coef=0.1, critic_coef=0.7)
        learner = make_learner(checkpoint, ppo)
        experience = make_experience(learner)
        batch, paid = experience.batch, experience.advantages
        errors = (experience.values - experience.returns).square() / 2
        policy, value = (
            [mean_by_hand(x[rows], batch.mask[rows], reduction) for _, rows in batch.by_policy()]
            for x in (-paid, errors)
        )
        whole = gradients_of(learner, experience)
        for size in (1, 40, 8192):
            learner.ppo = replace(ppo, micro_tokens=size)
            for one, other in zip(gradients_of(learner, experience), whole, strict=True):
                torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
        # At ratio 1 the surrogate is the advantage.
        metrics = one_update(learner, experience, TEMPERATURE)
        assert metrics["loss/policy"] == pytest.approx(sum(policy) / 2, abs=1e-6)
        assert metrics["loss/value"] == pytest.approx(sum(value) / 2, rel=1e-5)

    def test_nor_the_scores_nor_what_is_logged(self, checkpoint) -> None:
        """Failure A31: the logged loss is the loss, however it was added up."""
        logged, scored = [], []
        for size in (8192, 1):
            learner = make_learner(checkpoint, replace(PPO, micro_tokens=size))
            experience = make_experience(learner)
            scored.append(experience)
            logged.append(one_update(learner, experience, TEMPERATURE))
        assert logged[0] == pytest.approx(logged[1], abs=1e-5)
        for name in ("logprobs", "ref_logprobs", "values", "advantages", "returns"):
            first, second = (getattr(experience, name) for experience in scored)
            torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)

    def test_the_first_update_starts_at_ratio_one(self, checkpoint) -> None:
        """Bitwise, the minibatch having the shape that was scored."""
        learner = make_learner(checkpoint)
        metrics = one_update(learner, make_experience(learner), 0.8)
        assert metrics["clip_frac"] == 0
        assert metrics["approx_kl"] == 0

    @pytest.mark.parametrize("tuning", ["full", "lora"])  # a base each; both on one base
    def test_each_agent_speaks_with_its_own_weight(self, checkpoint, tuning: str) -> None:
        """A policy's loss is a mean over its own tokens: rows of another do not slow it."""
        learner = make_learner(checkpoint, tuning=tuning)
        experience = make_experience(learner)
        alone = experience.select(torch.tensor([i for i in range(16) if i % 2 == 0]))
        both, one = (gradients_of(learner, part) for part in (experience, alone))
        names = list(learner.parameter_names().values())
        own = [i for i, name in enumerate(names) if name.startswith("agent_0/")]
        assert own
        for i in own:
            torch.testing.assert_close(both[i], one[i], atol=1e-6, rtol=1e-4)

    def test_advantages_are_white_per_turn_and_agent(self, checkpoint) -> None:
        learner = make_learner(checkpoint)
        experience = make_experience(learner)
        for _, rows in experience.batch.by_message():
            real = experience.advantages[rows][experience.batch.mask[rows]]
            assert real.mean() == pytest.approx(0, abs=1e-5)
            assert real.std() == pytest.approx(1, abs=1e-4)
        assert not experience.advantages[~experience.batch.mask].any()


class TestFaults:
    """Failure A30: nothing that is not finite reaches a weight."""

    def check(self, learner: PPOLearner, before: list[Tensor]) -> None:
        assert all(map(torch.equal, parameters_of(learner), before))
        assert all(p.grad is None for p in learner.parameter_names())

    @pytest.mark.parametrize("place", [0, -1])
    def test_nan_in_the_loss(self, checkpoint, place: int) -> None:
        """In the first or the last piece: no part of a gradient is left behind."""
        learner = make_learner(checkpoint, replace(PPO, micro_tokens=1))
        experience = make_experience(learner)
        before = parameters_of(learner)
        experience.advantages[place][experience.batch.mask[place]] = float("nan")
        with pytest.raises(FloatingPointError, match=r"loss became nan.*not made"):
            one_update(learner, experience, TEMPERATURE)
        self.check(learner, before)

    @pytest.mark.parametrize("where", ["policy", "critic"])
    def test_an_infinite_gradient_of_a_finite_loss(self, checkpoint, where: str) -> None:
        learner = make_learner(checkpoint)
        experience = make_experience(learner)
        before = parameters_of(learner)
        named = learner.team.trainable()["agent_1"]
        owner = named if where == "policy" else dict(learner.team.critics.named_parameters())
        next(iter(owner.values())).register_hook(lambda gradient: gradient * float("inf"))
        with pytest.raises(FloatingPointError, match="gradient"):
            one_update(learner, experience, TEMPERATURE)
        self.check(learner, before)

    def test_an_update_after_a_refused_one_is_as_if_it_had_not_been(self, checkpoint) -> None:
        after = []
        for spoil in (False, True):
            learner = make_learner(checkpoint, replace(PPO, micro_tokens=1))
            experience = make_experience(learner)
            if spoil:
                bad = copy.deepcopy(experience)
                bad.advantages[-1] = float("nan")
                with pytest.raises(FloatingPointError):
                    one_update(learner, bad, TEMPERATURE)
            one_update(learner, experience, TEMPERATURE)
            after.append(parameters_of(learner))
        assert all(map(torch.equal, *after))

    def test_a_step_without_any_score_changes_nothing_and_says_so(self, checkpoint) -> None:
        def verifier(questions, responses):
            raise RuntimeError("out of order")

        learner = make_learner(checkpoint)
        before = parameters_of(learner)
        debates = make_debates(verifier=verifier)
        rollouts, metrics = train_step(learner, debates, QUESTIONS, CONFIG, seed=1)
        self.check(learner, before)
        assert metrics["unscored_messages"] == 16
        assert metrics["updates"] == 0
        assert all(math.isfinite(value) for value in metrics.values())
        assert len(rollouts) == len(QUESTIONS)

    def test_messages_without_a_score_carry_no_loss(self, checkpoint) -> None:
        """The rest is learnt as if they had not been written."""

        def verifier(questions, responses):
            return [float("nan") if q.id == "q/1" else 1.0 for q in questions]

        learner = make_learner(checkpoint)
        debates = make_debates(verifier=verifier)
        _, metrics = train_step(learner, debates, QUESTIONS, CONFIG, seed=1)
        assert metrics["unscored_messages"] == 4
        assert metrics["updates"] == 2
        assert all(math.isfinite(value) for value in metrics.values())

    def test_a_single_token_is_enough(self, checkpoint) -> None:
        learner = make_learner(checkpoint)
        rollout = make_rollout(
            learner.team,
            [(5,), (6,)],
            [(7,), (8,)],
            rewards=np.ones((1, 2)),
            scored=np.array([[True, False]]),
        )
        batch, _ = collate(learner.team, [rollout])
        experience = evaluate_tokens(learner.team, batch, PPO, 0.8)
        metrics = experience_metrics(experience) | one_update(learner, experience, TEMPERATURE)
        assert all(math.isfinite(value) for value in metrics.values())


class TestStep:
    def test_every_policy_and_critic_moves_and_no_reference(self, checkpoint) -> None:
        learner = make_learner(checkpoint)
        rate = learner.optimizer.param_groups[0]["lr"]
        reference = [p.clone() for base in learner.team.bases for p in base.reference.parameters()]
        before = parameters_of(learner)
        metrics = one_step(learner)
        changed = [
            name
            for name, old, new in zip(
                learner.parameter_names().values(), before, parameters_of(learner), strict=True
            )
            if not torch.equal(old, new)
        ]
        assert len(changed) == len(before)
        after = [p for base in learner.team.bases for p in base.reference.parameters()]
        assert all(map(torch.equal, reference, after))
        assert metrics["sampler_mismatch"] < 1e-5
        assert metrics["updates"] == 2
        assert metrics["learning_rate"] == rate, "that of this step, not of the next"

    @pytest.mark.parametrize("tuning", ["full", "lora"])
    def test_equal_seeds_give_equal_weights(self, checkpoint, tuning: str) -> None:
        runs = []
        for seed in (1, 1, 2):
            learner = make_learner(checkpoint, tuning=tuning)
            train_step(
                learner,
                make_debates(),
                QUESTIONS,
                CONFIG,
                seed=seed,
            )
            runs.append(parameters_of(learner))
        assert all(map(torch.equal, runs[0], runs[1]))
        assert not all(map(torch.equal, runs[0], runs[2]))

    def test_the_global_random_state_is_not_touched(self, checkpoint) -> None:
        learner = make_learner(checkpoint)
        before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())  # noqa: NPY002
        train_step(learner, make_debates(), QUESTIONS, CONFIG, seed=1)
        assert random.getstate() == before[0]
        assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), before[2])

    def test_rewards_raise_what_earned_them(self, checkpoint) -> None:
        """The sign: a message that is paid more than its like gains on it."""
        ppo = replace(PPO, kl_coef=0.0, learning_rate=1e-3)
        learner = make_learner(checkpoint, ppo, num_turns=1)
        rollouts = [
            make_rollout(learner.team, [(5, 6)] * 2, [(said,)] * 2, rewards=np.full((1, 2), paid))
            for said, paid in ((7, 1.0), (8, 0.0))
        ]
        batch, _ = collate(learner.team, rollouts)
        experience = evaluate_tokens(learner.team, batch, learner.ppo, 0.8)
        one_update(learner, experience, TEMPERATURE)
        after = evaluate_tokens(learner.team, batch, learner.ppo, 0.8)
        change = (after.logprobs - experience.logprobs)[:, 0]
        assert (change[:2] > change[2:]).all()

    def test_kl_is_zero_at_first(self, checkpoint) -> None:
        for tuning in ("full", "lora"):
            learner = PPOLearner(load_team(checkpoint("llama"), tuning=tuning), PPO, steps=2)
            assert experience_metrics(make_experience(learner))["kl"] == 0
