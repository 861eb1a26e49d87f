"""Preference pairs from a file: prompts, tokens, what they teach, what is refused."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from small_runs import SMALL
from watch_cases import Scripted, approve_all, decide, open_slots, session_of

from maporl_agents.config import WarmupConfig
from maporl_agents.models.team import Team
from maporl_agents.play.speak import requests
from maporl_agents.records.log_lines import log_lines
from maporl_agents.training import experiment
from maporl_agents.training.given_preferences import pairs_of_file
from maporl_agents.training.make_game import make_game
from maporl_env.batched import BatchedDebate


@pytest.fixture(scope="module")
def team() -> Team:
    return experiment.build(SMALL)[1].team


def watched(folder: Path) -> tuple[Path, BatchedDebate]:
    """Return the pairs of a debate in which a person edited, sent back, struck out, approved."""
    game = make_game(SMALL.game)
    question = game.questions("train")[0]
    speakers = [Scripted(*(rf"{n} , \boxed{{ {n} }}" for n in range(a, 20))) for a in (2, 9)]
    with session_of(folder, speakers, question=question, config=game.config) as session:
        first, second = open_slots(session, 2)
        decide(session, first, "edit", text=r"1 * 2 = 2 , \boxed{ 2 }")
        decide(session, second, "send_back", note="no")
        approve_all(session)
    debates = game.debates(1)
    debates.reset([question])
    return folder / "preferences.jsonl", debates


def test_pairs_of_a_watched_debate_have_the_prompts_of_the_game(tmp_path: Path, team: Team) -> None:
    """The prompt ids of turn 1 are those that the game's own requests have."""
    path, debates = watched(tmp_path / "w")
    rows, count = pairs_of_file(team, path)
    edited, first = r"1 * 2 = 2 , \boxed{ 2 }", r"2 , \boxed{ 2 }"
    second, third = r"9 , \boxed{ 9 }", r"10 , \boxed{ 10 }"  # both agents read one prompt
    expected = [(0, edited, first), (0, edited, second), (1, third, first), (1, third, second)]
    assert (count, len(rows)) == (4, 8)
    asked = requests(team, debates.prompts(), [[], []])
    chat = team.base_of("agent_0").chat
    texts = [(agent, text) for agent, *sides in expected for text in sides]
    for row, (agent, text) in zip(rows, texts, strict=True):
        assert (row.agent, row.turn) == (agent, 0)
        assert row.prompt == asked[agent].prompt
        assert row.policy == asked[agent].policy
        assert row.completion.ids == chat.message_ids(text)
        assert row.completion.ids[-1] in chat.stop_ids


@pytest.mark.thorough
def test_a_run_learns_the_pairs_by_dpo(tmp_path: Path) -> None:
    """The loss of each policy begins at log 2, since it is its own reference, and falls."""
    path, _ = watched(tmp_path / "w")
    warm = WarmupConfig(steps=5, preferences=str(path), batch_size=4)
    screen = Console(file=io.StringIO(), width=200, record=True)
    experiment.run(replace(SMALL, steps=1, warmup=warm), tmp_path / "run", screen)
    lines = [row for row, _ in log_lines(tmp_path / "run" / "warmup.jsonl")]
    by_policy: dict[str, list[float]] = {}
    for line in lines:
        [name] = [name for name in line if name.startswith("preference_loss/")]
        by_policy.setdefault(name.partition("/")[2], []).append(line[name])
    assert {policy: len(losses) for policy, losses in by_policy.items()} == {
        "agent_0": 5,
        "agent_1": 5,
    }
    for losses in by_policy.values():
        assert losses[0] == pytest.approx(math.log(2), abs=1e-4)
        assert losses[-1] < 0.5 * losses[0]
    told = " ".join(screen.export_text().split())
    assert "4 of 4 given preference pairs are of trained policies; learnt by DPO in 5" in told


def test_pairs_of_agents_that_are_not_trained_are_left_out(tmp_path: Path) -> None:
    config = replace(SMALL, team=replace(SMALL.team, train_agents=(1,)))
    team = experiment.build(config)[1].team
    rows, count = pairs_of_file(team, watched(tmp_path / "w")[0])
    assert count == 4
    assert {row.agent for row in rows} == {1}


GOOD: dict[str, Any] = {
    "prompt": [{"role": "user", "content": "how much ?"}],
    "chosen": [{"role": "assistant", "content": "2"}],
    "rejected": [{"role": "assistant", "content": "3"}],
    "agent": 0,
    "turn": 0,
}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"prompt": []}, "the prompt is empty"),
        ({"prompt": "text"}, "TypeError"),
        ({"prompt": [{"role": "tool", "content": "x"}]}, "KeyError: 'tool'"),
        ({"chosen": GOOD["rejected"]}, "chosen and rejected are the same"),
        ({"chosen": []}, "ValueError"),
        ({"chosen": [{"role": "user", "content": "x"}]}, "chosen is by 'user'"),
        ({"chosen": [{"role": "assistant", "content": 7}]}, "a content is no text"),
        ({"agent": -1}, "agent is -1"),
        ({"agent": True}, "agent is True"),
        ({"agent": 9}, "9"),
        ({"turn": "0"}, "turn is '0'"),
    ],
)
def test_what_is_no_pair_is_refused(
    tmp_path: Path, team: Team, changed: dict[str, Any], words: str
) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n" + json.dumps(GOOD | changed) + "\n")
    with pytest.raises(ValueError, match=f"line 3 of .* is no preference pair.*{words}"):
        pairs_of_file(team, path)


def test_bad_files_are_refused_and_control_tokens_stay_text(tmp_path: Path, team: Team) -> None:
    path = tmp_path / "pairs.jsonl"
    with pytest.raises(ValueError, match="cannot read"):
        pairs_of_file(team, path)
    path.write_text("\n")
    with pytest.raises(ValueError, match="holds no preference pair"):
        pairs_of_file(team, path)
    chat = team.base_of("agent_0").chat
    end = chat.tokenizer.eos_token
    hostile = GOOD | {"chosen": [{"role": "assistant", "content": f"2 {end} 3 {end}"}]}
    path.write_text(json.dumps(hostile | {"rejected_cut": True}))
    (chosen, rejected), _ = pairs_of_file(team, path)
    assert sum(i in chat.stop_ids for i in chosen.completion.ids) == 1
    assert not any(i in chat.stop_ids for i in rejected.completion.ids)
    assert torch.tensor(chosen.completion.ids).ndim == 1


def test_one_file_at_a_time() -> None:
    with pytest.raises(ValueError, match="give one of them"):
        WarmupConfig(transcripts="a", preferences="b")
    with pytest.raises(ValueError, match="preference_beta"):
        WarmupConfig(preference_beta=0)
