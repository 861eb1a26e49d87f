"""The debate as an OpenEnv server: the real library, its server and its client, on this machine."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("openenv", reason="needs the extra openenv")

import uvicorn
from openenv.core.generic_client import GenericEnvClient

from maporl_env.bridges.openenv import DebateAction, OpenEnvDebate, make_app
from maporl_env.types import Question

APPLES = Question("apples", "3 and 4 apples?", "7", private=("", "It is 7."))
OPTIONS = {"task": [APPLES], "num_agents": 2, "num_turns": 2}
PARTNER = [r"I know: \boxed{7}"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = make_app([PARTNER], **OPTIONS)
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(30)


def test_a_debate_over_the_wire_pays_as_it_does_here(url: str) -> None:
    here = OpenEnvDebate([PARTNER], **OPTIONS)
    mine = here.reset(seed=0)
    with GenericEnvClient(base_url=url).sync() as client:
        result = client.reset(seed=0)
        assert result.observation["prompt"] == mine.prompt
        assert "It is 7." not in result.observation["prompt"]  # the partner's own
        for message, done in ((r"\boxed{6}", False), (r"Then \boxed{7}", True)):
            mine = here.step(DebateAction(message=message))
            result = client.step({"message": message})
            assert (result.done, result.reward) == (done, mine.reward)
            assert result.observation["prompt"] == mine.prompt
        assert "I know" in mine.prompt
        state = client.state()
    assert result.reward == pytest.approx((0 + 0.3 * 1) / 1.3 + 1)
    assert state["messages"][0]["text"] == r"\boxed{6}"
    assert "answer" not in state


def test_sessions_do_not_touch_each_other(url: str) -> None:
    with GenericEnvClient(base_url=url).sync() as one, GenericEnvClient(base_url=url).sync() as two:
        one.reset(seed=0)
        two.reset(seed=0)
        one.step({"message": "only here"})
        assert "only here" not in str(two.state())
        assert "only here" in str(one.state())


def test_a_wrong_action_is_an_error_and_changes_nothing(url: str) -> None:
    with GenericEnvClient(base_url=url).sync() as client:
        client.reset(seed=0)
        with pytest.raises(Exception, match=r"(?i)message|valid"):
            client.step({"text": "no such field"})
        assert client.step({"message": r"\boxed{7}"}).observation["turn"] == 1


def test_wrong_options_are_told_when_the_server_is_made() -> None:
    with pytest.raises(ValueError, match="num_turns"):
        make_app([PARTNER], num_agents=2, num_turns=0)
