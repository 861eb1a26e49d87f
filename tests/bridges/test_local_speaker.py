"""A local model as a function `prompts -> texts`: it says what it says elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra train")

import torch

from maporl_agents.bridges import speaker
from maporl_agents.bridges.bench_players import TeamSpeaker
from maporl_agents.bridges.speaker import LocalSpeaker, load_speaker
from maporl_agents.config import Sampling, TeamConfig, TrainConfig
from maporl_agents.models.loading import make_team
from maporl_agents.records.run_log import RunLog
from maporl_agents.training import experiment
from maporl_env.answers import extract_answer
from maporl_env.batched import BatchedDebate, DebateConfig, Prompt
from maporl_env.bridges.speakers import Person, play
from maporl_env.tasks import load_task

QUESTIONS = load_task("shopping").split("test")[:4]
FEW = QUESTIONS[:2]


def test_a_person_a_script_and_a_local_model_debate() -> None:
    somebody = Person(lambda _: r"I say \boxed{6}.", lambda _: None)
    script = [r"\boxed{7}", r"still \boxed{7}"]
    batch = play([somebody, script, load_speaker("tiny")], QUESTIONS, num_turns=2, task="shopping")
    for transcript in batch.transcripts:
        assert len(transcript.messages) == 6
        said = transcript.texts_of("agent_2")
        assert all(extract_answer(text, "number") is not None for text in said)
        assert transcript.texts_of("agent_1") == tuple(script)
    assert len({t.texts_of("agent_2")[0] for t in batch.transcripts}) > 1  # it reads the question


def debate(speak: Callable[[list[Prompt]], Sequence[str]]) -> list[list[str]]:
    """Return what is said in debates of two agents on shopping whom one function speaks for."""
    batch = BatchedDebate(DebateConfig(task="shopping", num_agents=2, num_turns=3), len(FEW))
    batch.reset(FEW)
    while prompts := batch.prompts():
        batch.step(speak(prompts))
    return [[message.text for message in t.messages] for t in batch.transcripts]


def by_seat(speakers: Sequence[LocalSpeaker]) -> Callable[[list[Prompt]], Sequence[str]]:
    """Return a function that asks each agent's own speaker, with text alone."""
    return lambda prompts: [speakers[prompt.agent_index]([prompt.text])[0] for prompt in prompts]


@pytest.mark.thorough
def test_it_says_what_the_same_model_says_in_its_seat() -> None:
    """Greedy, so that no noise is between: two speakers, and the team they are the parts of."""
    team = make_team(TeamConfig(tuning="none"), num_agents=2, num_turns=3, seed=0)
    speakers = [load_speaker("tiny", seat=seat, temperature=0.0) for seat in range(2)]
    said = debate(by_seat(speakers))
    assert said == debate(TeamSpeaker(team, Sampling(temperature=0.0), 0))
    assert any(len(set(texts[:2])) == 2 for texts in said)  # each seat has a model of its own
    assert said != debate(by_seat(speakers[::-1]))


@pytest.mark.thorough
def test_a_run_speaks_with_its_trained_policies(tmp_path: Path) -> None:
    """Agent 1 was moved by hand and is trained from turn 2 on; before, it is as it began."""
    config = TrainConfig(steps=1, team=TeamConfig(train_turns=">=2"))
    team, learner = experiment.build(config)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in team.trainable()["agent_1"].values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=noise))
    with RunLog.create(tmp_path / "run", config):
        experiment.save_checkpoint(tmp_path / "run", 0, learner)
    name = str(tmp_path / "run")
    said = debate(by_seat([load_speaker(name, seat=seat, temperature=0.0) for seat in range(2)]))
    assert said == debate(TeamSpeaker(team, Sampling(temperature=0.0), 0))
    untrained = [load_speaker("tiny", seat=seat, temperature=0.0) for seat in range(2)]
    started = debate(by_seat(untrained))
    assert [texts[:2] for texts in said] == [texts[:2] for texts in started]
    assert said != started
    with pytest.raises(ValueError, match="The team was made for 2 agents"):
        load_speaker(name, seat=2)


def test_noise_is_named_by_the_seed() -> None:
    prompt = QUESTIONS[0].prompt + "\nyou : "
    first, again, other = (load_speaker("tiny", seed=seed) for seed in (1, 1, 2))
    texts = [[speaker([prompt] * 8) for _ in range(2)] for speaker in (first, again, other)]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0][0] != texts[0][1]


def test_only_so_many_conversations_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speaker, "REMEMBERED", 2)
    lone = load_speaker("tiny", temperature=0.0)
    prompts = [f"{question.prompt}\nyou : " for question in QUESTIONS]
    texts = lone(prompts)
    starts = [lone._talk(p + t + " more").view[0][1] for p, t in zip(prompts, texts, strict=True)]
    assert (
        starts == [p + t + " more" for p, t in zip(prompts[:2], texts, strict=False)] + prompts[2:]
    )


def test_messages_are_as_short_as_asked() -> None:
    prompt = QUESTIONS[0].prompt + "\nyou : "
    short = load_speaker("tiny", max_new_tokens=2)
    assert all(len(text.split()) <= 2 for text in short([prompt] * 8))


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("tinny", {}, r"no agents 'tinny' \(did you mean 'tiny'\?\)"),
        ("tiny", {"seat": -1}, "seat counts from 0"),
        ("tiny", {"temperature": -1.0}, "temperature must be a number >= 0"),
    ],
)
def test_mistakes_are_named(name: str, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        load_speaker(name, **options)
