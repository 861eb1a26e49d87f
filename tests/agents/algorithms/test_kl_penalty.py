"""The KL penalty of MAPoRL's rewards, and its coefficient where that adapts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from miniatures import load_team
from ppo_cases import PPO, TEMPERATURE, gradients_of, make_batch, make_learner, one_step
from torch import Tensor

from maporl_agents.advantages import gae, token_rewards, whiten
from maporl_agents.algorithms.maporl import evaluate_tokens
from maporl_agents.config import PPOConfig
from maporl_agents.kl_penalty import adapted_kl_coef
from maporl_agents.losses import full_kl
from maporl_agents.types import Experience
from maporl_agents.update.optimiser import PPOLearner
from maporl_agents.update.reference_logprobs import reference_and_kl


class TestKLInTheReward:
    def by_hand(self, experience: Experience, kl: Tensor, ppo: PPOConfig) -> Tensor:
        """Advantages of the whole chain, the penalty put in by hand."""
        batch = experience.batch
        zero = torch.zeros_like(kl)
        used = token_rewards(zero, zero, batch.mask, batch.rewards, kl_coef=0.0)
        rewards = torch.where(batch.mask, used - ppo.kl_coef * kl, 0.0)
        advantages, _ = gae(
            rewards, experience.values, batch.mask, gamma=ppo.token_gamma, lam=ppo.gae_lambda
        )
        for _, rows in batch.by_message():
            advantages[rows] = whiten(advantages[rows], batch.mask[rows])
        return advantages

    @pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
    def test_estimators(self, checkpoint, estimator: str) -> None:
        ppo = replace(PPO, kl_estimator=estimator)  # type: ignore[arg-type]
        learner = make_learner(checkpoint, ppo)
        experience = evaluate_tokens(learner.team, make_batch(learner.team), ppo, TEMPERATURE)
        d = experience.logprobs - experience.ref_logprobs
        kl = {"k1": d, "k2": d * d / 2, "k3": (-d).exp() - 1 + d}[estimator]
        assert d.abs().max() > 0.1
        torch.testing.assert_close(
            experience.advantages, self.by_hand(experience, kl, ppo), atol=1e-4, rtol=1e-4
        )

    @pytest.mark.parametrize("tuning", ["full", "lora"])
    def test_the_exact_kl_over_the_vocabulary(self, checkpoint, tuning: str) -> None:
        """KL(ref || pi) of the two distributions before each token, read one row at a time."""
        ppo = replace(PPO, kl_estimator="full_ref_policy")
        learner = make_learner(checkpoint, ppo, tuning=tuning)
        team, batch = learner.team, make_batch(learner.team)
        expected = torch.zeros_like(batch.sampled_logprobs)
        for row, policy in enumerate(batch.policies):
            length = int(batch.mask[row].sum())
            ids = torch.tensor([[*batch.prompts[row], *batch.ids[row, :length].tolist()]])
            base, places = team.base_of(policy), torch.arange(ids.shape[1])[None]
            sides = []
            with torch.no_grad():
                for reference in (False, True):
                    states = base.hidden(
                        ids, torch.ones_like(ids), places, [policy], reference=reference
                    )
                    logits = base.logits(states, reference=reference) / TEMPERATURE
                    sides.append(logits[0, len(batch.prompts[row]) - 1 : -1].log_softmax(-1))
            own, frozen = sides
            expected[row, :length] = (frozen.exp() * (frozen - own)).sum(-1)
        found = reference_and_kl(team, batch, temperature=TEMPERATURE)[1]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        assert (found[batch.mask] > 1e-4).all()
        experience = evaluate_tokens(team, batch, ppo, TEMPERATURE)
        torch.testing.assert_close(
            experience.advantages, self.by_hand(experience, expected, ppo), atol=1e-4, rtol=1e-4
        )

    @pytest.mark.parametrize("tuning", ["full", "lora"])
    def test_all_are_exactly_zero_at_first(self, checkpoint, tuning: str) -> None:
        """Failure A2: fresh weights or adapters."""
        learner = PPOLearner(load_team(checkpoint("gpt2"), num_turns=2, tuning=tuning), PPO, 2)
        batch = make_batch(learner.team)
        assert not reference_and_kl(learner.team, batch, temperature=TEMPERATURE)[1].any()
        rows = []
        for estimator in ("k1", "k2", "k3", "full_ref_policy"):
            ppo = replace(PPO, kl_estimator=estimator)  # type: ignore[arg-type]
            rows.append(evaluate_tokens(learner.team, batch, ppo, TEMPERATURE).returns)
        assert all(torch.equal(rows[0], other) for other in rows[1:])

    @pytest.mark.parametrize("estimator", ["k1", "full_ref_policy"])
    def test_the_loss_does_not_know_the_reference(self, checkpoint, estimator: str) -> None:
        """Failure A41: at fixed rewards another reference changes no gradient."""
        found = []
        for spoil in (False, True):
            learner = make_learner(checkpoint, replace(PPO, kl_estimator=estimator))  # type: ignore[arg-type]
            batch = make_batch(learner.team)
            experience = evaluate_tokens(learner.team, batch, learner.ppo, TEMPERATURE)
            if spoil:
                experience = replace(
                    experience, ref_logprobs=torch.full_like(experience.ref_logprobs, float("nan"))
                )
                with torch.no_grad():
                    for base in learner.team.bases:
                        for p in base.reference.parameters():  # type: ignore[attr-defined]
                            p.fill_(float("nan"))
            found.append(gradients_of(learner, experience))
        assert all(map(torch.equal, *found))

    def test_full_kl_agrees_with_its_estimate(self) -> None:
        """E over ref of k1 of ref against pi is KL(ref || pi): the direction is the one printed."""
        logits, frozen = torch.randn(2, 7, generator=torch.Generator().manual_seed(0)).double()
        own, ref = logits.softmax(0), frozen.softmax(0)
        by_hand = sum(float(r * (r.log() - p.log())) for p, r in zip(own, ref, strict=True))
        assert float(full_kl(logits, frozen)) == pytest.approx(by_hand, abs=1e-12)


class TestAdaptiveCoefficient:
    @pytest.mark.parametrize(
        ("kl", "factor"),
        [
            (0.1, 1.0),  # on target
            (0.11, 1 + 0.1 * 0.1),  # 10 % above it: error 0.1
            (0.09, 1 - 0.1 * 0.1),
            (5.0, 1 + 0.1 * 0.2),  # the error counts up to 0.2
            (0.0, 1 - 0.1 * 0.2),
            (-3.0, 1 - 0.1 * 0.2),  # an estimate may be negative
        ],
    )
    def test_by_hand(self, kl: float, factor: float) -> None:
        found = adapted_kl_coef(0.02, kl, target=0.1, gain=0.1)
        assert found == pytest.approx(0.02 * factor, abs=1e-12)

    def test_it_settles_where_the_kl_meets_its_target(self) -> None:
        """A policy whose KL is 0.01 / coefficient has the KL 0.1 at the coefficient 0.1."""
        coefficient = 0.002
        for _ in range(1000):
            coefficient = adapted_kl_coef(coefficient, 0.01 / coefficient, target=0.1, gain=0.1)
        assert coefficient == pytest.approx(0.1, rel=1e-3)

    def test_a_step_uses_and_logs_the_coefficient_from_before_it(self, checkpoint) -> None:
        learner = make_learner(checkpoint, replace(PPO, kl_target=1e-6))
        used = []
        for seed in range(2):
            metrics = one_step(learner, seed=seed)
            used.append(metrics["kl_coef"])
            assert metrics["kl"] > 1e-5
        assert used == pytest.approx([0.3, 0.3 * 1.02])
        assert learner.settings().kl_coef == pytest.approx(0.3 * 1.02**2)

    def test_a_step_without_any_score_leaves_the_coefficient(self, checkpoint) -> None:
        def verifier(questions, responses):
            raise RuntimeError("out of order")

        learner = make_learner(checkpoint, replace(PPO, kl_target=0.1, reward_scale=True))
        before = learner.controls()
        metrics = one_step(learner, seed=0, verifier=verifier)
        assert metrics["updates"] == 0
        assert learner.controls() == before

    def test_the_coefficient_reaches_the_rewards(self, checkpoint) -> None:
        learner = make_learner(checkpoint, replace(PPO, kl_target=0.1))
        batch = make_batch(learner.team)
        found = []
        for coefficient in (0.3, 3.0):
            learner.kl_coef = coefficient
            found.append(
                evaluate_tokens(learner.team, batch, learner.settings(), TEMPERATURE).returns
            )
        fixed = evaluate_tokens(learner.team, batch, replace(PPO, kl_coef=3.0), TEMPERATURE).returns
        assert torch.equal(found[1], fixed)
        assert not torch.equal(found[0], fixed)
