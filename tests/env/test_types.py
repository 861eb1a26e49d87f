"""Questions, messages and transcripts: JSON round trips and what may be asked of them."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maporl_env.types import Message, Question, Transcript

QUESTION = Question("q/1", "How many?", "4")
AGENTS = ("agent_0", "agent_1")
ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates included


def make_transcript(texts: list[str], scores: list[float | None]) -> Transcript:
    messages = [
        Message(place // 2, AGENTS[place % 2], text, score)
        for place, (text, score) in enumerate(zip(texts, scores, strict=True))
    ]
    return Transcript(QUESTION, AGENTS).publish(messages)


@given(st.lists(st.tuples(ANY_TEXT, st.none() | st.floats(0, 1)), max_size=6))
def test_transcript_survives_json_and_pickle(spoken: list[tuple[str, float | None]]) -> None:
    transcript = make_transcript([text for text, _ in spoken], [score for _, score in spoken])
    assert Transcript.from_json(transcript.to_json()) == transcript
    assert pickle.loads(pickle.dumps(transcript)) == transcript
    assert transcript.to_json().isascii()


def test_turn_counts_complete_turns_only() -> None:
    assert [make_transcript(["x"] * n, [None] * n).turn for n in range(5)] == [0, 0, 1, 1, 2]


def test_of_turn_and_message_find_what_was_said() -> None:
    transcript = make_transcript(["a", "b", "c"], [None] * 3)
    assert [m.text for m in transcript.of_turn(0)] == ["a", "b"]
    assert [m.text for m in transcript.of_turn(1)] == ["c"]
    assert transcript.message(0, "agent_1").text == "b"
    assert transcript.texts_of("agent_0") == ("a", "c")
    with pytest.raises(ValueError, match="agent_1 has not spoken in turn 1"):
        transcript.message(1, "agent_1")


def test_scores_are_written_into_their_turn_only() -> None:
    before = make_transcript(["a", "b", "c", "d"], [0.1, 0.2, None, None])
    after = before.with_scores(1, {"agent_0": 0.5, "agent_1": None})
    assert [m.score for m in after.messages] == [0.1, 0.2, 0.5, None]
    assert [m.score for m in before.messages] == [0.1, 0.2, None, None]
    assert [m.text for m in after.messages] == ["a", "b", "c", "d"]


def test_publish_leaves_the_shorter_transcript_alone() -> None:
    short = Transcript(QUESTION, AGENTS)
    short.publish([Message(0, "agent_0", "a")])
    assert short.messages == ()


def test_question_survives_a_dict() -> None:
    assert Question.from_dict(QUESTION.to_dict()) == QUESTION


TOLD = Question("q/2", "How many?", "4", private=("You have 3.", ""), hidden="3 + 1")


def test_private_and_hidden_survive_json_and_stay_out_of_other_lines() -> None:
    transcript = Transcript(TOLD, AGENTS).publish([Message(0, "agent_0", "a")])
    assert Transcript.from_json(transcript.to_json()) == transcript
    assert TOLD.to_dict()["private"] == ["You have 3.", ""]
    # Byte for byte as lines were written before there were private texts.
    assert make_transcript(["a"], [None]).to_json() == (
        '{"question": {"id": "q/1", "prompt": "How many?", "answer": "4", "kind": "number"}, '
        '"agents": ["agent_0", "agent_1"], "messages": [{"turn": 0, "agent": "agent_0", '
        '"text": "a", "score": null, "cut": false, "shown": "score"}]}'
    )


def test_neither_is_shown_in_error_texts() -> None:
    assert "3" not in f"{TOLD!r} {[TOLD]}"


def test_what_is_private_is_a_text_per_agent() -> None:
    assert [TOLD.private_of(seat) for seat in (0, 1)] == ["You have 3.", ""]
    assert QUESTION.private_of(5) == ""
    assert TOLD.dealt_to((1, 0, 0)).private == ("", "You have 3.", "You have 3.")
    assert QUESTION.dealt_to((0,)) is QUESTION
    assert (TOLD.public.private, TOLD.public.hidden, QUESTION.public) == ((), "", QUESTION)
    assert TOLD.words != Question("q/2", "How many?", "4", private=("You have 2.", "")).words
    for wrong in ("text", (1,), None):
        with pytest.raises(TypeError, match="private must be a list of texts"):
            Question("q", "?", "1", private=wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="hidden must be a text"):
        Question("q", "?", "1", hidden=None)  # type: ignore[arg-type]
