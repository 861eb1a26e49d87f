"""In whole runs: secrets stand in nobody else's prompt, and in no file but the transcripts.

A run keeps its questions in its transcripts, of which no agent reads more than its view. Whatever
else it writes, and the report and the model card made of it, hold no reference.
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from small_runs import SIZES

from maporl_agents import config as settings
from maporl_agents.commands.export import export
from maporl_agents.commands.model_card import model_card
from maporl_agents.training import experiment
from maporl_agents.webpage.page import write_page
from maporl_env.batched import BatchedDebate, Prompt
from maporl_env.tasks import load_task, shopping
from maporl_env.tasks.base import Task

SIGN = "reference-of-nobody"
SMALL: dict[str, dict[str, Any]] = {
    "maporl": {"ppo": settings.PPOConfig(minibatches=1)},
    "grpo": {"grpo": settings.GRPOSettings(group_size=2, minibatches=1)},
    "malt": {
        "malt": settings.MALTSettings(branching=2, imitation=settings.FitConfig(batch_size=4))
    },
    "sweet_rl": {"sweet_rl": settings.SweetSettings(group_size=2, actions=2)},
}
PLAYED = {
    "maporl": (
        "debate",
        2,
        {"team": settings.TeamConfig(critic="privileged", model=("tiny-sharing",))},
    ),
    "grpo": ("leader", 2, {"team": settings.TeamConfig(train_agents=(1,))}),
    "malt": ("pipeline", 3, {}),
    "sweet_rl": ("dialogue", 2, {"team": settings.TeamConfig(train_agents=(0,))}),
}


def mark(agent: int) -> str:
    return f"<for-{agent}-alone>"


def told(num_agents: int) -> Task:
    """Return shopping with a text for each agent alone, and a reference of two lines."""
    private = tuple(f"Your word: {mark(agent)}" for agent in range(num_agents))
    hidden = f"{SIGN} 'first'\n{SIGN} second"
    splits = {
        name: [replace(q, private=private, hidden=hidden) for q in questions[:12]]
        for name, questions in shopping.load().splits.items()
    }
    return replace(load_task("shopping"), splits=splits)


@pytest.mark.thorough
@pytest.mark.parametrize("scheme", sorted(PLAYED))
def test_nobody_reads_and_nothing_keeps_what_is_secret(
    tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read: dict[str, list[str]] = defaultdict(list)
    made = BatchedDebate.prompts

    def prompts(self: BatchedDebate) -> list[Prompt]:
        found = made(self)
        for prompt in found:
            read[prompt.agent].append(prompt.text)
        return found

    monkeypatch.setattr(BatchedDebate, "prompts", prompts)
    protocol, num_agents, groups = PLAYED[scheme]
    config = settings.CONFIGS[scheme]()
    turns = 1 if protocol == "pipeline" else 2
    game = replace(config.game, protocol=protocol, num_agents=num_agents, num_turns=turns)
    config = replace(config, game=game, **{**SIZES, **SMALL[scheme], **groups})
    screen, folder = Console(file=io.StringIO(), record=True, width=200), tmp_path / "run"
    experiment.run(config, folder, screen, task=told(num_agents))

    # What agents read.
    assert set(read) == {f"agent_{agent}" for agent in range(num_agents)}
    for agent, texts in read.items():
        own = mark(int(agent[-1]))
        others = [mark(other) for other in range(num_agents) if mark(other) != own]
        assert any(own in text for text in texts)
        assert not [text for text in texts for other in others if other in text]
        informed = (scheme, agent) == ("sweet_rl", "agent_1")
        assert informed == any(SIGN in text for text in texts)

    # What is printed, logged, kept and made of it.
    exported = export(folder, tmp_path / "models")
    report = write_page(folder, tmp_path / "report.html").read_text(encoding="utf-8")
    said = [screen.export_text(), caplog.text, report]
    said.append(model_card(folder, exported[0].parent, "me/model"))
    for file in folder.rglob("*"):
        if file.is_file():
            text = file.read_bytes().decode(errors="replace")
            said.append(without_questions(text) if file.suffix == ".jsonl" else text)
    assert len(said) > 8
    assert not [text for text in said if SIGN in text]


def without_questions(text: str) -> str:
    """Return lines of JSON without the questions of transcripts, at whatever depth."""

    def bare(value: Any) -> Any:
        if isinstance(value, list):
            return [bare(one) for one in value]
        if isinstance(value, dict):
            return {key: bare(one) for key, one in value.items() if key != "question"}
        return value

    return json.dumps([bare(json.loads(line)) for line in text.splitlines() if line.strip()])
