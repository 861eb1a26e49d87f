"""Importance weights of served tokens: closed forms, masks, and where every loss takes them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ppo_cases import PPO, TEMPERATURE, make_batch, make_learner

from maporl_agents.algorithms import maporl
from maporl_agents.importance import importance_weights, policy_advantages
from maporl_agents.measure.step_metrics import experience_metrics
from maporl_agents.types import Experience
from maporl_agents.update.gradient_accumulation import accumulate
from maporl_agents.update.objective import Objective
from maporl_agents.update.token_tables import token_tables


def test_weights_by_hand_one_of_them_capped() -> None:
    """exp(-1 + 1) = 1; exp(-1 + 1.5) = 1.6487; exp(-1 + 3) = 7.39 is cut to 2; masked: 0."""
    trainer = torch.tensor([[-1.0, -1.0, -1.0, math.nan]])
    sampler = torch.tensor([[-1.0, -1.5, -3.0, math.inf]])
    mask = torch.tensor([[True, True, True, False]])
    found = importance_weights(trainer, sampler, mask)
    assert found.tolist() == [pytest.approx([1.0, math.exp(0.5), 2.0, 0.0])]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-20, 0), min_size=1, max_size=6), st.floats(-3, 3))
def test_a_weight_is_the_ratio_up_to_the_bound(sampled: list[float], apart: float) -> None:
    sampler = torch.tensor([sampled], dtype=torch.float64)
    found = importance_weights(sampler + apart, sampler, torch.ones_like(sampler, dtype=torch.bool))
    assert found.tolist()[0] == pytest.approx([min(math.exp(apart), 2.0)] * len(sampled))


def experience(checkpoint, apart: float) -> tuple[maporl.PPOLearner, Experience]:
    """Return messages of a server whose log-probabilities are off by a number of nats."""
    learner = make_learner(checkpoint, tuning="lora")
    found = maporl.evaluate_tokens(learner.team, make_batch(learner.team), PPO, TEMPERATURE)
    batch = replace(found.batch, served=True, sampled_logprobs=found.logprobs - apart)
    return learner, replace(found, batch=batch)


@pytest.mark.parametrize("apart", [0.0, 0.3, -0.4, 2.0])
def test_a_served_token_weighs_by_its_ratio_in_every_loss(checkpoint, apart: float) -> None:
    learner, served = experience(checkpoint, apart)
    weight = min(math.exp(apart), 2.0)
    plain = replace(
        served,
        batch=replace(served.batch, served=False),
        advantages=served.advantages * weight,
    )
    objective = Objective("token", kl_coef=0.1)

    def ppo(part: Experience, counts) -> object:
        return maporl.loss_of(learner, part, counts, temperature=TEMPERATURE)

    def shared(part: Experience, counts) -> object:
        scores = objective.score(learner.team, part.batch, TEMPERATURE)
        return objective.loss(scores, part, counts)

    for loss in (ppo, shared):
        gradients = []
        for part in (served, plain):
            learner.optimizer.zero_grad(set_to_none=True)
            accumulate(part, loss, 10**6)  # type: ignore[arg-type]
            gradients.append([p.grad.clone() for named in learner.trained.values() for p in named])
        assert all(
            torch.allclose(one, two, atol=1e-6, rtol=1e-4)
            for one, two in zip(*gradients, strict=True)
        )


def test_local_advantages_are_left_as_they_are(checkpoint) -> None:
    _, served = experience(checkpoint, 1.0)
    local = replace(served, batch=replace(served.batch, served=False))
    assert policy_advantages(local) is local.advantages
    assert not torch.equal(policy_advantages(served), served.advantages)


def test_the_trainer_computes_the_log_probabilities_of_served_messages(checkpoint) -> None:
    """A local sampler's numbers are taken in float32; a server's never are."""
    learner, served = experience(checkpoint, 0.5)
    read = {"temperature": TEMPERATURE, "micro_tokens": 10**6, "sampled": True}
    tables = token_tables(learner.team, served.batch, **read)  # type: ignore[arg-type]
    assert torch.allclose(tables.logprobs, served.logprobs, atol=1e-5)
    assert bool(tables.rescored.all())
    assert tables.fault == 0.0


def test_metrics_say_how_far_servers_were_off(checkpoint) -> None:
    _, served = experience(checkpoint, 0.25)
    found = experience_metrics(served)
    assert found["importance_weight"] == pytest.approx(math.exp(0.25), rel=1e-5)
    assert found["importance_capped"] == 0.0
    assert found["sampler_mismatch"] == pytest.approx(0.25, rel=1e-4)
    assert "ratio_mismatch" not in found  # a lag is no fault of arithmetic
    _, far = experience(checkpoint, 1.0)
    assert experience_metrics(far)["importance_capped"] == 1.0


def test_a_selection_stays_served(checkpoint) -> None:
    _, served = experience(checkpoint, 0.5)
    assert served.select(torch.tensor([0, 2])).batch.served
