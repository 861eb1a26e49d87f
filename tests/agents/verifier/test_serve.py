"""The verifier service over real connections: what it takes, refuses, counts and survives."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from service_cases import GOOD, MALFORMED, QUESTION, TOKEN, Running, serving

from maporl_agents.verifier import serve
from maporl_agents.verifier.serve import is_loopback, make_app, require_token
from maporl_agents.verifier.service_queue import Limits
from maporl_env.types import Question
from maporl_env.verifiers import (
    AnswerKey,
    RemoteRefused,
    RemoteVerifier,
)


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with serving(max_bytes=20_000, max_items=8, max_chars=1_000) as running:
        yield running


def test_the_client_gets_the_scores_of_the_verifier(service: Running) -> None:
    remote = RemoteVerifier(service.url, max_items=8)
    texts = [str(i / 20) for i in range(20)]
    assert remote.score([QUESTION] * 20, texts) == [i / 20 for i in range(20)]


def test_the_answer_key_can_be_served() -> None:
    with serving(AnswerKey()) as running:
        remote = RemoteVerifier(running.url, send_answers=True)
        assert remote.score([QUESTION] * 2, ["\\boxed{4}", "\\boxed{5}"]) == [1.0, 0.0]


def test_a_served_verifier_reads_the_reference_of_a_question() -> None:
    def by_reference(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        return [float(q.hidden in text) for q, text in zip(questions, responses, strict=True)]

    asked = [replace(QUESTION, hidden=word) for word in ("blue", "red")]
    with serving(by_reference) as running:
        assert RemoteVerifier(running.url).score(asked, ["a red one", "a red one"]) == [0.0, 1.0]


@pytest.mark.parametrize("text", ["nan", "7.0", "-1", "inf", "no number"])
def test_an_unsound_score_is_null(service: Running, text: str) -> None:
    data = {"questions": [{"prompt": "p"}], "responses": [text]}
    assert service.post(data) == (200, {"scores": [None]})


def test_no_responses_no_scores(service: Running) -> None:
    assert service.post({"questions": [], "responses": []}) == (200, {"scores": []})


TOO_MUCH: list[tuple[Any, str]] = [
    (b" " * 20_001, "too_large"),
    ({"questions": [{"prompt": "a"}] * 9, "responses": ["1"] * 9}, "too_many"),
    ({"questions": [{"prompt": "a"}], "responses": ["a" * 1_001]}, "too_long"),
    ({"questions": [{"prompt": "a" * 1_001}], "responses": ["a"]}, "too_long"),
]


@pytest.mark.parametrize(("data", "kind"), MALFORMED)
def test_what_is_no_request_is_a_400_of_a_named_type(
    service: Running, data: Any, kind: str
) -> None:
    status, content = service.post(data)
    assert (status, content["error"]["type"]) == (400, kind)
    assert set(content["error"]) == {"type", "message"}


@pytest.mark.parametrize(("data", "kind"), TOO_MUCH)
def test_too_much_is_a_413(service: Running, data: Any, kind: str) -> None:
    status, content = service.post(data)
    assert (status, content["error"]["type"]) == (413, kind)


def test_the_limits_themselves_are_allowed(service: Running) -> None:
    data = {"questions": [{"prompt": "a" * 1_000}] * 8, "responses": ["0.5"] * 8}
    assert service.post(data) == (200, {"scores": [0.5] * 8})
    assert service.post(json.dumps(GOOD).ljust(20_000).encode()) == (200, {"scores": [0.25]})


def test_hostile_text_is_only_text(service: Running) -> None:
    hostile = "\ud800\x00\u202e<|im_end|>\r\n\r\nHTTP/1.1 200 OK"
    data = {"questions": [{"prompt": hostile}] * 2, "responses": [hostile, "0.5"]}
    assert service.post(data)[0] == 200
    status, content = service.post(
        {"questions": [{"prompt": "a", hostile: "b"}], "responses": [""]}
    )
    assert status == 400
    assert hostile not in str(content)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/score", 405), ("POST", "/health", 405), ("GET", "/", 404), ("GET", "/docs", 404)],
)
def test_other_calls_are_named_errors(
    service: Running, method: str, path: str, status: int
) -> None:
    answered, content = service.ask(method, path)
    assert answered == status
    assert json.loads(content)["error"]["type"] == "no_such_call"


def test_health_and_metrics_tell_the_truth() -> None:
    with serving() as running:
        assert json.loads(running.ask("GET", "/health")[1]) == {"status": "ok", "busy_seconds": 0.0}
        running.post({"questions": [{"prompt": "p"}] * 3, "responses": ["0.5", "1", "7"]})
        running.post(b"{")
        assert running.metric("maporl_responses_scored_total") == 2
        assert running.metric('maporl_responses_unscored_total{cause="out of range"}') == 1
        assert running.metric('maporl_requests_total{status="400"}') == 1
        assert running.metric("maporl_batches_total") == 1
        assert running.metric("maporl_responses_waiting") == 0


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong-wrong-wrong", TOKEN, "Basic x"])
def test_without_the_token_nothing_is_read(header: str) -> None:
    headers = {"Authorization": header} if header else {}
    with serving(token=TOKEN) as running:
        status, content = running.post(b"{", **headers)
        assert (status, content["error"]["type"]) == (401, "unauthorized")
        assert running.ask("GET", "/metrics", **headers)[0] == 401
        assert running.ask("GET", "/health")[0] == 200
        with pytest.raises(RemoteRefused, match="401"):
            RemoteVerifier(running.url).score([QUESTION], ["1"])
        assert RemoteVerifier(running.url, token=TOKEN).score([QUESTION], ["1"]) == [1.0]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.2", "example.org", ""])
def test_other_machines_need_a_token(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ValueError, match="give a token"):
        serve.run(AnswerKey(), host=host)
    require_token(host, TOKEN)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_this_machine_needs_none(host: str) -> None:
    require_token(host, None)


@pytest.mark.parametrize("token", ["", "short", "x" * 15, "é" * 20, "line\n" * 5])
def test_a_token_that_is_none_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="at least 16 printable"):
        make_app(AnswerKey(), token=token)


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [({"max_items": 0}, "max_items must be"), ({"max_waiting": 9, "max_items": 10}, "never be")],
)
def test_impossible_limits_are_refused(limits: dict[str, int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Limits(**limits)
