"""Supervised learning on a file of transcripts: prompts of this game, texts of the file."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from small_runs import SMALL, maporl

from maporl_agents.config import Sampling, WarmupConfig
from maporl_agents.play.rollout import play
from maporl_agents.records.log_lines import log_lines
from maporl_agents.training import experiment
from maporl_agents.training.given_messages import given_rows, read_transcripts, rows_of
from maporl_agents.training.make_game import make_game
from maporl_agents.update.batching import collate
from maporl_env.types import Message, Question, Transcript

QUESTION = Question("q", "Tom buys 2 nut and 3 net . how much ?", "39", "number")


def debate_of(texts: list[str], agents: tuple[str, ...] = ("agent_0", "agent_1")) -> Transcript:
    messages = tuple(
        Message(i // len(agents), agents[i % len(agents)], text, 1.0)
        for i, text in enumerate(texts)
    )
    return Transcript(QUESTION, agents, messages)


def saved(folder: Path, transcripts: list[Transcript]) -> Path:
    path = folder / "debates.jsonl"
    path.write_text("".join(one.to_json() + "\n" for one in transcripts), encoding="utf-8")
    return path


def test_a_debate_of_the_run_gives_the_tokens_that_were_sampled(tmp_path: Path) -> None:
    """What the models sampled, saved as text and read again, is the batch of the same debates."""
    _, learner = experiment.build(SMALL)
    team, game = learner.team, make_game(SMALL.game)
    debates = game.debates(3)
    played = play(team, debates, game.questions("train")[:3], Sampling(max_new_tokens=40), seed=1)
    path = saved(tmp_path, [one.transcript for one in played])
    rows = given_rows(team, game.debates(1), read_transcripts(path))
    batch, _ = collate(team, played)
    whole = [i for i, one in enumerate(c for p in played for c in p.completions)
             if one.ids[-1] in team.base_of("agent_0").chat.stop_ids]  # fmt: skip
    assert len(rows) == len(batch)
    assert len(whole) > 5
    for i in whole:
        assert rows[i].completion.ids == tuple(batch.ids[i][batch.mask[i]].tolist())
        assert (rows[i].prompt, rows[i].policy) == (batch.prompts[i], batch.policies[i])


def test_debates_whose_turns_are_not_all_scored_are_read_too(tmp_path: Path) -> None:
    game_of_lessons = replace(SMALL.game, protocol="lessons", num_turns=3)
    config = replace(SMALL, game=game_of_lessons)
    _, learner = experiment.build(config)
    game = make_game(game_of_lessons)
    played = play(
        learner.team,
        game.debates(2),
        game.questions("train")[:2],
        Sampling(max_new_tokens=8),
        seed=1,
    )
    path = saved(tmp_path, [one.transcript for one in played])
    rows = given_rows(learner.team, game.debates(1), read_transcripts(path))
    assert len(rows) == 2 * 3 * SMALL.game.num_agents
    first = [prompt for one in played for prompt in one.prompts[: SMALL.game.num_agents]]
    assert set(first) <= {row.prompt for row in rows}


@pytest.mark.thorough
def test_a_run_learns_the_messages_of_the_file(tmp_path: Path) -> None:
    text = r"2 * 9 = 18 , 3 * 7 = 21 , \boxed{ 39 }"
    turns = SMALL.game.num_turns
    path = saved(tmp_path, [debate_of([text] * 2 * turns)])
    warm = WarmupConfig(steps=6, transcripts=str(path), batch_size=4)
    screen = Console(file=io.StringIO(), width=200, record=True)
    experiment.run(replace(SMALL, steps=1, warmup=warm), tmp_path / "run", screen)
    lines = [row for row, _ in log_lines(tmp_path / "run" / "warmup.jsonl")]
    assert lines[-1]["nll"] < 0.5 * lines[0]["nll"]
    assert f"{2 * turns} messages of 1 given transcripts; imitated in 6" in screen.export_text()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no transcript"),
        ("{}\n", "line 1 of .* is no transcript"),
        ("[1]\n", "line 1 of .* is no transcript"),
        (debate_of(["a"]).to_json() + "\nnot json\n", "line 2 of .* is no transcript"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        read_transcripts(path)
    with pytest.raises(ValueError, match="cannot read"):
        read_transcripts(tmp_path / "none.jsonl")


MADE = """
from maporl_env.types import Message, Question, Transcript

def good():
    asked = Question("q", "how much ?", "39", "number")
    said = [Message(0, agent, "{ 39 }", 1.0) for agent in ("agent_0", "agent_1")]
    return [Transcript(asked, ("agent_0", "agent_1"), tuple(said))]

def bad():
    return good() + [{"messages": []}]

def nothing():
    return []

def failing():
    raise RuntimeError("no debates today")
"""


def test_a_function_may_make_the_transcripts(tmp_path: Path) -> None:
    file = tmp_path / "made_debates.py"
    file.write_text(MADE, encoding="utf-8")
    _, learner = experiment.build(SMALL)
    debates = make_game(SMALL.game).debates(1)
    rows, count = rows_of(learner.team, debates, f"{file}:good")
    assert (len(rows), count) == (2, 1)
    assert {row.completion.text for row in rows} == {"{ 39 }"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bad", "transcript 2 of '.*:bad' is a dict, not a maporl_env.types.Transcript"),
        ("nothing", "nothing' must return a list of transcripts"),
        ("failing", "raised RuntimeError: no debates today"),
        ("none", "cannot be found"),
    ],
)
def test_bad_functions_are_refused(tmp_path: Path, name: str, words: str) -> None:
    file = tmp_path / "made_debates_badly.py"
    file.write_text(MADE, encoding="utf-8")
    _, learner = experiment.build(SMALL)
    with pytest.raises(ValueError, match=words):
        rows_of(learner.team, make_game(SMALL.game).debates(1), f"{file}:{name}")


def test_transcripts_of_another_game_are_refused() -> None:
    _, learner = experiment.build(SMALL)
    debates = make_game(SMALL.game).debates(1)
    given: list[tuple[Any, str]] = [
        (debate_of(["a"], ("agent_0",)), "has the agents agent_0, the game agent_0, agent_1"),
        (debate_of(["a"] * 2 * (SMALL.game.num_turns + 1)), "may not speak"),
        (debate_of(["a"]), "may not speak"),  # one message of two that are written at once
    ]
    for transcript, words in given:
        with pytest.raises(ValueError, match=words):
            given_rows(learner.team, debates, [transcript])


def row(**changes: Any) -> str:
    """Return a line of a file with parts of its transcript changed."""
    whole = debate_of(["a", "b"]).to_dict()
    message = {**whole["messages"][0], **changes.pop("message", {})}
    question = {**whole["question"], **changes.pop("question", {})}
    messages = [message, *whole["messages"][1:]]
    return json.dumps({**whole, "messages": messages, "question": question, **changes})


@pytest.mark.usefixtures("work_folder")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        (row(message={"text": None}), "the text or agent of message 1 is no text"),
        (row(message={"turn": "0"}), "the turn of message 1 is no whole number"),
        (row(message={"agent": "agent_9"}), "may not speak"),
        (row(message={"score": "good"}), "the score of message 1 is no number"),
        (row(message={"person": "hacked"}), "message 1 has no known mark of a person: 'hacked'"),
        (row(message={"person": ["edited"]}), "message 1 has no known mark of a person"),
        (row(question={"kind": "songs"}), "unknown kind, 'songs'"),
        (row(question={"prompt": 7}), "its question's prompt is no text"),
        (row(agents=["agent_0"]), "has the agents agent_0"),
        (row(messages="none"), "is no transcript"),
        ("{", "is no transcript"),
    ],
)
def test_a_bad_row_ends_the_run_before_anything_is_made(
    line: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence with the line, which blank lines count in; no run folder, no measurement."""
    Path("debates.jsonl").write_text(f"{row()}\n\n{line}\n", encoding="utf-8")
    flags = ("--warmup.steps", 1, "--warmup.transcripts", "debates.jsonl", "--steps", 1)
    code = maporl("train", *flags, "--eval.questions", 2, "--questions-per-step", 2)
    error = capsys.readouterr().err
    assert code == 2
    assert "line 3 of 'debates.jsonl'" in error
    assert re.search(words, error), error
    assert error.count("\n") == 1
    assert not Path("runs").exists()


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    """What looks like a control token is written out, and the message still ends once."""
    _, learner = experiment.build(SMALL)
    chat = learner.team.base_of("agent_0").chat
    texts = [chat.tokenizer.eos_token + " more"] * 2
    rows = given_rows(learner.team, make_game(SMALL.game).debates(1), [debate_of(texts)])
    for row in rows:
        assert sum(i in chat.stop_ids for i in row.completion.ids) == 1
        assert row.completion.ids[-1] in chat.stop_ids
    assert json.loads(debate_of(texts).to_json())["messages"][0]["text"] == texts[0]


def test_what_a_person_did_is_read_and_never_imitated() -> None:
    """Marked messages give no row; the prompts of later messages hold them as they were read."""
    _, learner = experiment.build(SMALL)
    debates = make_game(SMALL.game).debates(1)
    texts = [rf"7 , \boxed{{ {n} }}" for n in range(2 * SMALL.game.num_turns)]
    plain = debate_of(texts)
    whole = given_rows(learner.team, debates, [plain])
    trained = [(row.turn, row.agent) for row in whole]
    for person in ("wrote", "edited", "vetoed", "sent back"):
        marked = replace(plain.messages[0], person=person)
        rows = given_rows(
            learner.team, debates, [replace(plain, messages=(marked, *plain.messages[1:]))]
        )
        assert [(row.turn, row.agent) for row in rows] == [one for one in trained if one != (0, 0)]
        assert [row.prompt for row in rows] == [
            row.prompt for row in whole if (row.turn, row.agent) != (0, 0)
        ]
