"""The built-in tasks `sharing` and `coins`: right keys, disjoint splits, chance level, words."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from maporl_env.answers import extract_answer
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.tasks import coins, load_task, sharing
from maporl_env.types import Question
from maporl_env.verifiers import NoisyKey


def numbers(question: Question) -> list[int]:
    return [int(word) for word in question.prompt.split() if word.isdigit()]


def test_sharing_asks_for_the_remainder_of_the_sum() -> None:
    task = load_task("sharing")
    for question in task.split("test"):
        had, got, friends = numbers(question)
        assert friends == 3
        assert int(question.answer) == (had + got) % 3
    assert load_task("sharing") is task


def test_sharing_holds_out_pairs_in_both_orders() -> None:
    task = load_task("sharing")
    pairs = {
        split: {frozenset(numbers(q)[:2]) for q in questions}
        for split, questions in task.splits.items()
    }
    # 99 amounts: 99 * 100 / 2 unordered pairs, 99^2 ordered ones.
    assert {name: len(part) for name, part in pairs.items()} == {
        "train": 4_950 - 990 - 400, "validation": 400, "test": 990,
    }  # fmt: skip
    assert len(set().union(*pairs.values())) == 4_950
    assert sum(map(len, task.splits.values())) == 99**2
    assert len({q.id for questions in task.splits.values() for q in questions}) == 99**2


def test_no_constant_answer_beats_chance_in_sharing() -> None:
    # 99 amounts are 33 of each residue: every remainder has 3 * 33^2 = 3267 of 9801 questions.
    task = load_task("sharing")
    everything = [q.answer for questions in task.splits.values() for q in questions]
    assert Counter(everything) == {"0": 3_267, "1": 3_267, "2": 3_267}


def test_coins_have_one_pair_that_pays_and_ask_for_its_bigger_coin() -> None:
    for question in load_task("coins").split("test"):
        price, *four = numbers(question)[:1] + numbers(question)[-4:]
        paying = [pair for pair in itertools.combinations(four, 2) if sum(pair) == price]
        assert [str(max(pair)) for pair in paying] == [question.answer]
        assert len(set(four)) == 4


def test_coins_hold_out_sets_and_ask_for_every_rank_equally_often() -> None:
    task = load_task("coins")
    seen = {}
    for split, questions in task.splits.items():
        ranks = Counter(sorted(numbers(q)[-4:]).index(int(q.answer)) for q in questions)
        assert ranks == dict.fromkeys((1, 2, 3), coins.NUM_SETS[split])  # never the smallest
        seen[split] = {frozenset(numbers(q)[-4:]) for q in questions}
        assert len({q.id for q in questions}) == len(questions)
    assert len(set().union(*seen.values())) == sum(map(len, seen.values())) == 5_500


def test_only_sums_that_no_other_pair_makes_are_asked() -> None:
    # 1 + 4 = 2 + 3: both pairs of 5 go; left are 1+2=3, 1+3=4, 2+4=6, 3+4=7.
    assert coins.payments((1, 2, 3, 4)) == {2: [(1, 2)], 3: [(1, 3)], 4: [(2, 4), (3, 4)]}


@pytest.mark.parametrize("name", ["sharing", "coins"])
def test_built_in_tasks_take_no_data(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' makes its own questions"):
        load_task(name, "somewhere")


def test_a_message_reads_its_verdicts_back_and_can_be_read() -> None:
    assert sharing.answer(2) == r"\boxed{ 2 }"
    text = sharing.answer(1, "take", (0.0, 1.0))
    assert text == r"scores 0.0 1.0 take 1 \boxed{ 1 }"
    assert extract_answer(text, "number") == 1


def test_what_is_shown_and_what_is_paid_are_two_verifiers() -> None:
    config = DebateConfig(
        task="sharing",
        num_agents=2,
        num_turns=2,
        gamma=0.0,
        reward_feedback=True,
        feedback_verifier=lambda questions, texts: [1.0 - 0.5 * (t[-3] == "0") for t in texts],
    )
    batch = BatchedDebate(config, 1)
    question = Question("q", "1 and 2 ?", "0")
    batch.reset([question])
    batch.step([sharing.answer(0), sharing.answer(1)])
    said = {0: r"\boxed{ 0 }", 1: r"\boxed{ 1 }"}
    seen = {0: "0.5", 1: "1.0"}
    assert [prompt.text for prompt in batch.prompts()] == [
        f"1 and 2 ?\nyou : {said[me]}\nyour score {seen[me]}\n"
        f"agent 1 ``` {said[peer]} ``` their score {seen[peer]}\nyou : "
        for me, peer in ((0, 1), (1, 0))
    ]
    batch.step([sharing.answer(0), sharing.answer(1)])
    assert batch.turn_rewards()[0].tolist() == [[1.0, 0.0], [1.0, 0.0]]  # the key pays
    first = batch.transcripts[0].messages[0]
    assert (first.score, first.feedback) == (1.0, 0.5)
    assert (
        type(batch.transcripts[0]).from_json(batch.transcripts[0].to_json())
        == (batch.transcripts[0])
    )


def test_where_the_shown_verifier_fails_nothing_is_shown() -> None:
    config = DebateConfig(
        task="sharing",
        num_agents=2,
        num_turns=2,
        reward_feedback=True,
        feedback_verifier=lambda questions, texts: [float("nan"), 0.0],
    )
    batch = BatchedDebate(config, 1)
    batch.reset([Question("q", "1 and 2 ?", "0")])
    batch.step([sharing.answer(0), sharing.answer(1)])
    text = batch.prompts()[0].text
    assert "your score" not in text
    assert "their score 0.0" in text
    assert batch.faults == {"feedback: not a number": 1}
    assert batch.score_mask()[0, 0].all()  # the key could judge both


def test_a_shown_verifier_needs_verdicts_to_be_shown() -> None:
    with pytest.raises(ValueError, match="set reward_feedback"):
        DebateConfig(feedback_verifier=NoisyKey())
