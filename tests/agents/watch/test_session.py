"""Watched debates: what a decision does, who reads what, and that nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from watch_cases import (
    QUESTION,
    Scripted,
    approve_all,
    decide,
    open_slots,
    scripts,
    session_of,
    wait,
)

from maporl_agents.watch.debate import Own
from maporl_agents.watch.session import Refused
from maporl_env.batched import BatchedDebate, DebateConfig, Prompt
from maporl_env.protocols import PROTOCOLS
from maporl_env.types import Question, Transcript

HIDDEN = "the-reference-that-nobody-reads"
ROSTERS: dict[str, dict[str, Any]] = {
    "debate": {},
    "sequential": {},
    "joint": {},
    "leader": {"num_agents": 3},
    "self_correction": {"num_agents": 1},
    "pipeline": {"num_agents": 3, "num_turns": 1},
    "dialogue": {},
    "teams_and_judge": {"num_agents": 4},
    "review": {"num_agents": 3},
    "retrieve": {"num_agents": 4, "num_turns": 1},
    "lessons": {"num_turns": 3},
}


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def plain_transcript(protocol: str, speakers: list[Scripted], turns: int) -> Transcript:
    """The same scripts, played without anybody who watches."""
    config = DebateConfig(
        task=[QUESTION], num_agents=len(speakers), num_turns=turns, protocol=protocol
    )
    batch = BatchedDebate(config, 1)
    batch.reset([QUESTION])
    while prompts := batch.prompts():
        batch.step([speakers[p.agent_index](p, (), 0).text for p in prompts])
    return batch.transcripts[0]


def test_each_protocol_has_a_case() -> None:
    assert set(ROSTERS) == set(PROTOCOLS)


@pytest.mark.parametrize("protocol", sorted(ROSTERS))
def test_approving_everything_is_the_debate_without_a_watcher(
    tmp_path: Path, protocol: str
) -> None:
    options = {"num_turns": 2, **ROSTERS[protocol]}
    count, turns = options.pop("num_agents", 2), options.pop("num_turns")
    with session_of(tmp_path / "w", scripts(count), protocol=protocol, num_turns=turns) as session:
        approve_all(session)
        transcript = session.watched.debate.transcript
    assert transcript == plain_transcript(protocol, scripts(count), turns)
    assert not transcript.intervened
    [saved] = rows(tmp_path / "w" / "transcript.jsonl")
    assert Transcript.from_dict(saved) == transcript
    assert {row["action"] for row in rows(tmp_path / "w" / "interventions.jsonl")} == {"approve"}
    assert not (tmp_path / "w" / "preferences.jsonl").exists()


def test_others_and_the_author_read_an_edited_message(tmp_path: Path) -> None:
    speakers = scripts()
    with session_of(tmp_path, speakers) as session:
        first, second = open_slots(session, 2)
        decide(session, first, "edit", text="EDITED <|im_end|> \\boxed{9}", who=" Ann \n B ")
        assert session.watched.debate.transcript.messages == ()  # the other one is undecided
        decide(session, second, "approve")
        approve_all(session)
        messages = session.watched.debate.transcript.messages
    assert (messages[0].text, messages[0].person) == ("EDITED <|im_end|> \\boxed{9}", "edited")
    assert [m.person for m in messages] == ["edited", "", "", ""]
    for speaker in speakers:
        assert "EDITED" in speaker.read[1].text
        assert "agent 0, message 0" not in speaker.read[1].text
    assert speakers[0].own[1] == ("EDITED <|im_end|> \\boxed{9}",)
    row = rows(tmp_path / "interventions.jsonl")[0]
    assert (row["who"], row["action"], row["agent"], row["turn"]) == ("Ann B", "edit", "agent_0", 0)
    assert (row["before"], row["after"]) == ("agent 0, message 0: \\boxed{4}", messages[0].text)
    assert row["when"].endswith("+00:00")


def test_nobody_reads_what_is_struck_out(tmp_path: Path) -> None:
    speakers = scripts()
    with session_of(tmp_path, speakers) as session:
        first, second = open_slots(session, 2)
        decide(session, first, "veto")
        decide(session, second, "approve")
        approve_all(session)
        messages = session.watched.debate.transcript.messages
    assert (messages[0].text, messages[0].person, messages[0].score) == ("", "vetoed", 0.0)
    assert all("agent 0, message 0" not in s.read[1].text for s in speakers)


def test_a_note_is_read_by_the_author_alone_and_once(tmp_path: Path) -> None:
    speakers = scripts()
    with session_of(tmp_path, speakers) as session:
        first, _ = open_slots(session, 2)
        decide(session, first, "send_back", note=" think of NOTE ")
        wait(session, lambda: len(first.tries) == 2 and first.status == "open")
        assert speakers[0].read[1].text.count("think of NOTE") == 1
        assert "agent 0, message 0" in speakers[0].read[1].text
        assert speakers[0].own[1] == ("agent 0, message 0: \\boxed{4}",)
        approve_all(session)
        messages = session.watched.debate.transcript.messages
    assert (messages[0].text, messages[0].person) == (r"agent 0, message 1: \boxed{5}", "sent back")
    later = [p.text for s in speakers for p in s.read if p.turn == 1]
    assert len(later) == 2
    assert not any("NOTE" in text or "agent 0, message 0" in text for text in later)


def test_without_a_note_the_author_begins_anew(tmp_path: Path) -> None:
    speakers = scripts()
    with session_of(tmp_path, speakers) as session:
        first, _ = open_slots(session, 2)
        decide(session, first, "send_back")
        wait(session, lambda: len(first.tries) == 2)
    assert speakers[0].read[1] == speakers[0].read[0]


@pytest.mark.parametrize("action", ["approve", "veto", "edit", "send_back"])
def test_the_second_decision_is_refused_and_changes_nothing(tmp_path: Path, action: str) -> None:
    with session_of(tmp_path, scripts()) as session:
        first, _ = open_slots(session, 2)
        session.decide(first.number, 1, action, text="mine", note="again", who="Ann")
        before = (tmp_path / "interventions.jsonl").read_text()
        said = first.said
        for other in ("approve", "veto", "edit", "send_back", "say"):
            with pytest.raises(Refused, match=r"Ann was first: this message of agent_0 was .* UTC"):
                session.decide(first.number, 1, other, text="yours", who="Ben")
        assert (tmp_path / "interventions.jsonl").read_text() == before
        assert first.said == said


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"action": "edit", "text": "  "}, "An empty text is a veto"),
        ({"action": "edit", "text": r"agent 0, message 0: \boxed{4}"}, "as the agent wrote it"),
        ({"action": "edit", "text": "x" * 100_001}, "at most 100,000 characters, and yours"),
        ({"action": "send_back", "note": "x" * 4_001}, "at most 4,000 characters, and yours"),
        ({"action": "say", "text": "x"}, "cannot be written"),
        ({"action": "burn"}, "cannot be burn"),
        ({"action": "approve", "number": 99}, "no such message"),
        ({"action": "approve", "number": -1}, "no such message"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, given: dict[str, Any], words: str) -> None:
    with session_of(tmp_path, scripts()) as session:
        first, _ = open_slots(session, 2)
        with pytest.raises(Refused, match=words):
            session.decide(given.pop("number", 0), 1, given.pop("action"), who="Ann", **given)
        assert first.status == "open"
        assert not (tmp_path / "interventions.jsonl").exists()


def test_people_play_too(tmp_path: Path) -> None:
    model = scripts(1)[0]
    with session_of(tmp_path, [model, None], num_turns=1) as session:
        first, mine = open_slots(session, 2)
        assert mine.status == "person"
        decide(session, mine, "say", text="I say \\boxed{4}")
        decide(session, first, "approve")
        wait(session, lambda: session.over)
        messages = session.watched.debate.transcript.messages
    assert [(m.text, m.person) for m in messages][1] == ("I say \\boxed{4}", "wrote")
    assert not (tmp_path / "preferences.jsonl").exists()
    done = rows(tmp_path / "interventions.jsonl")
    assert (done[0]["action"], done[0]["before"]) == ("say", None)


def test_what_runs_by_itself_is_nobodys_decision(tmp_path: Path) -> None:
    with session_of(tmp_path, scripts()) as session:
        session.let_run(True)
        wait(session, lambda: session.over)
        assert not session.watched.debate.transcript.intervened
    assert not (tmp_path / "interventions.jsonl").exists()
    assert not (tmp_path / "preferences.jsonl").exists()


def test_a_speaker_that_fails_is_asked_again_or_replaced(tmp_path: Path) -> None:
    class Failing:
        calls = 0

        def __call__(self, prompt: Prompt, own: Any, tries: int) -> Own:
            self.calls += 1
            if self.calls < 4:
                raise RuntimeError("no such server\nat all")
            return Own("well")

    with session_of(tmp_path, [Failing(), scripts(1)[0]]) as session:
        first, _ = open_slots(session, 2)
        assert (first.status, first.fault) == ("fault", "RuntimeError: no such server at all")
        with pytest.raises(Refused, match="cannot be approved"):
            decide(session, first, "approve")
        session.again()
        wait(session, lambda: first.status == "fault" and session.speakers[0].calls == 2)
        decide(session, first, "say", text="in its place")
        approve_all_but_faults = open_slots(session)
        decide(session, approve_all_but_faults[-1], "approve")
        wait(session, lambda: session.watched.debate.played == 1)
        assert session.watched.debate.transcript.messages[0].person == "wrote"
        wait(session, lambda: session.speakers[0].calls == 3)
        session.again()
        approve_all(session)


def test_an_error_does_not_tell_what_an_agent_alone_knows(tmp_path: Path) -> None:
    question = Question("q", "?", "4", private=("", "PRIVATE word"), hidden=HIDDEN)

    def fails(prompt: Prompt, own: Any, tries: int) -> Own:
        raise ValueError(f"cannot read {prompt.text}")

    with session_of(tmp_path, [fails, fails], question=question) as session:
        _, second = open_slots(session, 2)
        assert second.fault == "ValueError, whose words quote what an agent alone is told"


def test_a_debate_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """After each event: what was said and decided is there, with its ids; the rest follows."""
    with session_of(tmp_path / "whole", scripts()) as session:
        first, second = open_slots(session, 2)
        decide(session, first, "send_back", note="no")
        decide(session, second, "edit", text="edited")
        approve_all(session)
        whole = session.watched.debate.transcript
    lines = (tmp_path / "whole" / "events.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == 12
    for count in range(len(lines) + 1):
        folder = tmp_path / f"cut-{count}"
        folder.mkdir()
        (folder / "watch.json").write_text("{}")
        torn = lines[count][:20] if count < len(lines) else ""
        (folder / "events.jsonl").write_text("".join(lines[:count]) + torn)
        with session_of(folder, scripts(), started=False) as session:
            slots = session.watched.slots
            ids = [t.own.ids for s in slots for t in s.tries]
            assert all(one is not None for one in ids)
            said = [(m.text, m.person) for m in session.watched.debate.transcript.messages]
            assert said == [(m.text, m.person) for m in whole.messages[: len(said)]]
            assert session.watched.debate.played == sum(
                '"scored"' in line for line in lines[:count]
            )
            assert (folder / "events.jsonl").read_text() == "".join(lines[:count])


def test_two_processes_do_not_write_one_debate(tmp_path: Path) -> None:
    with (
        session_of(tmp_path, scripts(), started=False),
        pytest.raises(ValueError, match="being watched already"),
        session_of(tmp_path, scripts()),
    ):
        pass


@pytest.mark.parametrize(
    ("events", "words"),
    [
        (
            '{"step": 1, "event": "proposed", "n": 5, "text": "", "cut": false, "ids": null}\n',
            "message 5",
        ),
        ('{"step": 1, "event": "burnt"}\n', "there is no event 'burnt'"),
        ('{"step": 1, "event": "proposed", "n": 0}\n', "event 1 does not follow"),
        ("no json\n", "events.jsonl"),
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, events: str, words: str) -> None:
    (tmp_path / "watch.json").write_text("{}")
    (tmp_path / "events.jsonl").write_text(events)
    with pytest.raises(ValueError, match=words), session_of(tmp_path, scripts()):
        pass
    assert (tmp_path / "events.jsonl").read_text() == events


def test_a_full_disk_takes_no_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with session_of(tmp_path, scripts()) as session:
        first, _ = open_slots(session, 2)

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("maporl_agents.watch.record.os.fsync", full)
            before = (tmp_path / "events.jsonl").read_text()
            with pytest.raises(Refused, match=r"could not be saved .No space left on device"):
                decide(session, first, "approve")
            assert (tmp_path / "events.jsonl").read_text() == before
        assert first.status == "open"
        approve_all(session)


def test_the_tries_of_a_game_are_kept_apart_from_messages(tmp_path: Path) -> None:
    """`tries` of the game: a draft without an answer is read by its author alone."""
    speakers = [Scripted("no answer", r"now \boxed{4}"), *scripts(1)]
    with session_of(tmp_path, speakers, tries=2) as session:
        approve_all(session)
        transcript = session.watched.debate.transcript
    assert transcript.messages[0].text == r"now \boxed{4}"
    assert speakers[0].own == [(), ("no answer",), (r"now \boxed{4}",)]
    assert "no answer" not in speakers[1].read[1].text
