"""Statistics of turns against transcripts made by hand."""

from __future__ import annotations

import math

import pytest
from miniatures import load_team, make_transcript

from maporl_agents.config import Sampling
from maporl_agents.measure.evaluate import evaluate, turn_stats
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.types import Question

RIGHT, WRONG, OTHER, NONE = "\\boxed{5}", "\\boxed{4}", "\\boxed{3}", "no idea"


def test_one_debate_by_hand() -> None:
    """Agent 0: wrong, right, right. Agent 1: right, none, wrong. Agent 2: wrong, right, right."""
    [first, second, third] = turn_stats(
        [make_transcript([[WRONG, RIGHT, WRONG], [RIGHT, NONE, RIGHT], [RIGHT, WRONG, RIGHT]])]
    )
    assert first.accuracy == (0, 1, 0)
    assert first.mean_accuracy == pytest.approx(1 / 3)
    assert (first.vote, second.vote, third.vote) == (0, 1, 1)
    assert (first.wrong_to_right, first.right_to_wrong) == (0, 0)
    assert (second.wrong_to_right, second.right_to_wrong) == pytest.approx((2 / 3, 1 / 3))
    assert (third.wrong_to_right, third.right_to_wrong) == (0, 0)  # wrong stays wrong: none to 4
    assert (first.invalid, second.invalid, third.invalid) == pytest.approx((0, 1 / 3, 0))
    assert (first.agreement, second.agreement, third.agreement) == (0, 1, 0)
    assert first.vote_interval == 0  # one question says nothing about spread


@pytest.mark.parametrize(
    ("answers", "vote"),
    [
        ([RIGHT, WRONG], 1 / 2),  # a tie of two is shared
        ([RIGHT, WRONG, OTHER], 1 / 3),
        ([RIGHT, WRONG, NONE], 1 / 2),  # an invalid answer abstains
        ([RIGHT, NONE, NONE], 1),
        ([NONE, NONE], 0),
        ([WRONG, WRONG, RIGHT], 0),
        (["\\boxed{5.0}", "\\boxed{$5}", WRONG], 1),  # written differently, the same number
    ],
)
def test_votes(answers: list[str], vote: float) -> None:
    """Failure C16: by expectation, whatever the order."""
    for order in (answers, answers[::-1]):
        [turn] = turn_stats([make_transcript([order])])
        assert turn.vote == pytest.approx(vote)


def test_intervals_are_over_questions() -> None:
    """Votes 1, 1, 0, 1/2: mean .625; variance over n - 1 is .6875 / 3; 1.96 standard errors."""
    texts = [[RIGHT, RIGHT], [RIGHT, RIGHT], [WRONG, WRONG], [RIGHT, WRONG]]
    [turn] = turn_stats([make_transcript([row]) for row in texts])
    assert turn.vote == pytest.approx(0.625)
    assert turn.vote_interval == pytest.approx(1.96 * math.sqrt(0.6875 / 3 / 4))
    assert turn.accuracy == (0.75, 0.5)
    assert turn.agreement == 0.75


def test_a_debate_that_stopped_early_counts_with_its_last_turn() -> None:
    """Failure C21: the first ends after one turn; it neither flips nor vanishes later."""
    stopped = make_transcript([[RIGHT, RIGHT]])
    whole = make_transcript([[WRONG, RIGHT], [RIGHT, WRONG], [RIGHT, RIGHT]])
    turns = turn_stats([stopped, whole])
    assert len(turns) == 3
    assert [turn.vote for turn in turns] == pytest.approx([0.75, 0.75, 1])
    assert [turn.accuracy for turn in turns] == [(0.5, 1), (1, 0.5), (1, 1)]
    assert [turn.wrong_to_right for turn in turns] == [0, 0.25, 0.25]
    assert [turn.right_to_wrong for turn in turns] == [0, 0.25, 0]


def test_the_score_is_what_the_verifier_gave() -> None:
    """By turn, over all messages of all debates; the debate that stopped repeats its last turn."""
    stopped = make_transcript([[RIGHT, RIGHT]], scores=[[0.25, 0.75]])
    whole = make_transcript([[WRONG, RIGHT]] * 2, scores=[[0.0, 1.0], [1.0, 1.0]])
    assert [turn.score for turn in turn_stats([stopped, whole])] == [0.5, 0.75]


def test_without_a_verdict_there_is_no_score() -> None:
    one_of_two = make_transcript([[RIGHT, RIGHT]], scores=[[None, 0.5]])
    assert [turn.score for turn in turn_stats([one_of_two])] == [0.5]
    none = make_transcript([[RIGHT, RIGHT]], scores=[[None, None]])
    assert [turn.score for turn in turn_stats([none])] == [None]


def test_no_debate_has_no_turns() -> None:
    assert turn_stats([]) == ()


QUESTIONS = [Question(f"q/{i}", f"how much is {i} ?", str(i)) for i in range(5)]


class TestEvaluate:
    def run(self, checkpoint, batch_size: int, **options: bool):
        team = load_team(checkpoint("llama"))
        debates = BatchedDebate(DebateConfig(task=QUESTIONS, num_agents=2), batch_size)
        sampling = Sampling(max_new_tokens=3)
        return evaluate(team, debates, QUESTIONS, sampling, seed=1, **options)

    def test_every_question_is_asked_once_in_order(self, checkpoint) -> None:
        result = self.run(checkpoint, 2)
        assert [t.question.id for t in result.transcripts] == [q.id for q in QUESTIONS]
        assert result.num_questions == 5
        assert len(result.turns) == 3
        assert 30 <= result.num_tokens <= 90  # 5 x 2 x 3 messages of 1 to 3 tokens
        assert result.turns == turn_stats(result.transcripts)
        assert result.to_dict()["turns"][0]["vote"] == result.turns[0].vote

    def test_greedy_does_not_depend_on_the_batch_size(self, checkpoint) -> None:
        one, three = (self.run(checkpoint, size, greedy=True).transcripts for size in (1, 3))
        assert one == three

    def test_sampling_does_depend_on_the_seed_alone(self, checkpoint) -> None:
        assert self.run(checkpoint, 2).transcripts == self.run(checkpoint, 2).transcripts
        greedy = self.run(checkpoint, 2, greedy=True).transcripts
        assert self.run(checkpoint, 2).transcripts != greedy
