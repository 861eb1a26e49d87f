"""MAGRPO's credit: from the rewards of joint actions to the advantages of messages."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
from made_trees import node

from maporl_agents.algorithms.magrpo import action_advantages, completion_credit, tree_metrics
from maporl_agents.config import Comparison, MAGRPOSettings
from maporl_agents.trees.sample_tree import TreeNode, joint_reward
from maporl_env.types import Message, Question, Transcript

TREE = node([0.4, 0.1], children=[node([1.0, 0.0]), node([0.5, 0.3])])


def test_all_agents_get_the_advantage_of_their_joint_action() -> None:
    """The tree of the first test, as sampled: +-.175 at the root, +-.5 and +-.1 below it."""
    settings = MAGRPOSettings(turn_gamma=0.5)
    advantages = action_advantages(list(TREE.nodes()), settings)
    expected = [[0.175, -0.175], [0.5, -0.5], [0.1, -0.1]]
    assert [pytest.approx(row) for row in expected] == advantages
    for each, row in zip(TREE.nodes(), advantages, strict=True):
        assert completion_credit(each.actions, row, settings) == [row, row]


def test_crossed_actions_share_their_credit_by_hand() -> None:
    """Rewards [[0, 2], [1, 1]], mean 1: agent 0's samples are worth 1 and 1, agent 1's .5, 1.5."""
    crossed = node([0.0, 2.0, 1.0, 1.0], "cross")
    mean = MAGRPOSettings(joining="cross", group_size=2)
    advantages = action_advantages([crossed], mean)
    assert advantages == [[-1, 1, 0, 0]]
    assert completion_credit(crossed.actions, advantages[0], mean) == [[0, 0], [-0.5, 0.5]]
    total = replace(mean, credit="sum")  # G^(A - 1) = 2 times as much
    assert completion_credit(crossed.actions, advantages[0], total) == [[0, 0], [-1, 1]]


def test_a_joint_action_without_a_score_is_nobodys_baseline() -> None:
    aligned = node([1.0, None, 0.0])
    settings = MAGRPOSettings()
    assert action_advantages([aligned], settings) == [[0.5, None, -0.5]]
    crossed = node([1.0, None, 0.0, None], "cross")
    [advantages] = action_advantages([crossed], replace(settings, joining="cross"))
    shares = completion_credit(crossed.actions, advantages, settings)
    assert shares == [[0.5, -0.5], [0.0, None]]
    assert action_advantages([node([None, None])], settings) == [[None, None]]


def test_an_unscored_branch_adds_nothing_to_its_parent() -> None:
    tree = node([1.0, 0.0], children=[node([None, None]), node([0.5, None])])
    settings = MAGRPOSettings()
    assert action_advantages([tree], settings) == [[0.25, -0.25]]  # returns 1 and .5


def test_a_joint_action_is_paid_the_mean_score_of_its_turn() -> None:
    agents = ("agent_0", "agent_1")
    scores = [(0.2, 0.8), (1.0, None)]
    said = [
        Message(turn, agent, "text", score)
        for turn, of_turn in enumerate(scores)
        for agent, score in zip(agents, of_turn, strict=True)
    ]
    transcript = Transcript(Question("q", "how much ?", "1"), agents, tuple(said))
    assert joint_reward(transcript.of_turn(0)) == pytest.approx(0.5)
    assert joint_reward(transcript.of_turn(1)) is None


@pytest.mark.parametrize(
    ("tree", "gamma", "share"),
    [
        # equal rewards, returns .4 + .5 and .4 + .3: only the second child has nothing to compare
        (node([0.4, 0.4], children=[node([1.0, 0.0]), node([0.3, 0.3])]), 1.0, 1 / 3),
        # other rewards, returns 1 + 0 and .5 + .5, and with half of the second 1 and .75
        (node([1.0, 0.5], children=[node([0.0, 0.0]), node([0.5, 0.5])]), 1.0, 1.0),
        (node([1.0, 0.5], children=[node([0.0, 0.0]), node([0.5, 0.5])]), 0.5, 2 / 3),
        # .1 + .2 is not .3 in floats, and a node without a score has nothing to compare either
        (node([0.1, 0.3], children=[node([0.2, 0.2]), node([None, None])]), 1.0, 1.0),
    ],
)
def test_the_spread_of_a_node_is_that_of_its_returns(
    tree: TreeNode, gamma: float, share: float
) -> None:
    metrics = tree_metrics(list(tree.nodes()), [], MAGRPOSettings(turn_gamma=gamma))
    assert metrics["zero_spread"] == pytest.approx(share)


@pytest.mark.parametrize("seed", range(5))
def test_scaling_would_make_all_baselines_one(seed: int) -> None:
    """Why scale is "none": a z-score takes any constant off again (defect 4 of the library)."""
    rewards = torch.rand(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    others = (rewards.sum() - rewards) / 5
    variants = [rewards - rewards.mean(), rewards - others, rewards - rewards.max(), rewards]
    scaled = [(v - v.mean()) / v.std() for v in variants]
    assert all(torch.allclose(one, scaled[0]) for one in scaled)
    aligned = node(rewards.tolist())
    named = {
        name: action_advantages([aligned], MAGRPOSettings(comparison=name))[0]  # type: ignore[arg-type]
        for name in get_args(Comparison)
    }
    assert named["mean"] == pytest.approx(variants[0].tolist())
    assert named["leave_one_out"] == pytest.approx(variants[1].tolist())
    assert named["raw"] == pytest.approx(rewards.tolist())
    std = float(rewards.std()) + 1e-4
    assert named["standardised"] == pytest.approx((variants[0] / std).tolist())
