"""Banks of lessons in files: what is read back, and what happens to damaged ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.protocols import Lessons
from maporl_env.protocols.bank_file import digest, earlier, read_banks, remember
from maporl_env.types import Question, Transcript

QUESTION = Question("q", "Sort the list of numbers.", "7", "number")
OTHER = Question("p", "Reverse the list.", "7", "number")


def played(questions: list[Question], **options: object) -> BatchedDebate:
    """Play three turns with two agents; a lesson names its question and agent."""
    config = DebateConfig(
        questions,
        protocol="lessons",
        num_agents=2,
        num_turns=3,
        protocol_options=options,
        verifier=lambda asked, texts: [0.25 + 0.5 * ("1" in text) for text in texts],
    )
    batch = BatchedDebate(config, len(questions))
    batch.reset(questions)
    while prompts := batch.prompts():
        batch.step(
            [
                f"lesson of {questions[p.debate].id}{p.agent_index}"
                if p.turn == 1
                else rf"\boxed{{{p.agent_index}}}"
                for p in prompts
            ]
        )
    return batch


def filled(folder: Path, questions: list[Question] | None = None) -> Path:
    path = folder / "banks.jsonl"
    batch = played(questions or [QUESTION, OTHER])
    remember(path, Lessons(num_turns=3), batch.transcripts)
    return path


def test_a_bank_is_read_back_with_its_last_factors(tmp_path: Path) -> None:
    banks = read_banks(filled(tmp_path))
    words, lessons = banks["q"]
    assert words == digest(QUESTION)
    assert [one.text for one in lessons] == ["lesson of q0", "lesson of q1"]
    assert [one.speedup for one in lessons] == [0.25, 0.75]
    # Attempts of the last turn scored .25 and .75: one of two beat lesson 0, none lesson 1.
    assert [one.factor for one in lessons] == pytest.approx([1.0, 0.9])
    assert set(banks) == {"q", "p"}


def test_the_first_attempts_read_the_lessons_of_earlier_episodes(tmp_path: Path) -> None:
    path = filled(tmp_path)
    config = DebateConfig(
        [QUESTION],
        protocol="lessons",
        num_agents=2,
        num_turns=3,
        protocol_options={"bank_file": str(path), "pay_lessons": "factor"},
        verifier=lambda asked, texts: [1.0] * len(texts),
    )
    batch = BatchedDebate(config, 1)
    batch.reset()
    assert all("lesson of q1" in prompt.text for prompt in batch.prompts())
    assert not any("lesson of p" in prompt.text for prompt in batch.prompts())
    while prompts := batch.prompts():
        batch.step(["new lesson" if p.turn == 1 else r"\boxed{1}" for p in prompts])
    lessons, _ = config.load().protocol.bank(batch.transcripts[0])
    assert [one.text for one in lessons][2:] == ["new lesson"] * 2
    assert [one.factor for one in lessons[:2]] == pytest.approx([1.1, 1.1])
    assert batch.turn_rewards()[0][1] == pytest.approx([-0.1, -0.1])  # of the new ones alone


def test_a_later_line_on_a_question_replaces_an_earlier_one(tmp_path: Path) -> None:
    path = filled(tmp_path)
    again = played([QUESTION], bank_file=str(path))
    remember(path, Lessons(num_turns=3, bank_file=str(path)), again.transcripts)
    assert len(read_banks(path)["q"][1]) == 4
    assert len(read_banks(path)["p"][1]) == 2


def test_what_a_killed_process_left_is_set_aside_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = filled(tmp_path)
    whole = path.read_bytes()
    for cut in range(1, len(whole.splitlines()[-1]), 7):
        path.write_bytes(whole[: -1 - cut])
        assert set(read_banks(path)) == {"q"}
        remember(path, Lessons(num_turns=3), played([OTHER]).transcripts)
        assert set(read_banks(path)) == {"q", "p"}
        assert path.read_bytes().startswith(whole.splitlines(keepends=True)[0])
    assert (tmp_path / "banks.jsonl.broken").read_bytes().count(b"\n") >= 1


def broken(path: Path, change: dict[str, object], line: int = 0) -> None:
    rows = [json.loads(text) for text in path.read_text().splitlines()]
    if "text" in change or set(change) & {"speedup", "quality", "factor"}:
        rows[line]["lessons"][0] |= change
    else:
        rows[line] |= change
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"factor": float("nan")}, "factor of a lesson must be a finite number >= 0, not nan"),
        ({"factor": float("inf")}, "factor of a lesson must be a finite number >= 0, not inf"),
        ({"speedup": "2"}, "speedup of a lesson must be a finite number >= 0, not '2'"),
        ({"speedup": True}, "speedup of a lesson must be a finite number >= 0, not True"),
        ({"quality": None}, "quality of a lesson must be a finite number >= 0, not None"),
        ({"text": 3}, "no text in field 'text'"),
        ({"lessons": "none"}, "no list in field 'lessons'"),
        ({"lessons": [3]}, "expected an object, not int"),
        ({"question": 3}, "no text in field 'question'"),
    ],
)
def test_a_wrong_line_is_named_and_the_file_stays(
    tmp_path: Path, change: dict[str, object], complaint: str
) -> None:
    path = filled(tmp_path)
    broken(path, change, line=1)
    before = path.read_bytes()
    for use in (
        lambda: read_banks(path),
        lambda: Lessons(num_turns=3, bank_file=str(path)),
        lambda: remember(path, Lessons(num_turns=3), played([QUESTION]).transcripts),
    ):
        with pytest.raises(ValueError, match="line 2: ") as raised:
            use()
        assert complaint in str(raised.value)
        assert str(path) in str(raised.value)
        assert "\n" not in str(raised.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("line", [b"[1, 2]", b"not json", b"\xff\xfe", b"[" * 100_000])
def test_a_line_that_is_no_bank_is_named(tmp_path: Path, line: bytes) -> None:
    path = filled(tmp_path)
    path.write_bytes(line + b"\n" + path.read_bytes())
    with pytest.raises(ValueError, match="line 1: "):
        read_banks(path)


def test_the_bank_of_another_task_is_refused(tmp_path: Path) -> None:
    path = filled(tmp_path, [replace(QUESTION, prompt="Something else.")])
    with pytest.raises(ValueError, match="lessons on another question that is called 'q'"):
        earlier(str(path), QUESTION)
    assert earlier(str(path), OTHER) == ()  # nothing is known of it


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot read the bank file"):
        Lessons(num_turns=3, bank_file=str(tmp_path / "none.jsonl"))
    with pytest.raises(ValueError, match="cannot read the bank file"):
        Lessons(num_turns=3, bank_file=str(tmp_path))


def test_an_episode_without_lessons_is_remembered_as_such(tmp_path: Path) -> None:
    path = tmp_path / "banks.jsonl"
    remember(path, Lessons(num_turns=3), [Transcript(QUESTION, ("agent_0",), (), ())])
    assert read_banks(path) == {"q": (digest(QUESTION), ())}
    assert earlier(str(path), QUESTION) == ()
