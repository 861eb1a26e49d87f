"""Rollouts to tensors, and how they are dealt out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from miniatures import load_team, make_rollout

from maporl_agents.models.team import Team
from maporl_agents.types import TokenBatch
from maporl_agents.update.batching import collate, micro_batches, rows_by_base
from maporl_agents.update.layout import nest, texts_of
from maporl_agents.update.minibatch_epochs import minibatches

REWARDS = np.array([[0.5, -1.0], [0.0, 2.0]])


@pytest.fixture(scope="module")
def team(checkpoint) -> Team:
    return load_team(checkpoint("llama"), num_turns=2)


def make_batch(
    team: Team, episodes: int, scored: np.ndarray | None = None
) -> tuple[TokenBatch, int]:
    rollouts = [
        make_rollout(
            team,
            [(1, 2), (3,), (1, 2, 5, 6), (3, 7)],
            [(5,), (7, 8, 9), (4, 4), (2,)],
            rewards=REWARDS + episode,
            scored=scored,
        )
        for episode in range(episodes)
    ]
    return collate(team, rollouts)


def test_one_row_per_message(team: Team) -> None:
    batch, left_out = make_batch(team, 2)
    assert left_out == 0
    assert len(batch) == 8
    assert batch.prompts[:4] == ((1, 2), (3,), (1, 2, 5, 6), (3, 7))
    assert batch.ids[:4].tolist() == [[5, 0, 0], [7, 8, 9], [4, 4, 0], [2, 0, 0]]
    assert batch.mask[:4].tolist() == [
        [True, False, False],
        [True, True, True],
        [True, True, False],
        [True, False, False],
    ]
    assert batch.sampled_logprobs[:2].tolist() == [[-1, 0, 0], [-1, -1, -1]]
    assert batch.policies == ("agent_0", "agent_1") * 4
    critics = ("agent_0_turn_0", "agent_1_turn_0", "agent_0_turn_1", "agent_1_turn_1")
    assert batch.critics == critics * 2
    assert batch.turns.tolist() == [0, 0, 1, 1] * 2
    assert batch.agents.tolist() == [0, 1, 0, 1] * 2
    assert batch.episodes.tolist() == [0] * 4 + [1] * 4
    assert batch.rewards.tolist() == [0.5, -1, 0, 2, 1.5, 0, 1, 3]


def test_a_message_without_a_score_carries_no_loss_and_is_counted(team: Team) -> None:
    """Failure A32: it never becomes a 0, and a reward of exactly 0 is kept."""
    scored = np.array([[True, False], [True, True]])
    batch, left_out = make_batch(team, 2, scored)
    assert left_out == 2
    assert batch.rewards.tolist() == [0.5, 0, 2, 1.5, 1, 3]
    assert batch.mask.shape == (6, 2)  # the longest completion was left out


def test_nothing_scored_is_an_empty_batch(team: Team) -> None:
    batch, left_out = make_batch(team, 2, np.zeros((2, 2), bool))
    assert (len(batch), left_out) == (0, 8)
    assert batch.mask.shape == batch.ids.shape == (0, 0)
    assert list(minibatches(batch, 2, torch.Generator())) == []
    assert list(micro_batches(batch, 2)) == []
    assert rows_by_base(team, batch) == []


def test_select_cuts_to_the_longest_row(team: Team) -> None:
    batch, _ = make_batch(team, 1)
    part = batch.select([3, 2])
    assert part.ids.tolist() == [[2, 0], [4, 4]]
    assert part.prompts == ((3, 7), (1, 2, 5, 6))
    assert part.rewards.tolist() == [2, 0]
    assert part.policies == ("agent_1", "agent_0")


def test_values_of_the_sampler_are_kept_where_every_message_has_them(team: Team) -> None:
    rollout = make_rollout(team, [(1, 2), (3,)], [(5,), (7, 8, 9)], rewards=REWARDS[:1])
    assert collate(team, [rollout])[0].sampled_values is None
    said = [replace(c, values=(0.5,) * len(c.ids)) for c in rollout.completions]
    batch, _ = collate(team, [replace(rollout, completions=tuple(said))])
    assert batch.sampled_values is not None
    assert batch.sampled_values.tolist() == [[0.5, 0, 0], [0.5, 0.5, 0.5]]
    assert batch.select([0]).sampled_values.tolist() == [[0.5]]
    some = replace(rollout, completions=(said[0], rollout.completions[1]))
    assert collate(team, [some])[0].sampled_values is None


@given(st.integers(0, 9), st.integers(1, 6), st.integers(0, 3))
@settings(max_examples=40)
def test_minibatches_cover_each_row_once(episodes: int, count: int, seed: int) -> None:
    """Failure A40: 7 debates in 2, 3 ... parts, of sizes that differ by at most one debate."""
    batch = fake_batch(episodes)
    parts = [
        rows.tolist() for rows in minibatches(batch, count, torch.Generator().manual_seed(seed))
    ]
    assert sorted(row for rows in parts for row in rows) == list(range(4 * episodes))
    assert len(parts) == min(count, episodes)
    sizes = [len(rows) // 4 for rows in parts]
    assert not sizes or max(sizes) - min(sizes) <= 1
    for rows in parts:  # whole debates
        assert sorted({row // 4 for row in rows}) == sorted(row // 4 for row in rows[::4])


def of_any_messages(test: Callable[[list[list[int]], int, bool], None]) -> Callable[[], None]:
    """Give a test the ids of messages, the tokens of a pass, and whether it holds whole debates."""
    messages = st.lists(st.lists(st.integers(1, 2), min_size=2, max_size=6), max_size=12)
    return settings(max_examples=60)(given(messages, st.integers(1, 40), st.booleans())(test))


@of_any_messages
def test_micro_batches_cover_each_row_once(
    texts: list[list[int]], tokens: int, whole_episodes: bool
) -> None:
    batch = batch_with(texts)
    read = texts_of(batch)
    hosts, leaders = nest(read, batch.policies)
    parts = [rows.tolist() for rows in micro_batches(batch, tokens, whole_episodes=whole_episodes)]
    assert sorted(row for rows in parts for row in rows) == list(range(len(texts)))
    assert parts == [sorted(rows) for rows in parts]
    labels = batch.episodes if whole_episodes else hosts
    for rows in parts:  # what belongs together is in one pass, which is full only if it holds more
        inside = {int(labels[row]) for row in rows}
        assert sum(int(label) in inside for label in labels) == len(rows)
        sequences = leaders[hosts[rows].unique()]
        padded = len(sequences) * int(read.lengths[sequences].max())
        assert padded <= tokens or len(inside) == 1


@of_any_messages
def test_packed_passes_cover_each_row_once(
    texts: list[list[int]], tokens: int, whole_episodes: bool
) -> None:
    batch = batch_with(texts)
    hosts, _ = nest(texts_of(batch), batch.policies)
    parts = [
        rows.tolist()
        for rows in micro_batches(batch, tokens, whole_episodes=whole_episodes, packed=True)
    ]
    assert sorted(row for rows in parts for row in rows) == list(range(len(texts)))
    assert parts == [sorted(rows) for rows in parts]
    labels = batch.episodes if whole_episodes else hosts
    read = batch.texts()
    for rows in parts:
        inside = {int(labels[row]) for row in rows}
        assert sum(int(label) in inside for label in labels) == len(rows)
        begun = {(batch.policies[i], read[i][:n]) for i in rows for n in range(1, len(read[i]) + 1)}
        assert len(begun) <= tokens or len(inside) == 1


def test_the_longest_conversations_come_first() -> None:
    """So that a pass that does not fit in memory is the first."""
    batch = batch_with([[9, 2], [3, 4, 5, 6, 7, 8], [2, 3, 4], [1, 2, 3, 4, 5]])
    assert [rows.tolist() for rows in micro_batches(batch, 12)] == [[1, 3], [0, 2]]


def test_minibatches_are_shuffled_by_their_generator() -> None:
    batch = fake_batch(8)

    def deal(seed: int) -> list[list[int]]:
        return [r.tolist() for r in minibatches(batch, 2, torch.Generator().manual_seed(seed))]

    assert deal(1) == deal(1)
    assert deal(1) != deal(2)


def test_rows_by_base(team: Team) -> None:
    batch, _ = make_batch(team, 2)
    assert [rows.tolist() for rows in rows_by_base(team, batch)] == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_groups_come_in_order_of_first_appearance(team: Team) -> None:
    batch, _ = make_batch(team, 2)
    assert {name: rows.tolist() for name, rows in batch.by_policy()} == {
        "agent_0": [0, 2, 4, 6],
        "agent_1": [1, 3, 5, 7],
    }
    assert {place: rows.tolist() for place, rows in batch.by_message()} == {
        (0, 0): [0, 4],
        (0, 1): [1, 5],
        (1, 0): [2, 6],
        (1, 1): [3, 7],
    }
    assert [name for name, _ in batch.by_critic()][2] == "agent_0_turn_1"


def batch_with(texts: list[list[int]], per_debate: int = 2) -> TokenBatch:
    """A batch of hand-made texts, all of one policy, whose last token was sampled."""
    n = len(texts)
    shape = n, min(n, 1)  # one sampled token in each row; no column without rows
    return TokenBatch(
        prompts=tuple(tuple(text[:-1]) for text in texts),
        ids=torch.tensor([text[-1] for text in texts]).reshape(shape).long(),
        mask=torch.ones(shape, dtype=torch.bool),
        sampled_logprobs=torch.zeros(shape),
        policies=("all",) * n,
        critics=("all",) * n,
        agents=torch.zeros(n, dtype=torch.long),
        turns=torch.zeros(n, dtype=torch.long),
        episodes=torch.arange(n) // per_debate,
        rewards=torch.zeros(n),
    )


def fake_batch(episodes: int) -> TokenBatch:
    """A batch of four messages a debate, one token each."""
    return batch_with([[1, 0]] * (4 * episodes), per_debate=4)
