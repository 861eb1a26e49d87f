"""Metrics of rollouts and experience by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from metric_cases import box, make_rollout

from maporl_agents.measure.step_metrics import (
    entropies,
    experience_metrics,
    mean_of,
    rollout_metrics,
    share_beyond,
    sums_of,
    zero_spread,
)
from maporl_agents.types import Completion, Experience, Rollout, StopReason, TokenBatch
from maporl_env.batched import BatchedDebate
from maporl_env.config import DebateConfig
from maporl_env.types import Question


def test_rollout_metrics_by_hand() -> None:
    first = make_rollout(
        [[f"it is {box(5)}", "no idea"], [f"it is {box(4)}", f"it is {box(5)}"]],
        [[1.0, 0.0], [0.0, None]],
        lengths=[2, 4, 6, 9],
        cut=[1],
        rewards=[[1.0, 0.0], [0.5, 0.0]],
    )
    second = make_rollout(
        [[box(5), box(5)]], [[1.0, 1.0]], lengths=[3, 3], rewards=[[1.0, 1.0]], num_turns=2
    )
    metrics = rollout_metrics([first, second])
    assert metrics == {
        "score/turn_1": 3 / 4,
        "accuracy/turn_1": 3 / 4,  # by the key: right, none; right, right
        "accuracy/turn_2": 1 / 2,  # wrong, right (which has no score)
        "score/turn_2": 0.0,  # the other message has no score: absent, not 0
        "length/turn_1": 3.0,  # 2, 4, 3, 3
        "length/turn_2": 7.5,
        "empty/agent_0": 0.0,
        "empty/agent_1": 0.0,
        "cut_off/turn_1": 1 / 4,
        "cut_off/turn_2": 0.0,
        "agreement/turn_1": 1.0,  # one valid answer agrees with itself; 5 and 5
        "agreement/turn_2": 0.0,  # 4 and 5
        "invalid/turn_1": 1 / 4,
        "invalid/turn_2": 0.0,
        "copy/turn_1": 0.0,
        "copy/turn_2": 1 / 2,  # agent 1 says what agent 0 said
        "wrong_to_right/turn_2": 1 / 2,  # agent 1
        "right_to_wrong/turn_2": 1 / 2,  # agent 0
        "lazy/agent_0": 0.0,
        "lazy/agent_1": 1.0,
        "reward": 3.5 / 5,  # neither the unplayed turn nor the message without a score
        "tokens": 27.0,
        "answers": 6.0,
        "cut_off": 1 / 6,
    }


def test_the_reward_of_debates_that_end_early_is_that_of_their_messages() -> None:
    """The environment's tables have a row per turn of the game, played or not."""
    game = BatchedDebate(
        DebateConfig(num_agents=2, num_turns=3, stop="consensus", gamma=1.0, verifier=tell), 2
    )
    game.reset([Question("q", "how much ?", "5", "number")] * 2)
    rollouts = []
    while prompts := game.prompts():
        game.step([box(5) if prompt.debate else box(prompt.agent_index) for prompt in prompts])
    tables = zip(game.transcripts, game.turn_rewards(), game.score_mask(), strict=True)
    for transcript, rewards, scored in tables:
        said = tuple(Completion((1,), (-1.0,), "", StopReason.EOS) for _ in transcript.messages)
        spoken = len(said)
        rollouts.append(
            Rollout(transcript, ((0,),) * spoken, said, ("all",) * spoken, rewards, scored)
        )
    assert [rollout.transcript.turn for rollout in rollouts] == [3, 1]
    assert rollouts[1].rewards.shape == (3, 2)
    # 3 messages are scored 0 and 3 not at all in the first debate, 2 messages 1 in the second.
    assert rollout_metrics(rollouts)["reward"] == pytest.approx(2 / 5)


def tell(_: Sequence[Question], texts: Sequence[str]) -> list[float | None]:
    """Score 5 with 1 and 1 with 0; fail on 0."""
    return [{box(5): 1.0, box(1): 0.0}.get(text) for text in texts]


def test_nothing_scored_has_no_reward() -> None:
    metrics = rollout_metrics([make_rollout([["a"]], [[None]])])
    assert not metrics.keys() & {"reward", "score/turn_1"}


def test_what_branches_share_counts_once() -> None:
    """A tree of two actions, the first continued by two: its message is told once, not twice."""
    start, ends = ["a a", "b"], [["c", "d"], ["e", "f"]]
    branches = [
        make_rollout(
            [start, end],
            [[1.0, 1.0], [0.0, 0.0]],
            lengths=[8, 8, 2, 2],
            cut=[0, 1],
            rewards=[[1.0, 1.0], [0.0, 0.0]],
        )
        for end in ends
    ]
    short = make_rollout([["g", "h"]], [[0.0, 0.0]], lengths=[2, 2], num_turns=2)
    metrics = rollout_metrics([*branches, short], [0, 1, 0])
    assert (metrics["score/turn_1"], metrics["length/turn_1"]) == (1 / 2, 5)
    assert (metrics["cut_off"], metrics["answers"], metrics["tokens"]) == (2 / 8, 8, 28)
    assert metrics["reward"] == 2 / 8
    assert (metrics["score/turn_2"], metrics["invalid/turn_1"]) == (0, 1)


def test_a_debate_of_one_turn_has_no_flips_and_no_lazy_agent() -> None:
    names = rollout_metrics([make_rollout([[box(5)]], [[1.0]])])
    assert not any(name.startswith(("lazy", "wrong_to", "right_to")) for name in names)


def test_mean_over_the_parts_that_have_it() -> None:
    assert mean_of([{"a": 1.0, "b": 2.0}, {"a": 3.0}]) == {"a": 2.0, "b": 2.0}
    assert mean_of([]) == {}


# --- Experience ---------------------------------------------------------------


def make_experience(
    logprobs: Sequence[Sequence[float]],
    *,
    turns: Sequence[int],
    policies: Sequence[str],
    rewards: Sequence[float] = (),
    shift: float = 0.0,
) -> Experience:
    """Rows of different lengths; the sampler saw `logprobs` + shift; garbage outside the mask."""
    width = max(map(len, logprobs), default=0)
    count = len(logprobs)
    cells = [x < len(row) for row in logprobs for x in range(width)]
    mask = torch.tensor(cells, dtype=torch.bool).reshape(count, width)
    values = torch.zeros(count, width)
    for i, row in enumerate(logprobs):
        values[i, : len(row)] = torch.tensor(row)
    seats = torch.tensor([int(name[-1]) for name in policies], dtype=torch.long)
    batch = TokenBatch(
        prompts=((0,),) * count,
        ids=torch.zeros(count, width, dtype=torch.long),
        mask=mask,
        sampled_logprobs=torch.where(mask, values + shift, 0.0),
        policies=tuple(policies),
        critics=tuple(policies),
        agents=seats,
        turns=torch.tensor(turns, dtype=torch.long),
        episodes=torch.arange(count),
        rewards=torch.tensor(list(rewards) or [0.0] * count),
    )
    zeros = torch.zeros(count, width)
    return Experience(batch, values, values.clone(), zeros, zeros, zeros)


def test_entropy_by_policy_and_turn_is_the_mean_surprise() -> None:
    experience = make_experience(
        [[-1.0, -2.0], [-3.0], [-0.5]],
        turns=[0, 0, 1],
        policies=["agent_0", "agent_0", "agent_1"],
    )
    assert entropies(experience.batch, experience.logprobs) == {
        "entropy/agent_0/turn_1": 2.0,  # (1 + 2 + 3) / 3 tokens
        "entropy/agent_1/turn_2": 0.5,
    }


def test_the_estimated_entropy_is_that_of_the_distribution() -> None:
    weights = torch.tensor([0.5, 0.25, 0.125, 0.125])
    drawn = torch.multinomial(
        weights, 20_000, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    experience = make_experience([weights.log()[drawn].tolist()], turns=[0], policies=["agent_0"])
    [estimate] = entropies(experience.batch, experience.logprobs).values()
    exact = 1.75 * math.log(2)  # 1/2 * 1 + 1/4 * 2 + 2 * 1/8 * 3 bits
    assert estimate == pytest.approx(exact, abs=4 * 0.57 / 20_000**0.5)  # 4 standard errors


def test_mismatch_is_measured_as_log_and_as_ratio() -> None:
    rows = [[-1.0, -2.0], [-3.0]]
    apart = make_experience(rows, turns=[0, 0], policies=["a0", "a0"], shift=-0.1)
    metrics = experience_metrics(apart)
    assert metrics["sampler_mismatch"] == pytest.approx(0.1, abs=1e-6)
    assert metrics["ratio_mismatch"] == pytest.approx(math.exp(0.1) - 1, abs=1e-6)
    same = experience_metrics(make_experience(rows, turns=[0, 0], policies=["a0", "a0"]))
    assert (same["sampler_mismatch"], same["ratio_mismatch"]) == (0, 0)


def test_zero_spread_counts_groups_that_were_paid_alike() -> None:
    experience = make_experience(
        [[-1.0]] * 5,
        turns=[0, 0, 0, 1, 1],
        policies=["a0", "a0", "a1", "a0", "a0"],
        rewards=[1.0, 1.0, 0.3, 0.0, 0.1],
    )
    assert zero_spread(experience.batch) == 2 / 3  # (1, 0): alike; (1, 1): alone; (2, 0): apart
    assert zero_spread(make_experience([], turns=[], policies=[]).batch) == 0.0


def test_values_beyond_the_bound_are_counted_among_real_tokens() -> None:
    values = torch.tensor([[0.1, 0.3, math.nan], [-0.5, 9.0, 9.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert share_beyond(values, torch.zeros(2, 3), mask, 0.2) == pytest.approx(2 / 3)
    assert share_beyond(values, torch.zeros(2, 3), torch.zeros_like(mask), 0.2) == 0.0


def test_without_a_scored_message_nothing_was_measured() -> None:
    assert experience_metrics(make_experience([], turns=[], policies=[])) == {}


def test_metrics_of_policies_add_up() -> None:
    parts = [{"a": {"x": 1.0}, "b": {"x": 5.0}}, {"a": {"x": 2.0}}]
    assert sums_of(parts) == [{"x": 3.0}, {"x": 5.0}]
    assert mean_of([{"x": 1.0}, {"x": 3.0, "y": 4.0}]) == {"x": 2.0, "y": 4.0}
