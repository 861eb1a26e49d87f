"""Games against an opponent: who is prompted, who is paid, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maporl_agents.config import Sampling
from maporl_agents.self_play.games import SelfPlayGames, game_named, questions_of
from maporl_env import takeaway_v0
from maporl_env.batched import Prompt


class Against(SelfPlayGames):
    """Games whose opponent takes as many stones as it is told."""

    takes = "1"

    def _replies(self, prompts: Sequence[Prompt]) -> list[str]:
        return [self.takes] * len(prompts)


def four_stones() -> Any:
    return takeaway_v0.env(stones=(4, 4))


def games(count: int = 2, turns: int = 4, **options: Any) -> Against:
    return Against(four_stones, count, turns, sampling=Sampling(), **{"gamma": 1.0} | options)


def drive(played: Against, *moves: str) -> list[list[tuple[int, str]]]:
    """Let the learner play all games with the same moves; return who was prompted by round."""
    played.reset(questions_of(len(played.games.games)))
    left = [iter(moves) for _ in played.games.games]
    prompted = []
    while prompts := played.prompts():
        prompted.append([(prompt.debate, prompt.agent) for prompt in prompts])
        played.step([next(left[prompt.debate]) for prompt in prompts])
    return prompted


def test_the_learner_has_one_seat_in_each_game() -> None:
    """Four stones, and the opponent takes one each time."""
    played = games()
    prompted = drive(played, "1", "2")
    # Game 0: 1, the opponent's 1, then 2 and over. Game 1 begins with the opponent's 1: 3 are left,
    # 1 is taken, then 1 by the opponent, and 2 of the last one may not be taken.
    assert prompted == [[(0, "player_0")], [(1, "player_1")]] * 2
    assert played.outcomes().tolist() == [1.0, 0.0]
    assert not played.unbalanced()
    said = [[(m.agent, m.text) for m in one.messages] for one in played.transcripts]
    assert said == [[("player_0", "1"), ("player_0", "2")], [("player_1", "1"), ("player_1", "2")]]
    whole = [[m.text for m in one.messages] for one in played.whole_transcripts]
    assert whole == [["1", "1", "2"], ["1", "1", "1", "2"]]


def test_the_learner_is_paid_for_its_own_messages() -> None:
    played = games(gamma=0.5)
    drive(played, "1", "2")
    assert played.score_mask()[0].tolist() == [[True, False]] * 2 + [[False, False]] * 2
    assert played.score_mask()[1].tolist() == [[False, True]] * 2 + [[False, False]] * 2
    rewards = played.turn_rewards()
    assert rewards[0, :2, 0] == pytest.approx([0.5, 1.0])
    assert rewards[1, :2, 1] == pytest.approx([-0.5, -1.0])
    assert np.abs(rewards).sum() == pytest.approx(3.0)


def test_a_game_that_the_opponent_ends_at_once_has_no_message_of_the_learner() -> None:
    played = games()
    played.takes = "nothing"
    drive(played, "1")
    assert played.outcomes().tolist() == [1.0, 1.0]
    assert [len(one.messages) for one in played.transcripts] == [1, 0]


def test_a_game_that_is_broken_off_is_a_draw() -> None:
    played = games(turns=1)
    drive(played, "1")
    assert played.outcomes().tolist() == [0.5, 0.5]


def test_outcomes_are_those_of_the_first_games() -> None:
    """ReMax plays greedy games after them as its baseline."""
    played = games()
    played.begin(None, seed=1)
    drive(played, "1", "2")
    drive(played, "none")
    assert played.outcomes().tolist() == [1.0, 0.0]
    played.begin(None, seed=2)
    drive(played, "none")
    assert played.outcomes().tolist() == [0.0, 0.0]


def test_wrong_calls_are_named() -> None:
    played = games()
    played.reset(questions_of(2))
    assert len(played.prompts()) == 1
    with pytest.raises(ValueError, match="2 texts and 2 marks for 1 prompts"):
        played.step(["1", "1"])


def test_games_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert game_named("takeaway")().possible_agents == ["player_0", "player_1"]
    with pytest.raises(ValueError, match="unknown game 'chess': choose one of takeaway"):
        game_named("chess")
    (tmp_path / "mine.py").write_text(
        "from maporl_env import debate_v0, takeaway_v0\n"
        "def small(): return takeaway_v0.env(stones=(2, 3))\n"
        "def crowd(): return debate_v0.env(num_agents=3)\n"
    )
    monkeypatch.chdir(tmp_path)
    assert game_named("mine.py:small")().unwrapped.heaps == (2, 3)
    with pytest.raises(ValueError, match="has 3"):
        game_named("mine.py:crowd")
