"""The options of PPO's loss and step: each does what it says, and is off by default."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ppo_cases import (
    PPO,
    TEMPERATURE,
    gradients_of,
    make_batch,
    make_learner,
    one_step,
    one_update,
)

from maporl_agents.algorithms.maporl import evaluate_tokens, train_step
from maporl_agents.config import GameConfig, PPOConfig, TrainConfig, from_dict
from maporl_agents.records import checkpoint_folder
from maporl_agents.training import experiment
from maporl_agents.training.make_game import debates_of, questions_of
from maporl_agents.update.token_logprobs import score_tokens

EVERY_OPTION: dict[str, Any] = {
    "kl_estimator": "full_ref_policy",
    "kl_target": 0.01,
    "reward_scale": True,
    "entropy_coef": 0.01,
    "value_clip": 0.2,
    "target_kl": 0.1,
    "schedule": "cosine",
}


class TestLossOptions:
    def test_entropy_adds_its_own_gradient(self, checkpoint) -> None:
        """d/dw [loss - c * mean entropy per policy], the entropy taken from all logits."""
        learner = make_learner(checkpoint)
        batch = make_batch(learner.team)
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
        experience = evaluate_tokens(learner.team, make_batch(learner.team), ppo, TEMPERATURE)
        experience = replace(experience, advantages=torch.zeros_like(experience.advantages))
        before = one_update(learner, experience, TEMPERATURE)["entropy"]
        assert one_update(learner, experience, TEMPERATURE)["entropy"] > before

    def test_the_logged_entropy_is_the_same_with_and_without(self, checkpoint) -> None:
        logged = []
        for coef in (0.0, 0.5):
            learner = make_learner(checkpoint, replace(PPO, entropy_coef=coef))
            experience = evaluate_tokens(
                learner.team, make_batch(learner.team), learner.ppo, TEMPERATURE
            )
            logged.append(one_update(learner, experience, TEMPERATURE)["entropy"])
        assert logged[0] == logged[1]

    def test_pieces_change_nothing_with_every_option(self, checkpoint) -> None:
        """Failure A20 for the options too."""
        ppo = replace(PPO, entropy_coef=0.4, value_clip=0.05)
        learner = make_learner(checkpoint, ppo)
        experience = evaluate_tokens(learner.team, make_batch(learner.team), ppo, TEMPERATURE)
        whole = gradients_of(learner, experience)
        for size in (1, 40):
            learner.ppo = replace(ppo, micro_tokens=size)
            for one, other in zip(gradients_of(learner, experience), whole, strict=True):
                torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)

    def test_value_clip_holds_values_back(self, checkpoint) -> None:
        """Old values moved out of reach: the clipped error is constant, so no critic learns."""
        learner = make_learner(checkpoint, replace(PPO, value_clip=1e-3))
        experience = evaluate_tokens(learner.team, make_batch(learner.team), PPO, TEMPERATURE)
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
        ppo = replace(PPO, epochs=4, minibatches=2, target_kl=1e-3)
        learner = make_learner(checkpoint, ppo)
        metrics = one_step(learner)
        # The first minibatch begins at ratio 1, the second after a step: it is the last.
        assert metrics["updates"] == 2
        assert metrics["skipped_minibatches"] == 6

    def test_a_wide_limit_changes_nothing(self, checkpoint) -> None:
        weights = []
        for target in (None, 1e9):
            learner = make_learner(checkpoint, replace(PPO, epochs=2, target_kl=target))
            metrics = one_step(learner)
            assert metrics.get("skipped_minibatches", 0) == 0
            weights.append([p.detach().clone() for p in learner.parameter_names()])
        assert all(map(torch.equal, *weights))


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

    def test_a_coefficient_of_zero_cannot_adapt(self) -> None:
        with pytest.raises(ValueError, match="kl_coef must be above 0"):
            PPOConfig(kl_coef=0.0, kl_target=0.1)

    def test_all_survive_json(self) -> None:
        config = TrainConfig(ppo=PPOConfig(**EVERY_OPTION, adam_betas=(0.9, 0.95)))
        saved = json.loads(json.dumps(dataclasses.asdict(config)))
        assert from_dict(TrainConfig, saved) == config


@pytest.mark.thorough
def test_a_run_with_every_option_resumes_bitwise(tmp_path: Path) -> None:
    """The KL coefficient and the spread of rewards are saved with the weights (figure R2)."""
    ppo = PPOConfig(**EVERY_OPTION, warmup_steps=0, epochs=2, minibatches=2)
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
            asked = questions_of(config.game, "train")[3 * step : 3 * step + 3]
            _, metrics = train_step(learner, debates, asked, config, seed=step)
            logged.append(metrics)
        weights = [p.detach().clone() for p in learner.parameter_names()]
        ends.append((weights, logged, learner.controls()))
    assert all(map(torch.equal, ends[0][0], ends[1][0]))
    assert ends[0][1] == ends[1][1]
    assert ends[0][2] == ends[1][2]
    assert ends[0][2]["kl_coef"] != ppo.kl_coef
    assert ends[0][2]["spread"]["count"] == 3 * 3 * 4
    saved = checkpoint_folder.latest(tmp_path / "checkpoints")
    assert saved is not None
    assert "controls" in checkpoint_folder.load_json(saved / "optimizer.json")
