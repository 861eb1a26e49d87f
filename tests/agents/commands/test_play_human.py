"""`maporl play --human`: a person reads what their agent reads, in every protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_runs import maporl

from maporl_agents.commands import play
from maporl_agents.commands.chosen_flags import Groups
from maporl_agents.config import GameConfig, Sampling, TeamConfig
from maporl_agents.terminal import console
from maporl_env.protocols import PROTOCOLS

SIZES = {
    "debate": (2, 2),
    "sequential": (2, 2),
    "joint": (2, 2),
    "leader": (3, 2),
    "self_correction": (1, 2),
    "pipeline": (3, 1),
    "dialogue": (2, 2),
    "teams_and_judge": (4, 2),
    "review": (3, 2),
    "retrieve": (4, 1),
    "lessons": (2, 3),
}


def test_each_protocol_has_a_case() -> None:
    assert set(SIZES) == set(PROTOCOLS)


@pytest.mark.thorough
@pytest.mark.usefixtures("work_folder")
@pytest.mark.parametrize("protocol", sorted(SIZES))
def test_a_person_takes_part(
    protocol: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    agents, turns = SIZES[protocol]
    asked: list[str] = []

    def typed(prompt: str) -> str:
        asked.append(capsys.readouterr().out)
        return f"person {len(asked)} \\boxed{{ {len(asked)} }}"

    monkeypatch.setattr("builtins.input", typed)
    told = [f"SECRET-{agent}" for agent in range(agents)]
    row = {"question": "2 + 2 ?", "answer": 4, "private": told, "hidden": "the hidden reference"}
    Path("asked.jsonl").write_text(json.dumps(row))
    code = maporl(
        *("play", "--human", "--protocol", protocol, "--agents", agents, "--turns", turns),
        *("--task", "asked.jsonl", "--max-new-tokens", "4", "--split", "train", "--index", "0"),
    )
    end = capsys.readouterr()
    assert code == 0, end.err
    assert asked, "the person was never asked"
    assert f"person {len(asked)}" in end.out
    assert "key: 4" in end.out
    before = "".join(asked)
    assert f"SECRET-{agents - 1}" in before
    assert not any(f"SECRET-{agent}" in before for agent in range(agents - 1))
    assert ("the hidden reference" in before) == (protocol == "dialogue")
    assert "(score" not in before


@pytest.mark.thorough
@pytest.mark.usefixtures("work_folder")
def test_a_run_with_tries_is_played_with_its_own_messages(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Own messages in a prompt are those of the view, without the drafts of earlier turns."""
    calls: list[tuple[int, list[Any]]] = []
    real = play.say

    def recorded(team: Any, prompt: Any, own: Any, *more: Any, **named: Any) -> Any:
        texts = [text for role, text in prompt.view if role == "own"]
        chat = team.base_of(team.policy(prompt.agent_index, prompt.turn)).chat
        calls.append((prompt.turn, [chat.shown_text(ids) for ids in own]))
        assert calls[-1][1] == texts
        return real(team, prompt, own, *more, **named)

    monkeypatch.setattr(play, "say", recorded)
    game = GameConfig(num_turns=3, tries=2)
    groups = Groups(game, TeamConfig(tuning="none"), Sampling(max_new_tokens=3))
    play.play_debate(play.Play(index=1, settings=groups), console())
    assert max(turn for turn, _ in calls) == 2
    assert any(len(own) == 3 for _, own in calls)
    assert "cut" in capsys.readouterr().out
