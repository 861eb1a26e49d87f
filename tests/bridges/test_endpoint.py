"""Models behind an OpenAI-compatible address, on a real socket: in order and in trouble."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import gymnasium
import http_servers
import pytest

import maporl_env  # noqa: F401  registers the environments
from maporl_env.bridges.endpoint import Endpoint
from maporl_env.bridges.speakers import play
from maporl_env.services.http_json import RemoteGarbage, RemoteRefused, RemoteUnavailable
from maporl_env.types import Question


class Server(http_servers.Server):
    """Answers each prompt with its last word in a box; keeps requests; may be told to fail."""

    def __init__(self) -> None:
        super().__init__(Handler)
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.troubles: list[tuple[int, bytes]] = []
        self.under_way = self.most = 0
        self.pause_seconds = 0.0
        self.lock = threading.Lock()


class Handler(http_servers.Handler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.read())
        with self.server.lock:
            self.server.requests.append((self.path, dict(self.headers), body))
            self.server.under_way += 1
            self.server.most = max(self.server.most, self.server.under_way)
            trouble = self.server.troubles.pop(0) if self.server.troubles else None
        time.sleep(self.server.pause_seconds)
        status, content = trouble or (200, completion(body["messages"][-1]["content"]))
        with self.server.lock:
            self.server.under_way -= 1
        self.send(content, status)


def completion(prompt: str) -> bytes:
    return answer({"role": "assistant", "content": rf"\boxed{{{prompt.split()[-1]}}}"})


def answer(message: object) -> bytes:
    return json.dumps({"choices": [{"index": 0, "message": message}]}).encode()


@pytest.fixture
def server() -> Iterator[Server]:
    with http_servers.running(Server()) as server:
        yield server


def test_answers_come_in_the_order_of_the_prompts(server: Server) -> None:
    model = Endpoint(server.url, "m", system="be brief", options={"temperature": 0.5}, token="key")
    prompts = [f"prompt ü {n}" for n in range(20)]
    assert model(prompts) == [rf"\boxed{{{n}}}" for n in range(20)]
    path, headers, body = server.requests[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer key"
    assert body["model"] == "m"
    assert body["temperature"] == 0.5
    assert body["messages"][0] == {"role": "system", "content": "be brief"}
    assert body["messages"][1]["content"] in prompts
    assert model([]) == []


def test_so_many_are_asked_at_once(server: Server) -> None:
    server.pause_seconds = 0.2
    Endpoint(server.url, "m", parallel=3)(["a"] * 9)
    assert server.most == 3
    assert len(server.requests) == 9


def test_the_key_may_stand_in_the_environment(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from-outside")
    Endpoint(server.url, "m")(["a"])
    monkeypatch.delenv("OPENAI_API_KEY")
    Endpoint(server.url, "m")(["a"])
    first, second = (headers for _, headers, _ in server.requests)
    assert first["Authorization"] == "Bearer from-outside"
    assert "Authorization" not in second


def test_a_busy_server_is_asked_again_and_a_refusal_is_not(server: Server) -> None:
    server.troubles = [(429, b"slow down"), (503, b"")]
    assert Endpoint(server.url, "m", pause_seconds=0.01)(["x 7"]) == [r"\boxed{7}"]
    assert len(server.requests) == 3
    server.troubles = [(404, json.dumps({"error": {"message": "no model m"}}).encode())]
    with pytest.raises(RemoteRefused, match="404: no model m"):
        Endpoint(server.url, "m")(["x"])
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    "content",
    [b"<html>", b"[]", b'{"choices": []}', b'{"choices": [{"text": "x"}]}', answer({"content": 5})],
)
def test_nonsense_is_an_error_and_no_message(server: Server, content: bytes) -> None:
    server.troubles = [(200, content)]
    with pytest.raises(RemoteGarbage, match=server.url):
        Endpoint(server.url, "m")(["x"])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([], ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        (["a", {"type": "output_text", "text": "b"}], "ab"),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}], ""),
        (
            [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "\\boxed{19}"},
                {"type": "image_url", "image_url": {"url": "x"}},
            ],
            "\\boxed{19}",
        ),
    ],
)
def test_of_a_content_in_parts_the_text_counts(
    server: Server, content: list[object], text: str
) -> None:
    server.troubles = [(200, answer({"role": "assistant", "content": content}))]
    assert Endpoint(server.url, "m")(["x"]) == [text]


@pytest.mark.parametrize(
    "content", [{"type": "text", "text": "a"}, [5], [{"text": "a"}], [{"type": "text"}], [None]]
)
def test_parts_of_an_unknown_form_are_an_error(server: Server, content: object) -> None:
    server.troubles = [(200, answer({"content": content}))]
    with pytest.raises(RemoteGarbage, match="content"):
        Endpoint(server.url, "m")(["x"])


def test_a_key_of_the_environment_crosses_no_network_in_plain_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from-outside")
    with pytest.raises(ValueError, match="the token for the model at http://gpu-box/v1"):
        Endpoint("http://gpu-box/v1", "m")
    Endpoint("http://gpu-box/v1", "m", token="")  # without one


def test_a_refusing_model_says_nothing(server: Server) -> None:
    server.troubles = [(200, answer({"role": "assistant", "content": None, "refusal": "no"}))]
    assert Endpoint(server.url, "m")(["x"]) == [""]


def test_nobody_there_is_one_sentence() -> None:
    model = Endpoint("http://127.0.0.1:9/v1", "m", retries=0, timeout_seconds=5)
    with pytest.raises(RemoteUnavailable, match="start the server, or correct the address"):
        model(["x"])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"parallel": 0}, "parallel must be"),
        ({"options": {"n": 3, "stream": True}}, "n, stream"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"url": "ftp://host"}, "address of a model"),
    ],
)
def test_settings_that_cannot_work(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Endpoint(**{"url": "http://host/v1", "model": "m", **options})


def test_it_is_a_partner_of_a_learner_and_a_speaker_of_a_debate(server: Server) -> None:
    model = Endpoint(server.url, "m")
    question = Question("q", "say 7", "7")
    env = gymnasium.make("maporl/Debate-v0", task=[question], num_agents=2, partners=model)
    env.reset(seed=0)
    env.step(r"\boxed{7}")
    assert len(server.requests) == 1
    batch = play([model, model], [question], num_turns=2)
    assert len(server.requests) == 1 + 4
    assert len(batch.transcripts[0].messages) == 4
