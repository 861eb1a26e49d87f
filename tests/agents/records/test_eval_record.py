"""The files of an evaluation: what a kill leaves, and whose they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from maporl_agents.records.eval_record import EvalRecord, Played
from maporl_env.types import Message, Question, Transcript

QUESTIONS = [Question(f"q{i}", f"{i} ?", "1") for i in range(5)]
SETTINGS: dict[str, Any] = {"game": {"task": "x", "num_turns": 2}, "seed": 1}


def played(index: int, **more: Any) -> Played:
    message = Message(0, "agent_0", f"text {index} \ud800", 0.5)
    return Played(Transcript(QUESTIONS[index], ("agent_0",), (message,)), 10 + index, **more)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    out = tmp_path / "new" / "x.json"
    with EvalRecord(out, SETTINGS) as record:
        assert record.kept("sampled", QUESTIONS, 2, 2) == [[], []]
        record.add("sampled", 0, [played(0, picks=(0.5,)), played(1, picks=(None,))])
        assert json.loads(out.read_text()) == {"finished": False, "settings": SETTINGS}
    with EvalRecord(out, SETTINGS) as record:
        [first, second] = record.kept("sampled", QUESTIONS, 2, 2)
        assert (first, second) == ([played(0, picks=(0.5,)), played(1, picks=(None,))], [])
        record.finish({"sampled": {"vote": 0.5}})
    found = json.loads(out.read_text())
    assert found == {"sampled": {"vote": 0.5}, "finished": True, "settings": SETTINGS}


@pytest.mark.parametrize(
    ("lines", "torn", "kept"),
    [
        (3, b"", 2),  # half of the second batch
        (2, b'{"sample": 0, "tok', 2),  # half a line
        (5, b"", 5),  # a whole sample, whose last batch is smaller
        (4, b"{}", 4),
    ],
)
def test_a_torn_batch_is_played_again(tmp_path: Path, lines: int, torn: bytes, kept: int) -> None:
    out = tmp_path / "x.json"
    with EvalRecord(out, SETTINGS) as record:
        record.add("sampled", 0, [played(i) for i in range(lines)])
    file = out.with_suffix(".jsonl")
    file.write_bytes(file.read_bytes() + torn)
    with EvalRecord(out, SETTINGS) as record:
        [first, second] = record.kept("sampled", QUESTIONS, 2, 2)
        assert first == [played(i) for i in range(kept)]
        assert second == []
    assert file.read_bytes().count(b"\n") == kept
    assert file.read_bytes().endswith(b"\n")


def test_other_settings_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    out = tmp_path / "x.json"
    with EvalRecord(out, SETTINGS) as record:
        record.add("sampled", 0, [played(0)])
    before = out.read_bytes(), out.with_suffix(".jsonl").read_bytes()
    other = {**SETTINGS, "game": {"task": "x", "num_turns": 3}}
    with pytest.raises(ValueError, match=r"differ in game\.num_turns \(there 2, here 3\)"):
        EvalRecord(out, other)
    assert (out.read_bytes(), out.with_suffix(".jsonl").read_bytes()) == before
    with EvalRecord(out, other, overwrite=True) as record:
        assert record.kept("sampled", QUESTIONS, 1, 2) == [[]]
    with EvalRecord(out, other, overwrite=True) as record:  # the same settings go on all the same
        record.add("sampled", 0, [played(0), played(1)])
    with EvalRecord(out, other, overwrite=True) as record:
        assert len(record.kept("sampled", QUESTIONS, 1, 2)[0]) == 2


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "x.json"
    out.write_text('{"my": "file"}')
    with pytest.raises(ValueError, match="results of other settings: choose another --out"):
        EvalRecord(out, SETTINGS)
    out.unlink()
    out.with_suffix(".jsonl").write_text("mine\n")
    with pytest.raises(ValueError, match=r"x\.jsonl is there, but .* is not"):
        EvalRecord(out, SETTINGS)
    assert out.with_suffix(".jsonl").read_text() == "mine\n"
    with EvalRecord(out, SETTINGS, overwrite=True) as record:
        assert record.kept("sampled", QUESTIONS, 1, 2) == [[]]


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (b'{"sample": 0}', "line 1 is no debate of an evaluation"),
        (b"[" * 9999, "line 1 is no debate of an evaluation"),
        (json.dumps({"sample": 1, "tokens": 1, **played(0).transcript.to_dict()}).encode(), "'q0'"),
        (json.dumps({"sample": 0, "tokens": 1, **played(1).transcript.to_dict()}).encode(), "'q1'"),
    ],
)
def test_damaged_lines_are_named(tmp_path: Path, line: bytes, match: str) -> None:
    out = tmp_path / "x.json"
    with EvalRecord(out, SETTINGS) as record:
        out.with_suffix(".jsonl").write_bytes(line + b"\n")
        with pytest.raises(ValueError, match=match):
            record.kept("sampled", QUESTIONS, 1, 1)


def test_two_processes_do_not_write_at_once(tmp_path: Path) -> None:
    out = tmp_path / "x.json"
    with (
        EvalRecord(out, SETTINGS),
        pytest.raises(ValueError, match="another process is writing"),
    ):
        EvalRecord(out, SETTINGS)
    EvalRecord(out, SETTINGS).close()
