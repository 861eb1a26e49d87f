"""A verifier service that runs in this process, and clients for tests."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from maporl_agents.verifier.serve import make_app, make_server
from maporl_agents.verifier.service_queue import Limits
from maporl_env.types import Question
from maporl_env.verifiers import (
    VerifierLike,
)

TOKEN = "sesame-sesame-sesame"


QUESTION = Question("q", "2 + 2?", "4")


GOOD = {"questions": [{"prompt": "2 + 2?"}], "responses": ["0.25"]}


def read_score(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
    """A verifier that believes what it reads: the score is the number in the text."""
    return [float(text) for text in responses]


class Running:
    """A service in a thread of this process, on a port of its own."""

    def __init__(self, verifier: VerifierLike, token: str | None, limits: Limits) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        app = make_app(verifier, token=token, limits=limits)
        self.server = make_server(app, "127.0.0.1", self.port, limits)
        self.thread = threading.Thread(target=self.server.run, args=([listener],))

    def ask(
        self, method: str, path: str, body: bytes | str | None = None, **headers: str
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def post(self, data: Any, **headers: str) -> tuple[int, Any]:
        body = data if isinstance(data, bytes) else json.dumps(data)
        status, content = self.ask("POST", "/score", body, **headers)
        return status, json.loads(content)

    def metric(self, name: str) -> float:
        lines = self.ask("GET", "/metrics")[1].decode().splitlines()
        [value] = [line.rpartition(" ")[2] for line in lines if line.startswith(name + " ")]
        return float(value)


@contextmanager
def serving(
    verifier: VerifierLike = read_score, token: str | None = None, **limits: Any
) -> Iterator[Running]:
    running = Running(verifier, token, Limits(**limits))
    running.thread.start()
    while not running.server.started:
        assert running.thread.is_alive()
        time.sleep(0.005)
    try:
        yield running
    finally:
        running.server.should_exit = True
        running.thread.join(20)
        assert not running.thread.is_alive()


MALFORMED: list[tuple[Any, str]] = [
    (b"", "not_json"),
    (b"{", "not_json"),
    (b"\xff\xfe", "not_json"),
    (b"[" * 10_000, "not_json"),
    (b'{"questions": [], "responses": [], "x": NaN}', "not_json"),
    (b"9" * 5_000, "not_json"),
    (b"GET / HTTP/1.1\r\n\r\n", "not_json"),
    ([], "malformed"),
    (None, "malformed"),
    ({"questions": []}, "malformed"),
    ({**GOOD, "x": 1}, "malformed"),
    ({"questions": {}, "responses": {}}, "malformed"),
    ({"questions": "ab", "responses": "ab"}, "malformed"),
    ({"questions": [], "responses": ["a"]}, "malformed"),
    ({"questions": [{"prompt": "a"}] * 2, "responses": ["a"]}, "malformed"),
    ({"questions": ["a"], "responses": ["a"]}, "malformed"),
    ({"questions": [{}], "responses": ["a"]}, "malformed"),
    ({"questions": [{"prompt": 1}], "responses": ["a"]}, "malformed"),
    ({"questions": [{"prompt": "a", "kind": None}], "responses": ["a"]}, "malformed"),
    ({"questions": [{"prompt": "a", "__class__": "b"}], "responses": ["a"]}, "malformed"),
    ({"questions": [{"prompt": "a"}], "responses": [1]}, "malformed"),
    ({"questions": [{"prompt": "a"}], "responses": [None]}, "malformed"),
    ({"questions": [{"prompt": "a"}], "responses": [["a"]]}, "malformed"),
]


class Locked:
    """A verifier that waits until it is released, and notes the size of its batches."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.sizes: list[int] = []

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        self.sizes.append(len(responses))
        self.release.wait(20)
        return read_score(questions, responses)


def ask_in_threads(running: Running, texts: Sequence[str]) -> tuple[list[threading.Thread], Any]:
    answers: dict[str, Any] = {}

    def ask(text: str) -> None:
        answers[text] = running.post({"questions": [{"prompt": "p"}], "responses": [text]})

    threads = [threading.Thread(target=ask, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    return threads, answers


def wait_until(condition: Any) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
