"""`maporl watch` on the command line: whose debate it is, models as in `maporl play`, resuming."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from rich.console import Console
from small_runs import maporl
from watch_cases import Browser, approve_all, decide, open_slots, session_of, wait

from maporl_agents.commands import watch as command
from maporl_agents.commands.watch import Setup, Watch, address, setup_of
from maporl_agents.config import JointGameConfig, TeamConfig
from maporl_agents.models.loading import make_team
from maporl_agents.play import speak
from maporl_agents.training.given_messages import given_rows
from maporl_agents.training.make_game import make_game
from maporl_agents.watch import app
from maporl_agents.watch.debate import Own
from maporl_agents.watch.speakers import FunctionSpeaker, TeamSpeaker, named, require_roster
from maporl_env.batched import Prompt

FEW = ("--turns", "2", "--max-new-tokens", "12", "--index", "3", "--seed", "5")


def team_game_and_sampling() -> tuple[Any, Any, Any]:
    """What the flags `FEW` choose."""
    team = make_team(TeamConfig(model=("tiny",), tuning="none"), num_agents=2, num_turns=2, seed=0)
    setup = setup_of(Watch(turns=2, max_new_tokens=12, index=3, seed=5), Console(quiet=True))
    return team, make_game(setup.game), setup.sampling


def test_models_say_what_they_say_in_play(tmp_path: Path, capsys: Any) -> None:
    """Everything approved is `maporl play`, and the prompts are those of imitation, edits too."""
    assert maporl("play", *FEW) == 0
    shown = " ".join(capsys.readouterr().out.split())
    team, game, sampling = team_game_and_sampling()
    question = game.questions("test")[3]
    prompts: dict[tuple[int, int], Any] = {}

    def recorded(*args: Any, **options: Any) -> Any:
        [request] = made = real(*args, **options)
        prompts[request.turn, request.agent] = request.prompt
        return made

    real = speak.requests
    for edit in (False, True):
        speaker = TeamSpeaker(team, sampling, seed=5)
        folder = tmp_path / str(edit)
        with (
            pytest.MonkeyPatch.context() as patch,
            session_of(folder, [speaker] * 2, question=question, config=game.config) as session,
        ):
            patch.setattr(speak, "requests", recorded)
            first, second = open_slots(session, 2)
            if edit:
                decide(session, first, "edit", text="<|im_end|> 1 * 2 = 2 , \\boxed{ 2 }")
            else:
                decide(session, first, "approve")
            decide(session, second, "approve")
            approve_all(session)
            transcript = session.watched.debate.transcript
        if not edit:
            for message in transcript.messages:
                assert " ".join(message.text.split()) in shown
        asked = replace(transcript, messages=transcript.messages)
        rows = given_rows(team, game.debates(1), [asked])
        assert len(rows) == 4 - edit
        for row in rows:
            if (row.turn, row.agent) != (0, 0):
                assert row.prompt == prompts[row.turn, row.agent]


def test_a_second_try_is_another_draw_and_the_same_after_resuming(tmp_path: Path) -> None:
    team, game, sampling = team_game_and_sampling()
    question = game.questions("test")[3]
    said = []
    for folder in ("one", "two"):
        speaker = TeamSpeaker(team, sampling, seed=5)
        with session_of(
            tmp_path / folder, [speaker] * 2, question=question, config=game.config
        ) as session:
            first, _ = open_slots(session, 2)
            for number in range(4):
                decide(session, first, "send_back")
                wait(session, lambda f=first, n=number: len(f.tries) == n + 2)
            said.append([one.own.text for one in first.tries])
    assert said[0] == said[1]
    assert len(set(said[0])) > 1


def test_a_setup_survives_its_file(tmp_path: Path) -> None:
    for joint in (False, True):
        setup = setup_of(Watch(index=0, players=("model", "human")), Console(quiet=True))
        if joint:
            setup = replace(setup, game=JointGameConfig(show_parts=True), joint=True)
        assert Setup.from_dict(setup.to_dict(), tmp_path) == setup
    with pytest.raises(ValueError, match=r"settings of a watched debate .*: restore it"):
        Setup.from_dict({"game": {}}, tmp_path)


@pytest.mark.parametrize(
    ("roster", "words"),
    [
        (("model",), "names 1 for 2 agents"),
        (("model", "nobody"), "there is no player 'nobody'"),
        (("model", "http://127.0.0.1:1/v1"), "named with its model"),
        (("model", "http://127.0.0.1:1/v1,modell=x"), "behind the address of an endpoint"),
        (("model", "http://127.0.0.1:1/v1,model=x,temperature=hot"), "are numbers"),
        (("model", "no_such_module_here:f"), "player .*no_such_module_here"),
    ],
)
def test_a_wrong_roster_is_refused(roster: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        named(require_roster(roster, 2), lambda: lambda prompt, own, tries: Own(""))


def test_functions_and_endpoints_speak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("def answer(prompts): return ['I: ' + p for p in prompts]\n")
    monkeypatch.chdir(tmp_path)
    roster = ("mine.py:answer", "human", "http://127.0.0.1:1/v1,model=m,max_tokens=9")
    function, person, endpoint = named(roster, lambda: lambda prompt, own, tries: Own(""))
    prompt = Prompt(0, "agent_0", 0, 0, (("user", "so?"),), "so?")
    assert person is None
    assert function is not None
    assert function(prompt, (), 0) == Own("I: so?")
    assert isinstance(endpoint, FunctionSpeaker)
    assert endpoint.function.options == {"max_tokens": 9}  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="text"):
        FunctionSpeaker(lambda prompts: [], "mine")(prompt, (), 0)


@pytest.mark.usefixtures("work_folder")
def test_mistakes_are_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    Path("full").mkdir()
    Path("full/file").write_text("x")
    for given, words in (
        (("--resume", "nowhere"), "nowhere holds no watched debate"),
        (("--resume", "full", "--task", "sharing"), "leave out --task"),
        (("--out", "full", "--port", "0"), "full is not an empty folder"),
        (("--players", "human", "--port", "0"), "names 1 for 2 agents"),
        (("--port", "70000"), "cannot listen on 127.0.0.1, port 70000"),
    ):
        assert maporl("watch", *given) == 2
        told = capsys.readouterr().err
        assert words in " ".join(told.split())
        assert told.count("\n") == 1
    assert not Path("runs").exists()


def test_the_address_is_one_that_can_be_opened() -> None:
    with app.listen("127.0.0.1", 0) as one, app.listen("0.0.0.0", 0) as other:
        port = one.getsockname()[1]
        assert address("127.0.0.1", one, "t") == f"http://127.0.0.1:{port}/t/"
        assert "0.0.0.0" not in address("0.0.0.0", other, "t")
        assert address("::1", one, "t") == f"http://[::1]:{port}/t/"


@pytest.mark.thorough
@pytest.mark.usefixtures("work_folder")
def test_the_whole_command_stops_and_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A debate of a model and a person, cut by the end of the server, and resumed to its end."""
    servers: list[Any] = []
    real = app.server_of

    def kept(*args: Any, **options: Any) -> Any:
        servers.append(real(*args, **options))
        return servers[-1]

    monkeypatch.setattr(app, "server_of", kept)
    flags = ("--players", "model", "human", "--turns", "1", "--port", "0", "--host", "0.0.0.0")
    codes: list[int] = []
    for given, action in ((flags, "approve"), (("--resume", "watched", "--port", "0"), "say")):
        more = ("--out", "watched") if action == "approve" else ()
        running = threading.Thread(
            target=lambda given=given, more=more: codes.append(maporl("watch", *given, *more))
        )
        count = len(servers)
        running.start()
        while len(servers) == count or not servers[-1].started:
            assert running.is_alive()
            time.sleep(0.05)
        told = " ".join(capsys.readouterr().out.split())
        port, token = re.search(r":(\d+)/([\w-]{32})/", told).groups()  # type: ignore[union-attr]
        assert ("warning: other machines" in told) == (action == "approve")
        browser = Browser(int(port), token)
        while 'value="approve"' not in browser.page() and action == "approve":
            time.sleep(0.05)
        n, tries = (0, 1) if action == "approve" else (1, 0)
        assert browser.act(action, n=n, tries=tries, text="\\boxed{ 4 }")[0] == 303
        if action == "say":
            while "The debate is over." not in browser.page():
                time.sleep(0.05)
        servers[-1].should_exit = True
        running.join()
        assert set(codes) == {0}
        ended = " ".join(capsys.readouterr().out.split())
        whole = "go on with it: maporl watch --resume watched"
        assert (whole if action == "approve" else "the debate is over; all of it is in") in ended
    assert maporl("play", "--replay", "watched/transcript.jsonl") == 0
    assert "agent_1 in turn 1 (wrote)" in capsys.readouterr().out
    assert command.JOIN_SECONDS > 1
