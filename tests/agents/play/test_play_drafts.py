"""Drafts in training: their ids are carried, kept, and learnt from with reward 0."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from made_trees import asked
from miniatures import load_team, stir

from maporl_agents.algorithms import grpo, maporl
from maporl_agents.config import (
    GRPOConfig,
    GRPOSettings,
    IACConfig,
    PPOConfig,
    Sampling,
    TrainConfig,
)
from maporl_agents.config.effects import refuse_without_effect
from maporl_agents.measure.step_metrics import rollout_metrics
from maporl_agents.play.rollout import play
from maporl_agents.trees.sample_tree import grow_trees
from maporl_agents.types import Rollout
from maporl_agents.update.batching import collate
from maporl_agents.update.optimiser import PPOLearner
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.types import Question

SAMPLING = Sampling(max_new_tokens=5)


def even(question: Question, text: str) -> bool:
    return len(text) % 2 == 0


def by_length(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
    return [min(len(text), 40) / 40 for text in responses]


def debates(**options: Any) -> BatchedDebate:
    fixed: dict[str, Any] = {"task": "shopping", "num_agents": 2, "num_turns": 2, "tries": 3}
    fixed |= {"accept": even, "verifier": by_length}
    return BatchedDebate(DebateConfig(**fixed | options), 4)


@pytest.fixture
def team(checkpoint) -> Any:
    team = load_team(checkpoint("llama", templated=False))
    stir(team)
    for base in team.bases:  # let every third id end a message, so that lengths differ
        base.chat.stop_ids |= set(range(0, base.vocab_size, 3))
    return team


@pytest.fixture
def played(team: Any) -> list[Rollout]:
    rollouts = play(team, debates(), asked(4), SAMPLING, seed=3)
    assert sum(len(one.drafts) for one in rollouts) > 3
    return rollouts


def test_a_draft_opens_the_prompt_of_the_next_try_as_it_was_sampled(
    team: Any, played: list[Rollout]
) -> None:
    followed = 0
    for rollout in played:
        agents = rollout.transcript.agents
        tries = [(d.request, d.completion) for d in rollout.drafts]
        for message, prompt, completion, policy in rollout.spoken():
            place = message.turn, agents.index(message.agent)
            before = [(r.prompt, c.ids) for r, c in tries if (r.turn, r.agent) == place]
            for (first, ids), (later, _) in pairwise([*before, (prompt, completion.ids)]):
                assert later[: len(first) + len(ids)] == first + ids
                assert len(later) > len(first) + len(ids)
                followed += 1
            assert message.text == team.base_of(policy).chat.decode(completion.ids)
            assert len(before) == 2 or even(rollout.transcript.question, message.text)
    assert followed == sum(len(one.drafts) for one in played)


def test_messages_stand_in_the_order_of_the_transcript(played: list[Rollout]) -> None:
    assert any(list(one.rounds) != sorted(one.rounds) for one in played)  # somebody was later
    for rollout in played:
        places = [(m.turn, m.agent) for m in rollout.transcript.messages]
        assert places == sorted(places)


def test_drafts_are_rows_with_reward_0(team: Any, played: list[Rollout]) -> None:
    batch, left_out = collate(team, played)
    drafts = [d for one in played for d in one.drafts]
    assert (len(batch), left_out) == (16 + len(drafts), 0)
    ids = {d.completion.ids for d in drafts}
    told = [(row[len(p) :], float(r)) for row, p, r in zip(
        batch.texts(), batch.prompts, batch.rewards, strict=True)]  # fmt: skip
    assert sorted(i for i, r in told if r == 0.0 and i in ids) == sorted(
        d.completion.ids for d in drafts
    )
    metrics = rollout_metrics(played)
    assert metrics["drafts"] == len(drafts) / 16
    assert metrics["tokens"] == int(batch.mask.sum())


@pytest.mark.parametrize("scheme", ["maporl", "grpo"])
def test_a_step_learns_from_them(team: Any, scheme: str) -> None:
    game, questions = debates(), asked(2)
    if scheme == "maporl":
        config: Any = TrainConfig(sampling=SAMPLING, ppo=PPOConfig(minibatches=1))
        learner: Any = PPOLearner(team, config.ppo, steps=2)
        _, metrics = maporl.train_step(learner, game, questions, config, seed=1)
    else:
        config = GRPOConfig(sampling=SAMPLING, grpo=GRPOSettings(group_size=2, minibatches=1))
        learner = grpo.GRPOLearner(team, config.grpo, steps=2)
        _, metrics = grpo.train_step(learner, game, questions, config, seed=1)
    assert metrics["drafts"] > 0
    assert metrics["sampler_mismatch"] < 1e-4


def test_who_learns_from_none_refuses_them(team: Any) -> None:
    with pytest.raises(ValueError, match="a tree of samples has no drafts"):
        grow_trees(team, debates(protocol="joint"), asked(1), SAMPLING, [2, 2], seed=0,
                   joining="aligned")  # fmt: skip
    config = IACConfig()
    object.__setattr__(config.game, "tries", 2)
    with pytest.raises(ValueError, match="tries is about drafts, and iac learns from none"):
        refuse_without_effect(config)
