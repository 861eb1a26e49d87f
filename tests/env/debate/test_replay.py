"""Debates played by recorded text, and the marks of real recordings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maporl_env import debate_v0, replay
from maporl_env.answers import extract_answer
from maporl_env.replay import Recorded, Recording
from maporl_env.types import Question, Transcript

MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
QUESTION = Question("q", "2 + 2?", "4", "last_line")


def row(**changes: Any) -> dict[str, Any]:
    solutions = {
        "small": {"solution": "2 + 2 = 5\nA: 5", "is_correct": False},
        "large": {"solution": "Two and two.\nA: 4\n", "is_correct": True},
    }
    return {"question": "2 + 2?", "ground_truth": "2 + 2 = <<2+2=4>>4\nA: 4", **solutions} | changes


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def real(data_dir: Path) -> list[Recording]:
    path = data_dir / "gsm8k" / "example_model_solutions.jsonl"
    if not path.is_file():
        pytest.skip(f"no real data: {path} is not a file")
    return replay.load(path)


def test_the_key_agrees_with_the_published_marks_of_3600_real_solutions(
    real: list[Recording],
) -> None:
    batch = replay.play(real)
    scores = np.array([[m.score for m in t.messages] for t in batch.transcripts])
    marks = np.array([recording.marks for recording in real])
    assert scores.shape == marks.shape == (900, 4)
    # 99.5 % are asked for. All agree: there is none to list and explain.
    assert np.argwhere((scores == 1) != marks).tolist() == []
    right = dict(zip(real[0].speakers, marks.sum(axis=0).tolist(), strict=True))
    assert right == dict(zip(MODELS, (200, 361, 315, 516), strict=True))
    assert not batch.faults


def test_real_text_is_shown_exactly_as_recorded(real: list[Recording]) -> None:
    recording = next(r for r in real if "\u2019" in r.texts[0][0])
    batch = replay.start([recording], num_turns=2)
    batch.step(Recorded([recording])(batch.prompts()))
    for message, (text,) in zip(batch.transcripts[0].messages, recording.texts, strict=True):
        assert message.text == text
    for prompt in batch.prompts():
        for text in recording.texts:
            assert text[0] in prompt.text


def test_a_held_answer_is_paid_its_own_score_in_every_turn() -> None:
    held = Recording(QUESTION, ("wrong", "right"), (("A: 5",), ("A: 4",)), (False, True))
    batch = replay.play([held], num_turns=3, gamma=1.0)
    # V = [[0, 1]] * 3. gamma 1: R(0) = (V + .5 + .5) / 3, R(1) = (V + .5) / 2, R(2) = V.
    expected = [[1 / 3, 2 / 3], [0.25, 0.75], [0, 1]]
    assert batch.turn_rewards()[0] == pytest.approx(np.array(expected))
    assert batch.debates[0].outcome() == (4, 5)


def test_what_was_recorded_by_turn_is_said_by_turn() -> None:
    recording = Recording(QUESTION, ("a", "b"), (("0", "1", "2"), ("x", "y")))
    assert recording.num_turns == 3
    assert [recording.messages(turn) for turn in range(4)] == [
        {"agent_0": "0", "agent_1": "x"},
        {"agent_0": "1", "agent_1": "y"},
        {"agent_0": "2", "agent_1": "y"},
        {"agent_0": "2", "agent_1": "y"},
    ]
    assert replay.play([recording]).transcripts[0].texts_of("agent_1") == ("x", "y", "y")


def test_each_debate_of_a_batch_plays_its_own_recording() -> None:
    recordings = [Recording(QUESTION, ("a",), ((f"A: {n}",),)) for n in range(5)]
    said = [t.texts_of("agent_0") for t in replay.play(recordings, num_turns=2).transcripts]
    assert said == [(f"A: {n}", f"A: {n}") for n in range(5)]


def test_the_pettingzoo_environment_plays_a_recording_alike() -> None:
    recording = Recording(QUESTION, ("a", "b"), (("A: 5", "A: 4"), ("A: 4", "A: 3")))
    env = debate_v0.parallel_env(task=[QUESTION], num_agents=2, num_turns=2)
    env.reset(seed=0)
    for turn in range(2):
        env.step(recording.messages(turn))
    assert env.transcript == replay.play([recording]).transcripts[0]


def test_a_saved_transcript_is_played_again_to_the_same_end(tmp_path: Path) -> None:
    recording = Recording(QUESTION, ("a", "b"), (("A: 5", "A: 4"), ("A: 4", "A: 3")))
    first = replay.play([recording]).transcripts[0]
    path = tmp_path / "transcripts.jsonl"
    path.write_text(first.to_json() + "\n", "utf-8")
    [again] = replay.load(path)
    assert (again.speakers, again.marks) == (("agent_0", "agent_1"), ())
    assert replay.play([again]).transcripts == [first]


def test_solutions_are_read_by_their_last_line(tmp_path: Path) -> None:
    [recording] = replay.load(write(tmp_path / "mine.jsonl", row()))
    assert recording.question == Question("mine/0", "2 + 2?", "4", "last_line")
    assert recording.speakers == ("small", "large")
    assert recording.texts == (("2 + 2 = 5\nA: 5",), ("Two and two.\nA: 4\n",))
    assert recording.marks == (False, True)
    assert "A: 34" in replay.start([recording]).prompts()[0].text


@pytest.mark.parametrize(
    ("text", "answer"),
    [("A: 4", 4), ("so 5\nA: $1,234\n\n", 1234), ("\\boxed{4}", None), ("A: 4\nor 5", None)],
)
def test_the_kind_of_such_answers(text: str, answer: int | None) -> None:
    assert extract_answer(text, "last_line") == answer


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"question": "2 + 2?"}, "line 1: a recording has question, ground_truth"),
        ({"question": "2 + 2?", "ground_truth": "A: 4"}, "line 1: a recording has"),
        (row(ground_truth="four"), "line 1: ground_truth has no last line 'A: N' but 'four'"),
        (row(ground_truth=4), "line 1: ground_truth must be of type str, not 4"),
        (row(large={"is_correct": True}), "line 1: solution must be of type str, not None"),
        (row(large={"solution": "A: 4", "is_correct": 1}), "is_correct must be of type bool"),
        (Transcript(QUESTION, ("agent_0",)).to_dict(), "line 1: recording of 'q': every speaker"),
    ],
)
def test_what_is_no_recording_is_refused_with_its_place(
    tmp_path: Path, bad: dict[str, Any], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        replay.load(write(tmp_path / "bad.jsonl", bad))


def test_an_empty_or_absent_file_and_uneven_recordings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no recording"):
        replay.load(write(tmp_path / "empty.jsonl"))
    with pytest.raises(FileNotFoundError, match=r"no such file: .*absent\.jsonl"):
        replay.load(tmp_path / "absent.jsonl")
    one, two = (Recording(QUESTION, ("x",) * n, (("A: 4",),) * n) for n in (1, 2))
    with pytest.raises(ValueError, match=r"equally many speakers, got \[1, 2\]"):
        replay.play([one, two])
    with pytest.raises(ValueError, match="equally many speakers, got none"):
        replay.play([])
