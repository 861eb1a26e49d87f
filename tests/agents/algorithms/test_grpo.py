"""GRPO: against GRPO written out, each variant by hand, and what each option changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from made_trees import LENGTHS, SAMPLING, asked
from miniatures import Checkpoint, load_team, make_rollout, stir, weights
from refusals import refused
from torch import Tensor

from maporl_agents.algorithms.grpo import (
    GRPOLearner,
    check,
    evaluate_tokens,
    group_ids,
    train_step,
    with_baseline,
)
from maporl_agents.config import VARIANTS, GameConfig, GRPOConfig, GRPOSettings, Sampling
from maporl_agents.measure.step_metrics import Metrics
from maporl_agents.models.team import Team
from maporl_agents.play.rollout import play
from maporl_agents.records.storage import CheckpointError
from maporl_agents.types import TokenBatch
from maporl_agents.update.batching import collate
from maporl_agents.update.minibatch_epochs import minibatches
from maporl_agents.update.token_logprobs import score_tokens
from maporl_env.batched import BatchedDebate
from maporl_env.config import DebateConfig

SMALL: dict[str, Any] = {"group_size": 4, "minibatches": 1}


def debates(num_turns: int = 1, num_agents: int = 2, **options: Any) -> BatchedDebate:
    """Return debates in which longer texts have higher scores; room for fewer than a group."""
    given: dict[str, Any] = {"task": "shopping", "protocol": "debate"} | LENGTHS | options
    return BatchedDebate(DebateConfig(num_agents=num_agents, num_turns=num_turns, **given), 2)


def one_step(
    team: Team, settings: GRPOSettings, game: BatchedDebate, questions: int = 2, seed: int = 1
) -> Metrics:
    learner = GRPOLearner(team, settings, steps=4)
    config = GRPOConfig(sampling=SAMPLING, grpo=settings)
    return train_step(learner, game, asked(questions), config, seed=seed)[1]


# --- The twin ------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("kl_coef", [0.0, 0.04])
def test_one_agent_and_one_turn_is_grpo(checkpoint: Checkpoint, kl_coef: float) -> None:
    """GRPO written out: standardised rewards, clipped ratios, means over each completion, k3.

    A team that was moved from its reference, two steps; each batch gets two updates, so that the
    second one has ratios other than 1.
    """
    settings = GRPOSettings(group_size=4, minibatches=1, epochs=2, kl_coef=kl_coef, clip_coef=0.02)
    questions = asked(3)
    start, ours, theirs = (
        load_team(checkpoint("llama"), num_agents=1, num_turns=1, double=True) for _ in range(3)
    )
    for team in (start, ours, theirs):
        stir(team, scale=0.05)
        team.refresh()
    learner = GRPOLearner(ours, settings, steps=4)
    config = GRPOConfig(sampling=SAMPLING, grpo=settings)
    for step in range(2):
        train_step(learner, debates(num_agents=1), questions, config, seed=step)

    other = GRPOLearner(theirs, settings, steps=4)
    game = BatchedDebate(debates(num_agents=1).game, 12)
    for step in range(2):
        copies = [question for question in questions for _ in range(4)]
        played = play(theirs, game, copies, SAMPLING, seed=step)
        batch, _ = collate(theirs, played)
        rewards = batch.rewards.double().view(3, 4)
        spread = rewards.std(1, keepdim=True) + 1e-4
        gain = ((rewards - rewards.mean(1, keepdim=True)) / spread).view(12, 1)
        with torch.no_grad():
            old = score_tokens(theirs, batch, temperature=1.0).logprobs
            ref = score_tokens(theirs, batch, temperature=1.0, reference=True).logprobs
        for _ in range(2):
            new = score_tokens(theirs, batch, temperature=1.0).logprobs
            ratio = (new - old).exp()
            tokens = torch.minimum(ratio * gain, ratio.clamp(0.98, 1.2) * gain)
            tokens = tokens - kl_coef * ((ref - new).exp() - (ref - new) - 1)
            means = torch.where(batch.mask, tokens, 0.0).sum(1) / batch.mask.sum(1)
            (-means.mean()).backward()
            other.apply_gradients()
        other.schedule.step()
    mine, same = weights(ours), weights(theirs)
    assert any((mine[name] != before).any() for name, before in weights(start).items())
    for name in mine:
        torch.testing.assert_close(mine[name], same[name], atol=1e-9, rtol=1e-9)


# --- Advantages of the variants, by hand -----------------------------------------


def batch_with(team: Team, rewards: Sequence[Any], scored: Any = None) -> TokenBatch:
    """Return a row per message of debates with these (T, A) rewards."""
    played = []
    for debate, table in enumerate(rewards):
        array = np.asarray(table, dtype=float)
        ids = [(7, 8 + debate, 9 + i) for i in range(array.size)]
        prompts = [(1, 2, 3 + i) for i in range(array.size)]
        played.append(make_rollout(team, prompts, ids, rewards=array, scored=scored))
    return collate(team, played)[0]


def advantages_of(team: Team, batch: TokenBatch, **options: Any) -> list[float]:
    settings = GRPOSettings(**options)
    learner = GRPOLearner(team, settings, steps=1)
    experience = evaluate_tokens(learner, batch, settings, 1.0)
    first = experience.advantages[:, :1]
    assert torch.equal(experience.advantages, torch.where(batch.mask, first, 0.0))
    found: list[float] = first[:, 0].tolist()
    return found


TWO_DEBATES = [[[1.0, 0.0]], [[0.0, 0.5]]]
"""Rewards of two debates of one question, one turn, two agents."""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # Agent 0: 1 and 0, mean .5, deviation sqrt(.5); agent 1: 0 and .5, mean .25, sqrt(.125)
        ({}, [0.5 / (0.5**0.5 + 1e-4), -0.25 / (0.125**0.5 + 1e-4),
              -0.5 / (0.5**0.5 + 1e-4), 0.25 / (0.125**0.5 + 1e-4)]),
        ({"variant": "dr_grpo"}, [0.5, -0.25, -0.5, 0.25]),
        ({"variant": "rloo", "kl_coef": 0.0}, [1.0, -0.5, -1.0, 0.5]),
        ({"scale": "none", "baseline": "maximum"}, [0.0, -0.5, -1.0, 0.0]),
        ({"scale": "none", "baseline": "none"}, [1.0, 0.0, 0.0, 0.5]),
        # All four: mean .375
        ({"scale": "none", "groups": "question"}, [0.625, -0.375, -0.375, 0.125]),
        ({"scale": "none", "groups": "agent"}, [0.5, -0.25, -0.5, 0.25]),
        # Decay .5. Agent 0: b = .5, then .25; agent 1: b = 0, then .25
        ({"variant": "rae", "role_decay": 0.5}, [0.5, 0.0, -0.25, 0.25]),
    ],
)  # fmt: skip
def test_advantages_by_hand(
    checkpoint: Checkpoint, options: dict[str, Any], expected: list[float]
) -> None:
    team = load_team(checkpoint("llama"), num_turns=1)
    found = advantages_of(team, batch_with(team, TWO_DEBATES), group_size=2, **options)
    assert found == pytest.approx(expected, abs=1e-6)


def test_an_agent_may_be_compared_over_its_turns(checkpoint: Checkpoint) -> None:
    """Dr. MAS: agent 0 has 1, 0 and 0, 1 (mean .5), agent 1 four times .5."""
    team = load_team(checkpoint("llama"), num_turns=2)
    batch = batch_with(team, [[[1.0, 0.5], [0.0, 0.5]], [[0.0, 0.5], [1.0, 0.5]]])
    found = advantages_of(team, batch, group_size=2, variant="dr_mas")
    deviation = (1 / 3) ** 0.5 + 1e-4
    one = 0.5 / deviation
    assert found == pytest.approx([one, 0, -one, 0, -one, 0, one, 0], abs=1e-6)


def test_a_debate_moves_the_baseline_of_a_role_once(checkpoint: Checkpoint) -> None:
    """Agent 0 of one debate has 1 and 0: b = .5 * .5 = .25 for both of its messages."""
    team = load_team(checkpoint("llama"), num_turns=2)
    batch = batch_with(team, [[[1.0, 0.0], [0.0, 0.0]]])
    found = advantages_of(team, batch, group_size=1, variant="rae", role_decay=0.5)
    assert found == pytest.approx([0.75, 0.0, -0.25, 0.0])


def test_questions_are_compared_apart(checkpoint: Checkpoint) -> None:
    team = load_team(checkpoint("llama"), num_turns=1)
    batch = batch_with(team, [*TWO_DEBATES, [[5.0, 5.0]], [[5.0, 7.0]]])
    found = advantages_of(team, batch, group_size=2, variant="dr_grpo")
    assert found == pytest.approx([0.5, -0.25, -0.5, 0.25, 0, -1, 0, 1])
    settings = GRPOSettings(group_size=2)
    assert group_ids(batch, settings).tolist() == [0, 1, 0, 1, 2, 3, 2, 3]
    assert group_ids(batch, replace(settings, groups="question")).tolist() == [0] * 4 + [1] * 4


def test_the_greedy_debate_is_the_baseline_of_its_question(checkpoint: Checkpoint) -> None:
    """Question 0 greedily .5 and .25; agent 1's greedy message of question 1 has no score."""
    team = load_team(checkpoint("llama"), num_turns=1)
    batch = batch_with(team, [*TWO_DEBATES, [[3.0, 3.0]], [[4.0, 4.0]]])
    prompts, ids = [(1,), (2,)], [(3,), (4,)]
    greedy = [
        make_rollout(team, prompts, ids, rewards=np.array([[0.5, 0.25]])),
        make_rollout(
            team, prompts, ids, rewards=np.array([[3.5, 0.0]]), scored=np.array([[True, False]])
        ),
    ]
    kept = with_baseline(batch, greedy, 2)
    assert kept.rewards.tolist() == [0.5, -0.25, -0.5, 0.25, -0.5, 0.5]
    assert kept.episodes.tolist() == [0, 0, 1, 1, 2, 3]
    assert with_baseline(batch, [], 2) is batch


def test_a_kl_in_the_reward_comes_off_before_rewards_are_compared(checkpoint: Checkpoint) -> None:
    team = load_team(checkpoint("llama"), num_turns=1, double=True)
    stir(team)
    team.refresh()
    batch = batch_with(team, TWO_DEBATES)
    options: dict[str, Any] = {"group_size": 2, "variant": "dr_grpo", "kl_place": "reward"}
    found = advantages_of(team, batch, kl_coef=0.3, kl_estimator="k1", **options)
    own = score_tokens(team, batch, temperature=1.0).logprobs
    ref = score_tokens(team, batch, temperature=1.0, reference=True).logprobs
    left = [1.0, 0.0, 0.0, 0.5] - 0.3 * (own - ref).sum(1).detach().numpy()
    means = [(left[0] + left[2]) / 2, (left[1] + left[3]) / 2]
    assert found == pytest.approx(left - [*means, *means], abs=1e-9)
    assert found != pytest.approx([0.5, -0.25, -0.5, 0.25], abs=1e-2)


# --- Whole steps ---------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_moves_both_agents(checkpoint: Checkpoint, variant: Any) -> None:
    team = load_team(checkpoint("llama"), num_turns=2)
    before = weights(team)
    metrics = one_step(team, GRPOSettings(variant=variant, **SMALL), debates(2))
    assert metrics["updates"] == 1
    assert metrics["answers"] == 2 * 4 * 2 * 2
    assert metrics["advantage"] > 0
    after = weights(team)
    assert all(not torch.equal(before[name], after[name]) for name in ("agent_0", "agent_1"))


@pytest.mark.thorough
@pytest.mark.parametrize("options", [
    {"groups": "question"}, {"baseline": "leave_one_out", "scale": "none"}, {"scale": "none"},
    {"surrogate": "gspo", "epochs": 2}, {"surrogate": "cispo", "epochs": 2},
    {"length": "sum"}, {"entropy_coef": 0.1}, {"kl_coef": 0.5},
    {"kl_coef": 0.5, "kl_estimator": "exact"}, {"kl_coef": 0.5, "kl_place": "reward"},
    {"epochs": 2, "clip_coef": 1e-4}, {"epochs": 2, "clip_high": 1e-4},
])  # fmt: skip
def test_options_change_the_update(checkpoint: Checkpoint, options: dict[str, Any]) -> None:
    def moved(settings: GRPOSettings) -> dict[str, Tensor]:
        team = load_team(checkpoint("llama"), num_turns=2)
        stir(team)
        team.refresh()
        one_step(team, settings, debates(2))
        return weights(team)

    usual = {"kl_coef": 0.0, "epochs": options.get("epochs", 1)}
    before = moved(GRPOSettings(**SMALL | usual))
    after = moved(GRPOSettings(**SMALL | usual | options))
    assert any(not torch.equal(after[name], before[name]) for name in before)


@pytest.mark.thorough
@pytest.mark.parametrize("protocol", ["sequential", "pipeline", "joint"])
def test_any_protocol_is_trained(checkpoint: Checkpoint, protocol: str) -> None:
    team = load_team(checkpoint("llama"), num_turns=1)
    before = weights(team)
    # A joint answer has one score for all; agents differ in what they wrote for it.
    roles = {"personas": ("first", "second")} if protocol == "pipeline" else {}
    metrics = one_step(team, GRPOSettings(**SMALL), debates(protocol=protocol, **roles))
    assert metrics["advantage"] > 0
    assert any(not torch.equal(before[name], after) for name, after in weights(team).items())


@pytest.mark.thorough
def test_micro_batches_change_nothing_but_memory(checkpoint: Checkpoint) -> None:
    found = []
    for size in (1, 8192):
        team = load_team(checkpoint("llama"), num_turns=1, double=True)
        stir(team)
        team.refresh()
        options = SMALL | {"micro_tokens": size, "kl_coef": 0.5, "kl_estimator": "exact"}
        one_step(team, GRPOSettings(**options, entropy_coef=0.1), debates())
        found.append(weights(team))
    for name, one in found[0].items():
        assert torch.allclose(one, found[1][name], atol=1e-9), name


def test_equal_rewards_teach_nothing(checkpoint: Checkpoint) -> None:
    team = load_team(checkpoint("llama"), num_turns=1)
    before = weights(team)
    game = debates(verifier=lambda _, texts: [0.1] * len(texts))
    metrics = one_step(team, GRPOSettings(**SMALL, kl_coef=0.0), game)
    assert (metrics["zero_spread"], metrics["advantage"]) == (1.0, 0.0)
    assert all(torch.equal(before[name], after) for name, after in weights(team).items())


def test_without_any_score_nothing_is_learnt_and_all_is_counted(checkpoint: Checkpoint) -> None:
    team = load_team(checkpoint("llama"), num_turns=1)
    game = debates(verifier=lambda _, texts: [None] * len(texts))
    metrics = one_step(team, GRPOSettings(**SMALL), game)
    assert (metrics["unscored_messages"], metrics["updates"]) == (16, 0)
    assert not metrics.keys() & {"reward", "advantage", "kl", "zero_spread"}


def test_only_trained_agents_are_rows(checkpoint: Checkpoint) -> None:
    team = load_team(checkpoint("llama"), num_turns=1, train_agents=(1,))
    metrics = one_step(team, GRPOSettings(**SMALL), debates())
    assert [name for name in metrics if name.startswith("grad_norm/")] == ["grad_norm/agent_1"]
    assert metrics["unscored_messages"] == 0


def test_running_baselines_are_saved_and_restored(checkpoint: Checkpoint) -> None:
    team = load_team(checkpoint("llama"), num_turns=1)
    settings = GRPOSettings(variant="rae", group_size=1)
    learner = GRPOLearner(team, settings, steps=2)
    config = GRPOConfig(sampling=SAMPLING, grpo=settings)
    train_step(learner, debates(), asked(3), config, seed=0)
    assert learner.baselines.keys() == {"agent_0", "agent_1"}
    fresh = GRPOLearner(team, settings, steps=2)
    fresh.restore(learner.controls())
    assert fresh.baselines == learner.baselines
    with pytest.raises(CheckpointError, match="not a finite number"):
        fresh.restore({"baselines": {"agent_0": float("nan")}})


def test_minibatches_hold_whole_debates(checkpoint: Checkpoint) -> None:
    team = load_team(checkpoint("llama"), num_turns=2)
    batch = batch_with(team, [[[1.0, 0.0], [0.0, 1.0]]] * 4)
    for rows in minibatches(batch, 2, torch.Generator().manual_seed(0)):
        assert len(rows) == 8


# --- Settings ------------------------------------------------------------------


def test_what_is_set_goes_before_the_variant() -> None:
    settings = GRPOSettings(variant="rloo", length="token", kl_coef=0.0)
    assert settings.chosen() == replace(VARIANTS["rloo"], length="token", kl_coef=0.0)


@refused(
    ({"variant": "drgrpo"}, "choose one of grpo, dr_grpo"),
    ({"baseline": "max"}, "choose one of mean, leave_one_out, maximum"),
    ({"groups": "team"}, "choose one of message, agent, question"),
    ({"group_size": 1}, "group_size must be at least 2"),
    ({"baseline": "greedy"}, "set scale='none'"),
    ({"clip_high": -1.0}, "clip_high must be a number above 0"),
    ({"kl_estimator": "k1"}, "mean gradient of 0 in the loss"),
    ({"kl_coef": -0.1}, "kl_coef must be"),
    ({"role_decay": 1.0}, "role_decay must be in"),
    ({"entropy_coef": -1.0}, "entropy_coef must be"),
)
def test_wrong_settings_are_refused(options: dict[str, Any]) -> None:
    GRPOSettings(**options)


def test_a_greedy_baseline_needs_debates_of_equal_length() -> None:
    config = GRPOConfig(grpo=GRPOSettings(variant="remax"), game=GameConfig(stop="consensus"))
    with pytest.raises(ValueError, match=r"game\.stop='consensus'"):
        check(config, debates())
    check(replace(config, game=GameConfig()), debates())


def test_constant_divides_by_the_longest_limit(checkpoint: Checkpoint) -> None:
    from maporl_agents.algorithms.grpo import objective_of

    sampling = Sampling(agent_max_new_tokens=(5, 9))
    settings = GRPOSettings(variant="dr_grpo")
    assert objective_of(settings, sampling, 2).max_tokens == 9
    assert objective_of(replace(settings, length="sum"), sampling, 2).max_tokens == 1
    # Messages of the small models are equally long: there these two have one result.
    for length in ("token", "sequence"):
        assert objective_of(replace(settings, length=length), sampling, 2).reduction == length
