"""MAGRPO by preferences (MADPO): the gradient of DPO on pairs of joint answers."""

from __future__ import annotations

import math
from functools import partial
from itertools import permutations
from typing import Any

import pytest
import torch
from made_trees import SAMPLING, asked, joint_debates
from masked_cases import assert_close, fp64
from miniatures import Checkpoint, load_team, stir, weights

from maporl_agents.advantages import preference_advantages
from maporl_agents.algorithms import magrpo
from maporl_agents.config import Joining, MAGRPOConfig, MAGRPOSettings
from maporl_agents.losses import preference_loss
from maporl_agents.trees.sample_tree import grow_trees
from maporl_agents.update.batching import batch_of
from maporl_agents.update.gradient_accumulation import accumulate
from maporl_agents.update.optimiser import PolicyLearner
from maporl_agents.update.token_logprobs import score_tokens


def test_preference_advantages_by_hand() -> None:
    """Returns 1, 0, 0, beta .5: two pairs, of z = .5 (2 - 1) and .5 (2 - 4)."""
    first, second = (1 / (1 + math.exp(z)) for z in (0.5, -1.0))
    found = preference_advantages(fp64([1, 0, 0]), fp64([2, 1, 4]), beta=0.5)
    scale = 0.5 * 3 / 2
    assert_close(found, [scale * (first + second), -scale * first, -scale * second])


def test_equal_returns_prefer_nothing() -> None:
    assert not preference_advantages(fp64([1, 1]), fp64([3, 0]), beta=0.1).any()
    assert preference_advantages(fp64([]), fp64([]), beta=0.1).shape == (0,)
    with pytest.raises(ValueError, match=r"beta=0\.0"):
        preference_advantages(fp64([1]), fp64([1]), beta=0.0)
    with pytest.raises(ValueError, match="log_ratios"):
        preference_advantages(fp64([1]), fp64([1, 2]), beta=0.1)


def test_they_are_the_gradient_of_the_mean_dpo_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    returns = fp64([0.2, 0.9, 0.2, 0.5])
    logs = torch.randn(4, generator=generator, dtype=torch.float64).requires_grad_()
    ref = torch.randn(4, generator=generator, dtype=torch.float64)
    pairs = [(i, j) for i, j in permutations(range(4), 2) if returns[i] > returns[j]]
    chosen, rejected = (torch.tensor(side) for side in zip(*pairs, strict=True))
    preference_loss(logs[chosen], logs[rejected], ref[chosen], ref[rejected], beta=0.7).backward()
    found = preference_advantages(returns, logs.detach() - ref, beta=0.7)
    assert_close(-found / 4, logs.grad)


@pytest.mark.parametrize("joining", ["aligned", "cross"])
def test_the_update_is_dpo_of_the_joint_policy(checkpoint: Checkpoint, joining: Joining) -> None:
    """By autograd of the loss over joint log-ratios, the sums over both agents."""
    team = load_team(checkpoint("llama"), num_turns=1, double=True)
    stir(team)
    team.refresh()
    settings = MAGRPOSettings(
        group_size=3, joining=joining, comparison="preferences", preference_beta=0.3
    )
    trees = grow_trees(team, joint_debates(), asked(2), SAMPLING, [3], joining=joining, seed=3)
    for node in trees:  # no two joint actions are equally good, and one has no score
        node.rewards = [0.1 * ((7 * j) % 10) for j in range(len(node.actions))]
    trees[0].rewards[1] = None
    rows, _ = magrpo.credit_rows(team, trees, settings)
    batch = batch_of(team, rows)
    experience = magrpo.evaluate_tokens(team, batch, micro_tokens=8192, temperature=1.0)
    credited = magrpo.rows_by_log_ratios(team, trees, experience, settings, 1.0)
    advantages = torch.tensor([row.reward for row in credited], dtype=torch.float64)
    experience = magrpo.with_rewards(experience, advantages)
    loss = partial(magrpo.loss_of, team=team, settings=settings, temperature=1.0)
    accumulate(experience, loss, 8192)
    owned = [p for named in team.trainable().values() for p in named.values()]
    found = [p.grad.clone() for p in owned if p.grad is not None]
    for parameter in owned:
        parameter.grad = None

    now = score_tokens(team, batch, temperature=1.0).logprobs.sum(1)
    log_ratios = now - experience.ref_logprobs.sum(1)
    place = {
        (row.episode, row.agent, row.completion.ids, row.prompt): i for i, row in enumerate(rows)
    }
    total = torch.zeros((), dtype=torch.float64)
    per_policy = len(rows) / 2
    for node in trees:
        joint = [
            sum(
                log_ratios[place[node.tree, r.agent, one.ids, r.prompt]]
                for r, one in zip(node.requests, node.said(j), strict=True)
            )
            if node.rewards[j] is not None
            else None
            for j in range(len(node.actions))
        ]
        scored = [j for j, value in enumerate(node.rewards) if value is not None]
        pairs = [(i, j) for i, j in permutations(scored, 2) if node.rewards[i] > node.rewards[j]]
        losses = [-torch.nn.functional.logsigmoid(0.3 * (joint[i] - joint[j])) for i, j in pairs]
        completions = sum(row.episode == node.tree for row in rows) / 2
        total = total + torch.stack(losses).mean() * completions / per_policy
    total.backward()
    if joining == "aligned":  # the model's norms are float32 inside
        for ours, parameter in zip(found, owned, strict=True):
            torch.testing.assert_close(ours, parameter.grad, atol=5e-6, rtol=1e-3)
    else:  # a node with an unscored joint action weighs its completions a little differently
        ours, theirs = (torch.cat([g.flatten() for g in one]) for one in
                        (found, [p.grad for p in owned]))  # fmt: skip
        assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0) > 0.95


@pytest.mark.thorough
def test_a_step_moves_the_agents_towards_the_better_joint_answers(checkpoint: Checkpoint) -> None:
    team = load_team(checkpoint("llama"), num_turns=1)
    settings = MAGRPOSettings(group_size=4, comparison="preferences", warmup_steps=0)
    learner = PolicyLearner(team, settings, steps=4)
    before = weights(team)
    config = MAGRPOConfig(sampling=SAMPLING, magrpo=settings)
    options: dict[str, Any] = {"seed": 1}
    _, metrics = magrpo.train_step(learner, joint_debates(), asked(2), config, **options)
    assert metrics["advantage"] > 0
    assert any(not torch.equal(before[name], after) for name, after in weights(team).items())
