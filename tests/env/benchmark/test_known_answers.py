"""Scores of scripted agents against values worked out by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from maporl_env.answers import extract_answer
from maporl_env.benchmark import Case, function_agents, score_case, scripted_agents
from maporl_env.benchmark.knowledge import first_message, right_message
from maporl_env.benchmark.players import MadePlayers
from maporl_env.types import Question
from maporl_env.verifiers import AnswerKey, NoisyKey
from maporl_env.voting import expected_accuracy

from .cases import BY_NAME, LONE, by_turn, small

# --- Known answers ------------------------------------------------------------------


@pytest.mark.parametrize("name", BY_NAME)
def test_the_oracle_is_always_right(name: str) -> None:
    """Every score is 1, so every turn pays 1, and a debate of T turns pays T."""
    result = score_case(scripted_agents("oracle"), small(name, 20))
    assert by_turn(result) == [1.0] * BY_NAME[name].num_turns
    for turn in result.turns:
        assert turn.agents == (1.0,) * BY_NAME[name].num_agents
        assert turn.score is not None
        assert turn.score.mean == 1.0
        assert turn.invalid == 0
    assert result.reward.mean == pytest.approx(BY_NAME[name].num_turns)
    assert result.gain.mean == 0.0
    assert result.by_question == (1.0,) * 20
    assert result.tokens is None


@pytest.mark.parametrize("name", BY_NAME)
def test_keeping_changes_nothing_over_the_turns(name: str) -> None:
    case = small(name)
    result = score_case(scripted_agents("keep"), case)
    assert len(set(by_turn(result))) == 1
    assert len({turn.agents for turn in result.turns}) == 1
    assert (result.gain.mean, result.gain.half_width) == (0.0, 0.0)
    dealt = [
        [first_message(q, seat) == right_message(q) for q in case.questions()]
        for seat in range(case.num_agents)
    ]
    right = [
        sum(AnswerKey().score(case.questions(), [first_message(q, s) for q in case.questions()]))
        for s in range(case.num_agents)
    ]
    assert result.turns[0].agents == pytest.approx([total / 40 for total in right])
    assert [sum(seat) for seat in dealt] == right


def vote_of_deals(case: Case) -> list[float]:
    """The vote over dealt messages, question by question, in a plain loop."""
    votes = []
    for question in case.questions():
        texts = [first_message(question, seat) for seat in range(case.num_agents)]
        answers = [extract_answer(text, "number") for text in texts]
        votes.append(expected_accuracy(answers, int(question.answer)))
    return votes


def test_the_first_turn_is_the_vote_over_the_deal() -> None:
    case = small("coins/debate/5x2", 100)
    result = score_case(scripted_agents("keep"), case)
    assert result.by_question == pytest.approx(vote_of_deals(case))


def test_two_agents_have_no_majority_to_adopt() -> None:
    """They agree, or tie; a tie keeps the own answer."""
    case = small("sharing/debate/2x3")
    keep, majority = (score_case(scripted_agents(who), case) for who in ("keep", "majority"))
    assert majority.turns == keep.turns


def test_whoever_adopts_the_majority_of_five() -> None:
    """A loop: five dealt answers; who is not of a most common one takes the first such it reads."""
    case = small("coins/debate/5x2", 100)
    right = [0] * 5
    for question in case.questions():
        dealt = [extract_answer(first_message(question, seat), "number") for seat in range(5)]
        counts = Counter(dealt)
        top = {answer for answer in dealt if counts[answer] == max(counts.values())}
        for seat, own in enumerate(dealt):
            others = dealt[:seat] + dealt[seat + 1 :]
            said = own if own in top else next(answer for answer in others if answer in top)
            right[seat] += said == int(question.answer)
    result = score_case(scripted_agents("majority"), case)
    assert result.turns[1].agents == pytest.approx([total / 100 for total in right])
    # Ties apart, all five say the majority then: their mean accuracy rises towards the vote's.
    assert result.turns[1].accuracy.mean > result.turns[0].accuracy.mean + 0.1


def test_whoever_adopts_the_best_score() -> None:
    """A loop: of the two dealt answers the one the noisy judge likes better, else the own one.

    The vote of two is right with the mean of their accuracies: 1, 1/2 (a tie) or 0.
    """
    case = small("sharing/debate/2x3", 100)
    judge = NoisyKey()
    right, before = [0, 0], 0
    for question in case.questions():
        dealt = [first_message(question, seat) for seat in range(2)]
        shown = judge.score([question] * 2, dealt)
        before += sum(text == right_message(question) for text in dealt)
        for seat in range(2):
            better = 1 - seat if shown[1 - seat] > shown[seat] else seat
            right[seat] += dealt[better] == right_message(question)
    result = score_case(scripted_agents("best"), case)
    assert result.turns[1].agents == pytest.approx([total / 100 for total in right])
    assert result.turns[2].team == result.turns[1].team  # the same verdicts again
    assert result.gain.mean == pytest.approx((sum(right) - before) / 200)
    assert result.gain.mean > 0.1


def test_the_reward_is_the_mean_over_agents_of_the_sum_over_turns() -> None:
    """Definition 1 in a loop, gamma .3, for two agents who are right in different turns."""
    case = small("sharing/debate/2x3", 6)
    right = {0: (1, 1, 1), 1: (0, 0, 1), 2: (0, 1, 0)}  # by question and turn, of agent_0

    def is_right(number: int, turn: int, seat: int) -> bool:
        return bool(right[number % 3][turn]) if seat == 0 else turn == number // 3

    def make(_: Case, questions: Sequence[Question], seed: int) -> Any:
        def said(p: Any) -> str:
            first = is_right(p.debate, p.turn, p.agent_index)
            return first_message(questions[p.debate], p.agent_index, float(first))

        return lambda prompts: [said(prompt) for prompt in prompts]

    total, of_agent_0 = 0.0, 0.0
    for number in range(6):
        scores = [[float(is_right(number, turn, seat)) for seat in range(2)] for turn in range(3)]
        for turn in range(3):
            later = [0.3**k * sum(scores[turn + k]) / 2 for k in range(1, 3 - turn)]
            weights = sum(0.3**k for k in range(3 - turn))
            paid = [(scores[turn][seat] + sum(later)) / weights for seat in range(2)]
            total += sum(paid) / 2
            of_agent_0 += paid[0]
    result = score_case(MadePlayers("unequal", make), case)
    assert result.reward.mean == pytest.approx(total / 6)
    assert abs(of_agent_0 - total) > 0.5  # paying one agent alone would be seen


def test_a_pipeline_is_its_last_role() -> None:
    """The refiner takes the majority of three dealt answers, its own first; the others cannot."""
    case = small("shopping/pipeline/3x1", 100)
    right = 0
    for question in case.questions():
        dealt = [extract_answer(first_message(question, seat), "number") for seat in range(3)]
        common = dealt[0] if dealt[0] == dealt[1] else dealt[2]
        right += common == int(question.answer)
    result = score_case(scripted_agents("majority"), case)
    assert by_turn(result) == pytest.approx([right / 100])
    assert result.turns[0].score == result.turns[0].team  # its score is everybody's


@pytest.mark.parametrize(
    ("name", "chance"), [("sharing/debate/2x3", 1 / 3), ("coins/debate/2x3", 1 / 4)]
)
def test_random_agents_are_at_chance(name: str, chance: float) -> None:
    """500 questions, two agents: four standard errors of 1,000 draws are below .06."""
    result = score_case(scripted_agents("random"), BY_NAME[name])
    for turn in result.turns:
        assert abs(turn.accuracy.mean - chance) < 0.06


def test_joint_bills_are_scored_by_agreement() -> None:
    """The score of equal right bills is 1; who keeps to a dealt bill agrees where both are right.

    Both right 1/4; else two bills with evenly drawn prices rarely agree.
    """
    result = score_case(scripted_agents("keep"), BY_NAME["receipts/joint/2x1"])
    assert result.turns[0].score is not None
    assert 0.25 < result.turns[0].score.mean < 0.42
    assert result.turns[0].team.mean == result.turns[0].agents[1]  # the last total of the text


def test_lengths_are_in_words() -> None:
    r"""`\boxed{ 7 }` is three words; three turns of it."""
    result = score_case(function_agents("seven", lambda p: [r"\boxed{ 7 }"] * len(p)), LONE)
    assert [turn.words for turn in result.turns] == [3.0] * 3
    assert result.words == 3.0
