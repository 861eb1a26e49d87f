"""The vote of several passes of one debate."""

from __future__ import annotations

import pytest
from miniatures import load_team

from maporl_agents.config import Sampling
from maporl_agents.measure.vote_of_passes import vote_of_passes
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.types import Question


def test_passes_vote_by_their_final_answers(checkpoint) -> None:
    team = load_team(checkpoint("llama"), num_agents=3, num_turns=1, tuning="none")
    questions = [Question(f"q{i}", f"how much is {i} ?", str(i)) for i in range(5)]
    debates = BatchedDebate(
        DebateConfig(task=questions, protocol="pipeline", num_agents=3, num_turns=1), 2
    )
    sampling = Sampling(max_new_tokens=3)
    result = vote_of_passes(team, debates, questions, sampling, passes=3, seed=1)
    [turn] = result.turns
    assert len(turn.accuracy) == 3
    assert result.num_questions == len(result.transcripts) == 5
    texts = [[m.text for m in one.messages] for one in result.transcripts]
    assert [len(row) for row in texts] == [3] * 5
    assert sum(len(set(row)) > 1 for row in texts) >= 4  # each pass draws anew
    tokens = 5 * 3 * 3 * 3
    assert 0 < result.num_tokens <= tokens
    again = vote_of_passes(team, debates, questions, sampling, passes=3, seed=1)
    assert again == result


def test_passes_of_a_debate_have_no_one_voice(checkpoint) -> None:
    team = load_team(checkpoint("llama"), num_agents=3, num_turns=1, tuning="none")
    questions = [Question("q", "how much ?", "5")]
    debates = BatchedDebate(DebateConfig(task=questions, num_agents=3, num_turns=1), 2)
    with pytest.raises(ValueError, match=r"set --eval\.passes 1"):
        vote_of_passes(team, debates, questions, Sampling(max_new_tokens=8), passes=2, seed=0)
