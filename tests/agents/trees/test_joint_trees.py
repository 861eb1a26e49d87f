"""Trees of joint actions: their size, and that every way through one is a debate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_trees import SAMPLING, asked, joint_debates
from miniatures import load_team

from maporl_agents.play.rollout import play
from maporl_agents.trees.branches import branches, first_new_turns
from maporl_agents.trees.sample_tree import grow_trees
from maporl_agents.types import Completion
from maporl_env.batched import BatchedDebate
from maporl_env.config import DebateConfig


@pytest.mark.parametrize(
    ("joining", "turns", "nodes", "leaves"),
    [("aligned", 1, 1, 2), ("aligned", 3, 7, 8), ("cross", 1, 1, 4), ("cross", 2, 5, 16)],
)
def test_the_size_of_a_tree(
    checkpoint: Callable[..., Path], joining: Any, turns: int, nodes: int, leaves: int
) -> None:
    """G = 2, A = 2: G^T leaves aligned, G^(A T) crossed; no reward, however low, ends a branch."""
    team = load_team(checkpoint("llama"), num_turns=turns)
    game = joint_debates(turns, verifier=lambda _, texts: [0.0] * len(texts))
    trees = grow_trees(team, game, asked(2), SAMPLING, [2] * turns, joining=joining, seed=1)
    for index, root in enumerate(trees):
        grown = list(root.nodes())
        ways = list(branches(root))
        assert (len(grown), len(ways)) == (nodes, leaves)
        assert {each.tree for each in grown} == {index}
        assert {way.transcript.turn for way in ways} == {turns}
        assert all(len(way.completions) == 2 * turns for way in ways)
        told = sum(turns - new for new in first_new_turns(root))
        assert told == sum(len(each.actions) for each in grown), "each joint action, once"


def test_what_is_read_and_said_in_a_tree_is_a_debate(checkpoint: Callable[..., Path]) -> None:
    """Every way through a tree, told again, gives the same prompts, rewards and transcript."""
    team = load_team(checkpoint("llama"), num_turns=2)
    game = joint_debates(2)
    [root] = grow_trees(team, game, asked(1), SAMPLING, [2, 2], joining="cross", seed=1)
    for way in branches(root):
        texts = iter(way.completions)

        def again(*_: Any, said: Any = texts) -> list[Completion]:
            return [next(said) for _ in range(2)]

        [told] = play(team, game, asked(1), SAMPLING, seed=0, engine=again)
        assert told.transcript == way.transcript
        assert (told.prompts, told.policies) == (way.prompts, way.policies)
        assert (
            way.rewards == [[m.score for m in told.transcript.of_turn(t)] for t in (0, 1)]
        ).all()


def test_aligned_trees_of_one_turn_are_copies_of_a_debate(
    checkpoint: Callable[..., Path],
) -> None:
    team = load_team(checkpoint("llama"), num_turns=1)
    questions = asked(2)
    trees = grow_trees(team, joint_debates(), questions, SAMPLING, [3], joining="aligned", seed=5)
    copies = [question for question in questions for _ in range(3)]
    played = play(team, joint_debates(), copies, SAMPLING, seed=5)
    grown = [way for root in trees for way in branches(root)]
    assert [w.completions for w in grown] == [p.completions for p in played]
    assert [w.transcript for w in grown] == [p.transcript for p in played]


def test_agents_who_take_turns_have_no_joint_actions(checkpoint: Callable[..., Path]) -> None:
    game = BatchedDebate(DebateConfig(num_agents=2, num_turns=1, protocol="sequential"), 1)
    with pytest.raises(ValueError, match="all agents speak at once"):
        grow_trees(load_team(checkpoint("llama")), game, asked(1), SAMPLING, [2, 2],
                   joining="aligned", seed=0)  # fmt: skip
