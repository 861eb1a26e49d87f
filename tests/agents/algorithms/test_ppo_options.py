"""The options of PPO: each does what it says, and is off by default."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import stdev

import numpy as np
import pytest
import torch
from miniatures import load_team, make_rollout, stir
from torch import Tensor

from maporl_agents.advantages import gae, token_rewards, whiten
from maporl_agents.algorithms import maporl
from maporl_agents.algorithms.maporl import evaluate_tokens, train_step, update
from maporl_agents.config import GameConfig, PPOConfig, Sampling, TrainConfig, from_dict
from maporl_agents.losses import full_kl
from maporl_agents.records import checkpoint as checkpoints
from maporl_agents.training import experiment
from maporl_agents.training.make_game import debates_of
from maporl_agents.types import Experience, TokenBatch
from maporl_agents.update.batching import collate
from maporl_agents.update.gradient_accumulation import accumulate
from maporl_agents.update.optimiser import (
    Learner,
    RunningSpread,
    adapted_kl_coef,
    learning_rate_factor,
)
from maporl_agents.update.token_logprobs import full_ref_kl, score_tokens
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.types import Question

PPO = PPOConfig(learning_rate=1e-2, warmup_steps=0, minibatches=1, kl_coef=0.3, gae_lambda=0.9)
QUESTIONS = [Question(f"q/{i}", f"how much is {i} and three ?", str(i + 3)) for i in range(4)]
SAMPLING = Sampling(max_new_tokens=4, temperature=0.8)
TEMPERATURE = 0.8


def by_length(_questions: object, texts: list[str]) -> list[float]:
    """Pays random models differently."""
    return [len(text) % 3 / 2 for text in texts]


def make_debates(**options: object) -> BatchedDebate:
    game = DebateConfig(task=QUESTIONS, num_agents=2, num_turns=2, verifier=by_length, **options)  # type: ignore[arg-type]
    return BatchedDebate(game, 4)


def make_learner(checkpoint, ppo: PPOConfig = PPO, **settings: object) -> Learner:
    team = load_team(checkpoint("llama"), num_turns=2, **settings)  # type: ignore[arg-type]
    stir(team)
    return Learner(team, ppo, steps=10)


def make_batch(learner: Learner, episodes: int = 3) -> TokenBatch:
    rollouts = []
    for e in range(episodes):
        first = [(5, 6, 7 + e), (9, 8, e)]
        said = [(11, 12 + e), (13,)]
        heard = [(*first[0], *said[0], 40, 41), (*first[1], *said[1], 42)]
        ids = [*said, (14, 15, 0), tuple(range(20, 22 + e))]
        rewards = np.array([[1.0, -e], [0.5 * e, 2.0]])
        rollouts.append(make_rollout(learner.team, [*first, *heard], ids, rewards=rewards))
    return collate(learner.team, rollouts)[0]


def gradients_of(learner: Learner, experience: Experience) -> list[Tensor]:
    loss = partial(maporl.loss_of, learner, temperature=TEMPERATURE)
    accumulate(experience, loss, learner.ppo.micro_episodes)
    found = [
        torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in learner.parameter_names()
    ]
    learner.optimizer.zero_grad()
    return found


class TestKLInTheReward:
    def by_hand(self, experience: Experience, kl: Tensor, ppo: PPOConfig) -> Tensor:
        """Advantages of the whole chain, the penalty put in by hand."""
        batch = experience.batch
        zero = torch.zeros_like(kl)
        paid = token_rewards(zero, zero, batch.mask, batch.rewards, kl_coef=0.0)
        rewards = torch.where(batch.mask, paid - ppo.kl_coef * kl, 0.0)
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
        experience = evaluate_tokens(learner.team, make_batch(learner), ppo, TEMPERATURE)
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
        team, batch = learner.team, make_batch(learner)
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
        found = full_ref_kl(team, batch, temperature=TEMPERATURE)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        assert (found[batch.mask] > 1e-4).all()
        experience = evaluate_tokens(team, batch, ppo, TEMPERATURE)
        torch.testing.assert_close(
            experience.advantages, self.by_hand(experience, expected, ppo), atol=1e-4, rtol=1e-4
        )

    @pytest.mark.parametrize("tuning", ["full", "lora"])
    def test_all_are_exactly_zero_at_first(self, checkpoint, tuning: str) -> None:
        """Failure A2: fresh weights or adapters."""
        learner = Learner(load_team(checkpoint("gpt2"), num_turns=2, tuning=tuning), PPO, 2)
        batch = make_batch(learner)
        assert not full_ref_kl(learner.team, batch, temperature=TEMPERATURE).any()
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
            batch = make_batch(learner)
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


class TestAdaptivePrice:
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
        """A policy whose KL is 0.01 / price has the KL 0.1 at the price 0.1."""
        price = 0.002
        for _ in range(1000):
            price = adapted_kl_coef(price, 0.01 / price, target=0.1, gain=0.1)
        assert price == pytest.approx(0.1, rel=1e-3)

    def test_a_step_pays_the_price_of_before_and_logs_it(self, checkpoint) -> None:
        learner = make_learner(checkpoint, replace(PPO, kl_target=1e-6))
        paid = []
        for seed in range(2):
            _, metrics = train_step(
                learner, make_debates(), QUESTIONS, TrainConfig(sampling=SAMPLING), seed=seed
            )
            paid.append(metrics["kl_coef"])
            assert metrics["kl"] > 1e-5
        assert paid == pytest.approx([0.3, 0.3 * 1.02])
        assert learner.settings().kl_coef == pytest.approx(0.3 * 1.02**2)

    def test_a_step_without_any_score_leaves_the_price(self, checkpoint) -> None:
        def verifier(questions, responses):
            raise RuntimeError("out of order")

        learner = make_learner(checkpoint, replace(PPO, kl_target=0.1, reward_scale=True))
        game = DebateConfig(task=QUESTIONS, num_agents=2, num_turns=2, verifier=verifier)
        before = learner.controls()
        _, metrics = train_step(
            learner, BatchedDebate(game, 4), QUESTIONS, TrainConfig(sampling=SAMPLING), seed=0
        )
        assert metrics["updates"] == 0
        assert learner.controls() == before

    def test_the_price_reaches_the_rewards(self, checkpoint) -> None:
        learner = make_learner(checkpoint, replace(PPO, kl_target=0.1))
        batch = make_batch(learner)
        found = []
        for price in (0.3, 3.0):
            learner.kl_coef = price
            found.append(
                evaluate_tokens(learner.team, batch, learner.settings(), TEMPERATURE).returns
            )
        fixed = evaluate_tokens(learner.team, batch, replace(PPO, kl_coef=3.0), TEMPERATURE).returns
        assert torch.equal(found[1], fixed)
        assert not torch.equal(found[0], fixed)


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
        batch = make_batch(learner)
        two = replace(batch.select([0, 1]), rewards=torch.tensor([1.0, 3.0]))
        assert learner.scale(two).rewards.tolist() == pytest.approx(
            [1 / math.sqrt(2), 3 / math.sqrt(2)]
        )
        one = replace(batch.select([0]), rewards=torch.tensor([5.0]))
        assert learner.scale(one).rewards.tolist() == pytest.approx([2.5])
        assert learner.adapt(0.0)["reward_std"] == pytest.approx(2)

    def test_off_it_is_the_same_object(self, checkpoint) -> None:
        learner = make_learner(checkpoint)
        batch = make_batch(learner)
        assert learner.scale(batch) is batch
        assert learner.adapt(9.0) == {}

    def test_an_empty_batch_leaves_it(self, checkpoint) -> None:
        learner = make_learner(checkpoint, replace(PPO, reward_scale=True))
        learner.scale(make_batch(learner).select([]))
        assert learner.spread == RunningSpread()

    def test_a_step_learns_from_what_is_scaled(self, checkpoint) -> None:
        """A fresh critic says 0, so its first loss is half the mean square of the returns."""
        losses = {}
        for scaled in (False, True):
            ppo = replace(PPO, reward_scale=scaled, kl_coef=0.0, gae_lambda=1.0, token_gamma=1.0)
            team = load_team(checkpoint("llama"), num_turns=2)
            learner = Learner(team, ppo, steps=10)
            _, metrics = train_step(
                learner, make_debates(), QUESTIONS, TrainConfig(sampling=SAMPLING), seed=1
            )
            losses[scaled] = metrics["loss/value"]
        spread = learner.spread.std
        assert spread != pytest.approx(1, abs=0.1)
        assert losses[True] == pytest.approx(losses[False] / spread**2, rel=1e-4)


class TestLossOptions:
    def test_entropy_adds_its_own_gradient(self, checkpoint) -> None:
        """d/dw [loss - c * mean entropy per policy], the entropy taken from all logits."""
        learner = make_learner(checkpoint)
        batch = make_batch(learner)
        experience = evaluate_tokens(learner.team, batch, PPO, TEMPERATURE)
        without = gradients_of(learner, experience)
        learner.ppo = replace(PPO, entropy_coef=0.7)
        found = gradients_of(learner, experience)
        scores = score_tokens(learner.team, batch, temperature=TEMPERATURE, train_entropy=True)
        total = sum(scores.entropy[rows][batch.mask[rows]].mean() for _, rows in batch.by_policy())
        learner.optimizer.zero_grad()
        (-0.7 * total).backward()
        for p, one, other in zip(learner.parameter_names(), found, without, strict=True):
            extra = torch.zeros_like(p) if p.grad is None else p.grad
            torch.testing.assert_close(one, other + extra, atol=1e-5, rtol=1e-4)
        assert any(
            (one - other).abs().max() > 1e-3 for one, other in zip(found, without, strict=True)
        )

    def test_entropy_is_raised(self, checkpoint) -> None:
        ppo = replace(PPO, entropy_coef=1.0, critic_coef=0.0, learning_rate=1e-3)
        learner = make_learner(checkpoint, ppo)
        experience = evaluate_tokens(learner.team, make_batch(learner), ppo, TEMPERATURE)
        experience = replace(experience, advantages=torch.zeros_like(experience.advantages))
        before = update(learner, experience, TEMPERATURE)["entropy"]
        assert update(learner, experience, TEMPERATURE)["entropy"] > before

    def test_the_logged_entropy_is_the_same_with_and_without(self, checkpoint) -> None:
        logged = []
        for coef in (0.0, 0.5):
            learner = make_learner(checkpoint, replace(PPO, entropy_coef=coef))
            experience = evaluate_tokens(
                learner.team, make_batch(learner), learner.ppo, TEMPERATURE
            )
            logged.append(update(learner, experience, TEMPERATURE)["entropy"])
        assert logged[0] == logged[1]

    def test_pieces_change_nothing_with_every_option(self, checkpoint) -> None:
        """Failure A20 for the options too."""
        ppo = replace(PPO, entropy_coef=0.4, value_clip=0.05)
        learner = make_learner(checkpoint, ppo)
        experience = evaluate_tokens(learner.team, make_batch(learner), ppo, TEMPERATURE)
        whole = gradients_of(learner, experience)
        for size in (1, 2):
            learner.ppo = replace(ppo, micro_episodes=size)
            for one, other in zip(gradients_of(learner, experience), whole, strict=True):
                torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)

    def test_value_clip_holds_values_back(self, checkpoint) -> None:
        """Old values moved out of reach: the clipped error is constant, so no critic learns."""
        learner = make_learner(checkpoint, replace(PPO, value_clip=1e-3))
        experience = evaluate_tokens(learner.team, make_batch(learner), PPO, TEMPERATURE)
        far = replace(experience, values=experience.values - 5, returns=experience.values - 9)
        # V_old = V - 5. Target V - 9: errors 9 as it is, 4 clipped; the larger has a gradient.
        near = replace(experience, values=experience.values - 5, returns=experience.values + 9)
        # Target V + 9: errors 9 as it is, 14 clipped; the larger is a constant.
        heads = [
            i for i, n in enumerate(learner.parameter_names().values()) if n.startswith("critics")
        ]
        moved, held = (gradients_of(learner, e) for e in (far, near))
        assert any(moved[i].any() for i in heads)
        assert not any(held[i].any() for i in heads)


class TestTargetKL:
    def test_the_rest_of_the_step_is_skipped_and_counted(self, checkpoint) -> None:
        ppo = replace(PPO, epochs=4, minibatches=2, target_kl=1e-12)
        learner = make_learner(checkpoint, ppo)
        _, metrics = train_step(
            learner, make_debates(), QUESTIONS, TrainConfig(sampling=SAMPLING), seed=1
        )
        # The first minibatch begins at ratio 1, the second after a step: it is the last.
        assert metrics["updates"] == 2
        assert metrics["skipped_minibatches"] == 6

    def test_a_wide_limit_changes_nothing(self, checkpoint) -> None:
        weights = []
        for target in (None, 1e9):
            learner = make_learner(checkpoint, replace(PPO, epochs=2, target_kl=target))
            _, metrics = train_step(
                learner, make_debates(), QUESTIONS, TrainConfig(sampling=SAMPLING), seed=1
            )
            assert metrics.get("skipped_minibatches", 0) == 0
            weights.append([p.detach().clone() for p in learner.parameter_names()])
        assert all(map(torch.equal, *weights))


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
            assert rates == pytest.approx([1e-2 * factor] * 2 + [5e-3 * factor])
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
        _, metrics = train_step(
            learner, make_debates(), QUESTIONS, TrainConfig(sampling=SAMPLING), seed=1
        )
        assert metrics["updates"] == 2 * minibatches
        second_of_three = PPO.learning_rate * 2 / 4
        assert learner.learning_rate == pytest.approx(second_of_three)


class TestSettings:
    @pytest.mark.parametrize(
        ("field", "value", "match"),
        [
            ("kl_estimator", "k4", "unknown kl_estimator 'k4': choose one of k1, k2, k3, full"),
            ("schedule", "step", "unknown schedule 'step': choose one of linear, cosine"),
            ("kl_target", 0.0, "kl_target must be a number above 0, or None"),
            ("value_clip", -1.0, "value_clip must be"),
            ("target_kl", math.nan, "target_kl must be"),
            ("entropy_coef", -0.1, "entropy_coef must be a number >= 0"),
            ("final_fraction", 1.5, r"final_fraction must be in \[0, 1\]"),
            ("epochs", 0, "epochs must be at least 1"),
            ("minibatches", 0, "minibatches must be at least 1"),
        ],
    )
    def test_impossible_values_are_refused(self, field: str, value: object, match: str) -> None:
        with pytest.raises(ValueError, match=match):
            PPOConfig(**{field: value})  # type: ignore[arg-type]

    def test_a_price_of_zero_cannot_adapt(self) -> None:
        with pytest.raises(ValueError, match="kl_coef must be above 0"):
            PPOConfig(kl_coef=0.0, kl_target=0.1)

    def test_all_survive_json(self) -> None:
        ppo = PPOConfig(
            kl_estimator="k3",
            kl_target=0.1,
            value_clip=0.2,
            entropy_coef=0.01,
            reward_scale=True,
            target_kl=0.05,
            schedule="cosine",
            adam_betas=(0.9, 0.95),
        )
        config = TrainConfig(ppo=ppo)
        saved = json.loads(json.dumps(dataclasses.asdict(config)))
        assert from_dict(TrainConfig, saved) == config


def test_a_run_with_every_option_resumes_bitwise(tmp_path: Path) -> None:
    """The price and the spread are saved with the weights (figure R2)."""
    ppo = PPOConfig(
        warmup_steps=0,
        epochs=2,
        minibatches=2,
        kl_estimator="full_ref_policy",
        kl_target=0.01,
        reward_scale=True,
        entropy_coef=0.01,
        value_clip=0.2,
        target_kl=0.1,
        schedule="cosine",
    )
    config = TrainConfig(steps=3, game=GameConfig(num_turns=2), ppo=ppo)
    ends = []
    for cut in (False, True):
        _, learner = experiment.build(config)
        logged = []
        for step in range(3):
            if cut and step == 2:
                experiment.save_checkpoint(tmp_path, step, learner)
                _, learner = experiment.build(config)
                assert experiment.load_checkpoint(tmp_path, learner) == 2
            debates = debates_of(config.game, 3)
            asked = experiment.questions_of(config.game, "train")[3 * step : 3 * step + 3]
            _, metrics = train_step(learner, debates, asked, config, seed=step)
            logged.append(metrics)
        weights = [p.detach().clone() for p in learner.parameter_names()]
        ends.append((weights, logged, learner.controls()))
    assert all(map(torch.equal, ends[0][0], ends[1][0]))
    assert ends[0][1] == ends[1][1]
    assert ends[0][2] == ends[1][2]
    assert ends[0][2]["kl_coef"] != ppo.kl_coef
    assert ends[0][2]["spread"]["count"] == 3 * 3 * 4
    saved = checkpoints.latest(tmp_path / "checkpoints")
    assert saved is not None
    assert "controls" in checkpoints.load_json(saved / "optimizer.json")
