"""MAGRPO's update: against GRPO written out, by hand, and what each option changes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from made_trees import LENGTHS, SAMPLING, asked, joint_debates
from miniatures import completion, load_team, weights

from maporl_agents.algorithms.magrpo import evaluate_tokens, loss_of, objective_of, train_step
from maporl_agents.config import MAGRPOConfig, MAGRPOSettings, Sampling
from maporl_agents.losses import policy_loss
from maporl_agents.measure.step_metrics import Metrics
from maporl_agents.models.team import Team
from maporl_agents.play.rollout import play
from maporl_agents.types import Experience, TokenScores
from maporl_agents.update.batching import Row, batch_of, collate
from maporl_agents.update.gradient_accumulation import accumulate, apply
from maporl_agents.update.optimiser import PolicyLearner
from maporl_agents.update.token_logprobs import score_tokens
from maporl_env.batched import BatchedDebate
from maporl_env.config import DebateConfig


def learner_of(team: Team, settings: MAGRPOSettings) -> PolicyLearner:
    return PolicyLearner(team, settings, steps=4)


def one_step(
    team: Team,
    settings: MAGRPOSettings,
    game: BatchedDebate,
    questions: int,
    sampling: Sampling = SAMPLING,
) -> Metrics:
    """Take one training step on made-up questions; return its metrics."""
    config = MAGRPOConfig(sampling=sampling, magrpo=settings)
    return train_step(learner_of(team, settings), game, asked(questions), config, seed=1)[1]


@pytest.mark.parametrize("clip_coef", [None, 0.2])
def test_one_agent_and_one_turn_is_grpo(
    checkpoint: Callable[..., Path], clip_coef: float | None
) -> None:
    """GRPO without scaling, written out: sample a group, take its mean off, one PPO-like step."""
    settings = MAGRPOSettings(group_size=4, ratio=True, clip_coef=clip_coef, length="token")
    questions = asked(3)
    start, ours, theirs = (
        load_team(checkpoint("llama"), num_agents=1, num_turns=1, double=True) for _ in range(3)
    )
    learner = learner_of(ours, settings)
    game = joint_debates(num_agents=1)
    for step in range(2):
        train_step(
            learner, game, questions, MAGRPOConfig(sampling=SAMPLING, magrpo=settings), seed=step
        )

    other = learner_of(theirs, settings)
    for step in range(2):
        copies = [question for question in questions for _ in range(4)]
        played = play(theirs, game_of_one(), copies, SAMPLING, seed=step)
        batch, _ = collate(theirs, played)
        rewards = torch.tensor([float(r.rewards[0, 0]) for r in played], dtype=torch.float64)
        centred = (rewards.view(3, 4) - rewards.view(3, 4).mean(1, keepdim=True)).flatten()
        with torch.no_grad():
            old = score_tokens(theirs, batch, temperature=1.0).logprobs
        new = score_tokens(theirs, batch, temperature=1.0).logprobs
        gain = centred[:, None].expand_as(batch.mask)
        bound = math.inf if clip_coef is None else clip_coef
        ratio = (new - old).exp()
        tokens = torch.minimum(ratio * gain, ratio.clamp(1 - bound, 1 + bound) * gain)
        loss = -torch.where(batch.mask, tokens, 0.0).sum() / batch.mask.sum()
        loss.backward()
        other.apply_gradients()
        other.schedule.step()
    mine, same = weights(ours), weights(theirs)
    assert any((mine[name] != before).any() for name, before in weights(start).items())
    for name in mine:  # a step is 1e-3; advantages are float32 in a batch, and AdamW divides
        torch.testing.assert_close(mine[name], same[name], atol=1e-6, rtol=1e-6)


def game_of_one() -> BatchedDebate:
    return BatchedDebate(
        DebateConfig(task="shopping", num_agents=1, num_turns=1, protocol="debate", **LENGTHS), 12
    )


def batch_for(team: Team) -> Experience:
    """Two completions per agent, of 3 and 1 tokens, advantages +1 and -.5."""
    rows = [
        Row((1, 2, 3), completion(ids), f"agent_{seat}", 0, 0, seat, advantage)
        for seat in range(2)
        for ids, advantage in (((4, 5, 6), 1.0), ((7,), -0.5))
    ]
    return evaluate_tokens(team, batch_of(team, rows), micro_tokens=8192, temperature=1.0)


def test_the_gradient_is_that_of_the_summed_log_probabilities(
    checkpoint: Callable[..., Path],
) -> None:
    """-1/N sum of adv * log pi(whole completion): the last token has its share, padding none."""
    team = load_team(checkpoint("llama"), num_turns=1, double=True)
    experience = batch_for(team)
    accumulate(
        experience, partial(loss_of, team=team, settings=MAGRPOSettings(), temperature=1.0), 8
    )
    ours = {}
    for named in team.trainable().values():
        for parameter in named.values():
            ours[parameter], parameter.grad = parameter.grad, None
    logprobs = score_tokens(team, experience.batch, temperature=1.0).logprobs
    advantages = torch.tensor([1.0, -0.5, 1.0, -0.5], dtype=torch.float64)
    whole = logprobs[:, 0] + torch.where(experience.batch.mask[:, 1], logprobs[:, 1:].sum(1), 0.0)
    (-(advantages * whole).sum() / 2).backward()
    for named in team.trainable().values():
        for parameter in named.values():
            assert torch.allclose(ours[parameter], parameter.grad, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "losses", "clipped"),
    [
        # agent_0: -(3 x 1 - .5) / 2; agent_1 the same
        ({}, (-1.25, -1.25), (0, 0)),
        # -(1.5 + 1.1 + .5 - .5 x .7) / 2 and -(1 + 1.3 + .9 - .5 x 2) / 2
        ({"ratio": True}, (-1.375, -1.1), (0, 0)),
        # -(1.2 + 1.1 + .5 - .5 x .8) / 2 and -(1 + 1.2 + .9 - .5 x 2) / 2; outside .8 to 1.2 lie
        # 1.5, .5, .7 of four tokens, and 1.3, 2 of four
        ({"ratio": True, "clip_coef": 0.2}, (-1.2, -1.05), (0.75, 0.5)),
    ],
)
def test_the_surrogate_by_hand(
    checkpoint: Callable[..., Path],
    options: dict[str, Any],
    losses: tuple[float, float],
    clipped: tuple[float, float],
) -> None:
    """The ratios of two messages per agent, of 3 and 1 tokens, advantages +1 and -.5."""
    team = load_team(checkpoint("llama"), num_turns=1, double=True)
    experience = batch_for(team)
    ratios = torch.tensor([[1.5, 1.1, 0.5], [0.7, 1, 1], [1.0, 1.3, 0.9], [2.0, 1, 1]])
    noise = ratios.double().log()
    now = experience.logprobs.clone().requires_grad_()
    scores = TokenScores(now, torch.zeros_like(now), torch.zeros_like(now))
    part = replace(experience, logprobs=experience.logprobs - noise)
    counts = {"agent_0": (4, 2), "agent_1": (4, 2)}
    objective = objective_of(MAGRPOSettings(**options))
    total, statistics = objective.loss(scores, part, counts)
    found = [statistics[policy] for policy in counts]
    assert [each["loss/policy"] for each in found] == pytest.approx(losses, abs=1e-6)
    assert total.item() == pytest.approx(sum(losses), abs=1e-6)
    assert [each["clip_frac"] for each in found] == pytest.approx(clipped)


def test_the_last_token_is_trained_and_padding_is_not(checkpoint: Callable[..., Path]) -> None:
    """Defects 1 and 2 of the library, by the derivative of the loss by each log-probability."""
    team = load_team(checkpoint("llama"), num_turns=1)
    experience = batch_for(team)
    mask = experience.batch.mask
    logprobs = experience.logprobs.clone().requires_grad_()
    loss, _ = policy_loss(
        logprobs, logprobs.detach(), experience.advantages, mask, clip_coef=math.inf,
        reduction="constant", max_tokens=1, num_sequences=4,
    )  # fmt: skip
    loss.backward()
    expected = torch.tensor([[-1.0] * 3, [0.5, 0, 0], [-1.0] * 3, [0.5, 0, 0]]) / 4
    assert torch.equal(logprobs.grad, expected)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
def test_what_is_scored_is_what_was_sampled(
    checkpoint: Callable[..., Path], temperature: float
) -> None:
    """Defect 3: one distribution, so that the ratio is 1 before the first update."""
    team = load_team(checkpoint("llama"), num_turns=1)
    settings = MAGRPOSettings(group_size=2, ratio=True, clip_coef=0.2)
    sampling = Sampling(max_new_tokens=6, temperature=temperature)
    metrics = one_step(team, settings, joint_debates(), 2, sampling)
    assert metrics["sampler_mismatch"] < 1e-4
    assert metrics["clip_frac"] == 0
    assert abs(metrics["approx_kl"]) < 1e-9


@pytest.mark.parametrize("options", [
    {}, {"comparison": "leave_one_out"}, {"comparison": "standardised"}, {"comparison": "raw"},
    {"joining": "cross"}, {"joining": "cross", "credit": "sum"}, {"length": "sequence"},
    {"ratio": True, "clip_coef": 0.1, "epochs": 2, "minibatches": 2}, {"turn_gamma": 0.3},
])  # fmt: skip
def test_options_change_the_update(
    checkpoint: Callable[..., Path], options: dict[str, Any]
) -> None:
    """Each option moves the weights, to another place than the defaults do."""
    base = MAGRPOSettings(group_size=2)

    def moved(settings: MAGRPOSettings) -> dict[str, torch.Tensor]:
        team = load_team(checkpoint("llama"), num_turns=2)
        one_step(team, settings, joint_debates(2), 2)
        return weights(team)

    start = weights(load_team(checkpoint("llama"), num_turns=2))
    after = moved(replace(base, **options))
    assert any(not torch.equal(after[name], start[name]) for name in start)
    if options:
        usual = moved(base)
        assert any(not torch.equal(after[name], usual[name]) for name in start)


def test_micro_batches_change_nothing_but_memory(checkpoint: Callable[..., Path]) -> None:
    found = []
    for size in (1, 8192):
        team = load_team(checkpoint("llama"), num_turns=1, double=True)
        settings = MAGRPOSettings(group_size=2, micro_tokens=size)
        one_step(team, settings, joint_debates(), 3)
        found.append(weights(team))
    for name, one in found[0].items():
        assert torch.allclose(one, found[1][name], atol=1e-9), name


def test_equal_returns_teach_nothing(checkpoint: Callable[..., Path]) -> None:
    team = load_team(checkpoint("llama"), num_turns=1)
    before = weights(team)
    settings = MAGRPOSettings(group_size=3)
    game = joint_debates(verifier=lambda _, texts: [0.1] * len(texts))
    metrics = one_step(team, settings, game, 2)
    assert (metrics["zero_spread"], metrics["advantage"]) == (1.0, 0.0)
    assert metrics["joint_return"] == pytest.approx(0.1)
    assert all(torch.equal(before[name], after) for name, after in weights(team).items())


def test_without_any_score_nothing_is_learnt_and_all_is_counted(
    checkpoint: Callable[..., Path],
) -> None:
    team = load_team(checkpoint("llama"), num_turns=1)
    settings = MAGRPOSettings(group_size=3)
    game = joint_debates(verifier=lambda _, texts: [None] * len(texts))
    metrics = one_step(team, settings, game, 2)
    assert (metrics["unscored_messages"], metrics["updates"]) == (12, 0)
    assert not metrics.keys() & {"joint_return", "reward", "advantage", "kl"}


def test_a_loss_that_is_not_finite_stops_the_run(checkpoint: Callable[..., Path]) -> None:
    """Defect 6: it does not become a constant, and no parameter moves."""
    team = load_team(checkpoint("llama"), num_turns=1)
    settings = MAGRPOSettings()
    experience = batch_for(team)
    before = weights(team)
    broken = replace(experience, advantages=experience.advantages * math.nan)
    loss = partial(loss_of, team=team, settings=settings, temperature=1.0)
    with pytest.raises(FloatingPointError, match="not made"):
        apply(learner_of(team, settings), broken, loss, micro_tokens=8192)
    assert all(torch.equal(before[name], after) for name, after in weights(team).items())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"joining": "crossed"}, "choose one of aligned, cross"),  # defect 8: one name everywhere
        (
            {"comparison": "max"},
            "choose one of mean, leave_one_out, standardised, raw, preferences",
        ),
        ({"length": "long"}, "choose one of sum, sequence, token"),
        ({"group_size": 1}, "group_size must be at least 2"),
        ({"turn_gamma": 1.5}, "turn_gamma must be in"),
        ({"epochs": 2}, "need the ratio"),
        ({"clip_coef": 0.2}, "need the ratio"),
        ({"clip_coef": -1.0, "ratio": True}, "clip_coef must be a number above 0"),
        ({"credit": "sum"}, "is for joining='cross'"),
        ({"comparison": "preferences", "length": "token"}, "is DPO on summed log-probabilities"),
        ({"comparison": "preferences", "ratio": True}, "one update per batch"),
        ({"preference_beta": 0.0}, "preference_beta must be a number above 0"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MAGRPOSettings(**options)
