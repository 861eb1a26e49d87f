"""KL and entropy in MAGRPO, IAC and GRPO: in the loss, in the reward, and off by default."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from made_trees import SAMPLING, asked, joint_debates
from miniatures import Checkpoint, completion, load_team, stir, weights
from torch import Tensor

from maporl_agents.algorithms import iac, magrpo
from maporl_agents.config import IACConfig, IACSettings, MAGRPOConfig, MAGRPOSettings
from maporl_agents.losses import kl_estimate
from maporl_agents.models.team import Team
from maporl_agents.seeding import seed_of
from maporl_agents.trees.sample_tree import grow_trees
from maporl_agents.types import Experience
from maporl_agents.update.batching import Row, batch_of
from maporl_agents.update.gradient_accumulation import accumulate
from maporl_agents.update.objective import Objective, message_kl
from maporl_agents.update.optimiser import PolicyLearner
from maporl_agents.update.token_logprobs import score_tokens


def moved_team(checkpoint: Checkpoint, **options: Any) -> Team:
    """Return a team in float64 that has left its reference policy."""
    team = load_team(checkpoint("llama"), double=True, **options)
    stir(team)
    team.refresh()
    return team


def experience_of(team: Team) -> Experience:
    """Return two completions per agent, of 3 and 1 tokens, without advantages."""
    rows = [
        Row((1, 2, 3), completion(ids), f"agent_{seat}", 0, 0, seat, 0.0)
        for seat in range(2)
        for ids in ((4, 5, 6), (7,))
    ]
    return magrpo.evaluate_tokens(team, batch_of(team, rows), micro_tokens=8192, temperature=1.0)


def gradients(team: Team) -> list[Tensor]:
    """Return the gradient of every trained parameter, and forget it."""
    found = []
    for named in team.trainable().values():
        for parameter in named.values():
            found.append(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
            parameter.grad = None
    return found


def gradient_of(team: Team, objective: Objective) -> list[Tensor]:
    experience = experience_of(team)

    def loss(part: Experience, counts: Any) -> Any:
        return objective.loss(objective.score(team, part.batch, 1.0), part, counts)

    accumulate(experience, loss, 8)
    return gradients(team)


def full_logits(team: Team, prompt: tuple[int, ...], ids: tuple[int, ...], policy: str) -> Any:
    """Return logits before each id of the policy and of the reference policy, by whole passes."""
    base = team.base_of(policy)
    whole = torch.tensor([*prompt, *ids])
    places = slice(len(prompt) - 1, len(prompt) + len(ids) - 1)
    own = base.plain_logits(whole, policy)[places]
    return own, base.plain_logits(whole, policy, reference=True)[places].detach()


@pytest.mark.parametrize("estimator", ["k2", "k3", "exact"])
@pytest.mark.parametrize("reduction", ["token", "sequence", "constant"])
def test_the_gradient_of_the_kl_in_the_loss(
    checkpoint: Checkpoint, estimator: Any, reduction: Any
) -> None:
    """Of KL alone, advantages 0: by autograd of the definition, message by message."""
    team = moved_team(checkpoint, num_turns=1)
    found = gradient_of(
        team, Objective(reduction, kl_coef=0.3, kl_estimator=estimator, max_tokens=5)
    )
    total = torch.zeros((), dtype=torch.float64)
    weight = {"token": [1 / 4, 1 / 4], "sequence": [1 / 6, 1 / 2], "constant": [1 / 10, 1 / 10]}
    for policy in ("agent_0", "agent_1"):
        for ids, share in zip([(4, 5, 6), (7,)], weight[reduction], strict=True):
            own, ref = full_logits(team, (1, 2, 3), ids, policy)
            logs, frozen = own.log_softmax(-1), ref.log_softmax(-1)
            if estimator == "exact":
                kl = (logs.exp() * (logs - frozen)).sum(-1)
            else:
                chosen = torch.tensor(ids)[:, None]
                kl = kl_estimate(logs.gather(1, chosen), frozen.gather(1, chosen), estimator)
            total = total + 0.3 * share * kl.sum()
    total.backward()
    for ours, theirs in zip(found, gradients(team), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-8)
    assert any(gradient.abs().max() > 1e-4 for gradient in found)


def test_the_gradient_of_the_entropy(checkpoint: Checkpoint) -> None:
    team = moved_team(checkpoint, num_turns=1)
    found = gradient_of(team, Objective("token", entropy_coef=0.2))
    total = torch.zeros((), dtype=torch.float64)
    for policy in ("agent_0", "agent_1"):
        for ids in ((4, 5, 6), (7,)):
            logs = full_logits(team, (1, 2, 3), ids, policy)[0].log_softmax(-1)
            total = total + 0.2 * (logs.exp() * logs).sum() / 4
    total.backward()
    for ours, theirs in zip(found, gradients(team), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "exact"])
def test_the_kl_of_a_message_is_the_sum_over_its_tokens(
    checkpoint: Checkpoint, estimator: Any
) -> None:
    team = moved_team(checkpoint, num_turns=1)
    experience = experience_of(team)
    options = {"estimator": estimator, "temperature": 1.0, "micro_tokens": 5}
    found = message_kl(
        team, experience.batch, experience.logprobs, experience.ref_logprobs, **options
    )
    expected = []
    for policy in ("agent_0", "agent_1"):
        for ids in ((4, 5, 6), (7,)):
            own, ref = (x.log_softmax(-1) for x in full_logits(team, (1, 2, 3), ids, policy))
            if estimator == "exact":
                expected.append(float((own.exp() * (own - ref)).detach().sum()))
            else:
                chosen = torch.tensor(ids)[:, None]
                kl = kl_estimate(own.gather(1, chosen), ref.gather(1, chosen), estimator)
                expected.append(float(kl.detach().sum()))
    assert found.tolist() == pytest.approx(expected, abs=1e-9)
    assert not torch.equal(found, torch.zeros_like(found))


def test_at_the_reference_the_exact_kl_is_0(checkpoint: Checkpoint) -> None:
    team = load_team(checkpoint("llama"), num_turns=1)
    experience = experience_of(team)
    scores = score_tokens(team, experience.batch, temperature=0.7, with_kl=True)
    assert scores.kl is not None
    assert not scores.kl.any()


# --- In the reward -------------------------------------------------------------


def test_magrpo_takes_the_joint_kl_off_the_joint_reward(checkpoint: Checkpoint) -> None:
    """Crossed: a completion has the mean advantage of the joint actions that hold it."""
    team = moved_team(checkpoint, num_turns=1)
    settings = MAGRPOSettings(
        group_size=2, joining="cross", kl_coef=0.3, kl_estimator="k1", kl_place="reward"
    )
    trees = grow_trees(
        team, joint_debates(), asked(2), SAMPLING, [2], joining="cross", seed=seed_of(0, "x")
    )
    rows, _ = magrpo.credit_rows(team, trees, settings)
    options = {"micro_tokens": 8192, "temperature": 1.0}
    experience = magrpo.evaluate_tokens(team, batch_of(team, rows), **options)
    given = [list(node.rewards) for node in trees]
    found = magrpo.rows_by_log_ratios(team, trees, experience, settings, 1.0)
    assert [list(node.rewards) for node in trees] == given  # what is logged stays

    log_ratios = (experience.logprobs - experience.ref_logprobs).sum(1).tolist()
    expected = []
    for index, node in enumerate(trees):
        first, second = (log_ratios[4 * index + 2 * seat :][:2] for seat in range(2))
        left = {
            (g, h): float(node.rewards[2 * g + h] or 0.0) - 0.3 * (first[g] + second[h])
            for g in range(2)
            for h in range(2)
        }
        mean = sum(left.values()) / 4
        expected += [(left[g, 0] + left[g, 1]) / 2 - mean for g in range(2)]
        expected += [(left[0, h] + left[1, h]) / 2 - mean for h in range(2)]
    assert [row.reward for row in found] == pytest.approx(expected, abs=1e-9)


def test_iac_takes_the_kl_of_a_message_off_its_reward(checkpoint: Checkpoint) -> None:
    team = moved_team(checkpoint, num_turns=1)
    experience = experience_of(team)
    settings = IACSettings(kl_coef=0.3, kl_estimator="k1", kl_place="reward")
    batch = iac.with_kl_in_reward(team, experience, settings, 1.0)
    log_ratios = (experience.logprobs - experience.ref_logprobs).sum(1)
    assert batch.rewards.tolist() == pytest.approx((-0.3 * log_ratios).tolist(), abs=1e-6)
    usual = iac.with_kl_in_reward(team, experience, replace(settings, kl_coef=0.0), 1.0)
    assert usual is experience.batch


# --- Whole steps ---------------------------------------------------------------

TERMS: list[dict[str, Any]] = [
    {"kl_coef": 0.5},
    {"kl_coef": 0.5, "kl_estimator": "exact"},
    {"kl_coef": 0.5, "kl_place": "reward"},
    {"entropy_coef": 0.5},
]


def stepped(checkpoint: Checkpoint, scheme: str, options: dict[str, Any]) -> dict[str, Tensor]:
    team = load_team(checkpoint("llama"), num_turns=1)
    stir(team)
    team.refresh()
    game = joint_debates()
    if scheme == "magrpo":
        settings = MAGRPOSettings(group_size=2, **options)
        learner = PolicyLearner(team, settings, steps=4)
        config = MAGRPOConfig(sampling=SAMPLING, magrpo=settings)
        magrpo.train_step(learner, game, asked(2), config, seed=1)
    else:
        own = IACSettings(**options)
        learner = PolicyLearner(team, own, 4, critic_learning_rate=own.critic_learning_rate)
        iac.train_step(learner, game, asked(2), IACConfig(sampling=SAMPLING, iac=own), seed=1)
    return weights(team)


@pytest.mark.thorough
@pytest.mark.parametrize("scheme", ["magrpo", "iac"])
def test_each_term_changes_the_update(checkpoint: Checkpoint, scheme: str) -> None:
    usual = stepped(checkpoint, scheme, {})
    for options in TERMS:
        after = stepped(checkpoint, scheme, options)
        assert any(not torch.equal(after[name], usual[name]) for name in usual), options


@pytest.mark.thorough
def test_a_strong_kl_brings_a_policy_back(checkpoint: Checkpoint) -> None:
    """Advantages 0: only the exact KL is minimised, and it falls."""
    team = moved_team(checkpoint, num_turns=1)
    settings = MAGRPOSettings(kl_coef=1.0, kl_estimator="exact", learning_rate=1e-2, warmup_steps=0)
    learner = PolicyLearner(team, settings, 100)
    loss = partial(magrpo.loss_of, team=team, settings=settings, temperature=1.0)
    found = []
    for _ in range(20):
        experience = experience_of(team)
        scores = score_tokens(team, experience.batch, temperature=1.0, with_kl=True)
        assert scores.kl is not None
        found.append(float(scores.kl.detach().sum()))
        accumulate(experience, loss, 8192)
        learner.apply_gradients()
    assert found[-1] < 0.2 * found[0]


@pytest.mark.parametrize("settings", [MAGRPOSettings, IACSettings])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kl_coef": 0.1, "kl_estimator": "k1"}, "mean gradient of 0 in the loss"),
        ({"kl_estimator": "k4"}, "choose one of k1, k2, k3, exact"),
        ({"kl_place": "both"}, "choose one of loss, reward"),
        ({"entropy_coef": -0.1}, "entropy_coef must be"),
        ({"kl_coef": float("inf")}, "kl_coef must be"),
    ],
)
def test_wrong_settings_are_refused(settings: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        settings(**options)


def test_both_are_off_by_default() -> None:
    for settings in (MAGRPOSettings(), IACSettings()):
        assert (settings.kl_coef, settings.entropy_coef) == (0.0, 0.0)
