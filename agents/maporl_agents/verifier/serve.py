"""Serves a verifier over HTTP, for `maporl_env.verifiers.RemoteVerifier`.

    POST /score     {"questions": [{"prompt": "..."}], "responses": ["..."]}  ->  {"scores": [0.73]}
    GET  /health    {"status": "ok"}, or 503 where the verifier has been busy for too long, or
                    where the scoring thread has ended
    GET  /metrics   counters in the text format that Prometheus reads

A question may also have `id`, `kind`, `answer` and `hidden`, a reference for verifiers. A score is
null where the verifier has none. Errors are `{"error": {"type": ..., "message": ...}}`, without
traceback and without the request's text. Requests wait in a bounded queue; one thread scores what
waits, in batches.

It listens on the loopback interface; elsewhere it starts only with a token. Clients that keep it
waiting lose their place (`service_connections`). It speaks plain HTTP: beyond this machine, put a
reverse proxy with TLS before it.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from maporl_agents.verifier.service_connections import connections
from maporl_agents.verifier.service_queue import Limits, Refusal, ScoreQueue
from maporl_env.services.http_json import is_loopback
from maporl_env.types import Question
from maporl_env.verifiers import VerifierLike

OPEN_PATHS = ("/health",)
"""Paths that may be read without the token."""

_FIELDS = {"id": "", "prompt": None, "kind": "number", "answer": "", "hidden": ""}
"""Fields of a question and what stands for a missing one; None: it must be there."""


def make_app(
    verifier: VerifierLike, *, token: str | None = None, limits: Limits | None = None
) -> FastAPI:
    """Return the service as an ASGI application.

    Args:
        verifier: what scores; called from one thread, never twice at a time.
        token: what a client must send as `Authorization: Bearer TOKEN`; None asks for nothing.
        limits: sizes, counts and times; None for the defaults.

    Raises:
        ValueError: a token that cannot stand in a header, or is too short to be one.
    """
    limits = limits if limits is not None else Limits()
    waiting = ScoreQueue(verifier, limits)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        waiting.start()
        yield
        waiting.close()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    traffic = Traffic()
    app.add_middleware(Gate, token=checked_token(token), traffic=traffic)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _http_error)

    @app.post("/score")
    async def score(request: Request) -> JSONResponse:
        questions, responses = parse(await read_body(request, limits), limits)
        return JSONResponse({"scores": await waiting.score(questions, responses)})

    @app.get("/health")
    async def health() -> JSONResponse:
        busy = waiting.busy_seconds()
        status = "dead" if waiting.dead else "stuck" if busy > limits.answer_seconds else "ok"
        state = {"status": status, "busy_seconds": round(busy, 3)}
        return JSONResponse(state, status_code=200 if status == "ok" else 503)

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(metrics_text(traffic, waiting))

    return app


def run(
    verifier: VerifierLike,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    limits: Limits | None = None,
) -> None:
    """Serve until Ctrl-C or SIGTERM; requests that are under way are answered first.

    Raises:
        ValueError: a host that others can reach, without a token.
    """
    require_token(host, token)
    limits = limits if limits is not None else Limits()
    make_server(make_app(verifier, token=token, limits=limits), host, port, limits).run()


def make_server(app: FastAPI, host: str, port: int, limits: Limits) -> uvicorn.Server:
    """Return the web server for an application, not yet running."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            timeout_keep_alive=int(limits.receive_seconds) + 1,
            timeout_graceful_shutdown=int(limits.answer_seconds) + 1,
            access_log=False,
            log_level="warning",
            http=connections(limits, _full),
            ws="none",
        )
    )


def require_token(host: str, token: str | None) -> None:
    """Raise ValueError where others could reach the service without a token."""
    if token is None and not is_loopback(host):
        raise ValueError(
            f"host {host!r} can be reached from other machines: give a token, or listen on "
            "127.0.0.1"
        )


def checked_token(token: str | None) -> str | None:
    """Return the token; ValueError if it is too short or cannot stand in a header."""
    if token is not None and (len(token) < 16 or not token.isascii() or not token.isprintable()):
        raise ValueError("a token is at least 16 printable ASCII characters")
    return token


async def read_body(request: Request, limits: Limits) -> bytes:
    """Return the body of a request; Refusal if it is too large, too slow, or broke off."""
    body = bytearray()

    async def read() -> None:
        async for chunk in request.stream():
            body.extend(chunk)
            if len(body) > limits.max_bytes:
                raise Refusal(
                    413, "too_large", f"a request may have {limits.max_bytes} bytes, not more"
                )

    try:
        await asyncio.wait_for(read(), limits.receive_seconds)
    except asyncio.TimeoutError:
        raise Refusal(
            408, "too_slow", f"the request did not arrive within {limits.receive_seconds} s"
        ) from None
    except ClientDisconnect:
        raise Refusal(400, "broken_off", "the client hung up") from None
    return bytes(body)


def parse(body: bytes, limits: Limits) -> tuple[list[Question], list[str]]:
    """Return the questions and responses of a request.

    Raises:
        Refusal: anything but equally long lists of questions and texts within the limits.
    """
    try:
        data = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Refusal(400, "not_json", "the body must be JSON in UTF-8") from None
    if not isinstance(data, dict) or set(data) != {"questions", "responses"}:
        raise _malformed('the body must be {"questions": [...], "responses": [...]}')
    questions, responses = data["questions"], data["responses"]
    if not isinstance(questions, list) or not isinstance(responses, list):
        raise _malformed("questions and responses must be lists")
    if len(questions) != len(responses):
        raise _malformed(f"{len(questions)} questions for {len(responses)} responses")
    if len(responses) > limits.max_items:
        raise Refusal(
            413, "too_many", f"{len(responses)} responses: {limits.max_items} are allowed at a time"
        )
    for index, text in enumerate(responses):
        _text(text, f"responses[{index}]", limits)
    return [_question(item, index, limits) for index, item in enumerate(questions)], responses


def _question(item: Any, index: int, limits: Limits) -> Question:
    where = f"questions[{index}]"
    if not isinstance(item, dict) or not item.keys() <= _FIELDS.keys() or "prompt" not in item:
        raise _malformed(f"{where} must have prompt and may have id, kind, answer and hidden")
    fields = {
        name: _text(item.get(name, default), f"{where}.{name}", limits)
        for name, default in _FIELDS.items()
    }
    question = Question(fields["id"], fields["prompt"], fields["answer"], fields["kind"])
    return replace(question, hidden=fields["hidden"])


def _text(value: Any, where: str, limits: Limits) -> str:
    if not isinstance(value, str):
        raise _malformed(f"{where} must be text")
    if len(value) > limits.max_chars:
        raise Refusal(
            413, "too_long", f"{where} has {len(value)} characters: {limits.max_chars} are allowed"
        )
    return value


def _malformed(message: str) -> Refusal:
    return Refusal(400, "malformed", message)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _error(status: int, kind: str, message: str) -> JSONResponse:
    headers = {"Retry-After": "1"} if status == 503 else None
    error = {"error": {"type": kind, "message": message}}
    return JSONResponse(error, status_code=status, headers=headers)


async def _full(scope: Scope, receive: Receive, send: Send) -> None:
    answer = _error(503, "busy", "too many connections: try again")
    answer.headers["Connection"] = "close"
    await answer(scope, receive, send)


async def _refused(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refusal)
    return _error(error.status, error.kind, error.message)


async def _http_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    known = "known are POST /score, GET /health and GET /metrics"
    return _error(error.status_code, "no_such_call", known)


class Traffic:
    """Answers counted by status, and the seconds they took."""

    def __init__(self) -> None:
        self.answers: dict[int, int] = {}
        self.seconds = 0.0

    def count(self, status: int, seconds: float) -> None:
        """Note one answered request."""
        self.answers[status] = self.answers.get(status, 0) + 1
        self.seconds += seconds


class Gate:
    """ASGI middleware: checks the token before the request is read, and counts answers.

    An unforeseen exception becomes a bare 500.
    """

    def __init__(self, app: ASGIApp, token: str | None, traffic: Traffic) -> None:
        self.app = app
        self.expected = None if token is None else f"Bearer {token}".encode("ascii")
        self.traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.monotonic()
        status = 0

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        if self._admits(scope):
            try:
                await self.app(scope, receive, note)
            except Exception:
                if status:
                    raise
                logging.getLogger(__name__).exception("a request failed")
                await _error(500, "internal", "the service failed")(scope, receive, note)
        else:
            refusal = _error(401, "unauthorized", "send the header Authorization: Bearer TOKEN")
            await refusal(scope, receive, note)
        self.traffic.count(status, time.monotonic() - start)

    def _admits(self, scope: Scope) -> bool:
        if self.expected is None or scope["path"] in OPEN_PATHS:
            return True
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self.expected)


def metrics_text(traffic: Traffic, waiting: ScoreQueue) -> str:
    """Return all counters, one per line, in Prometheus' text format."""
    lines = [
        "# TYPE maporl_requests_total counter",
        *(
            f'maporl_requests_total{{status="{status}"}} {count}'
            for status, count in sorted(traffic.answers.items())
        ),
        "# TYPE maporl_request_seconds_total counter",
        f"maporl_request_seconds_total {traffic.seconds:.6f}",
        "# TYPE maporl_responses_scored_total counter",
        f"maporl_responses_scored_total {waiting.scored}",
        "# TYPE maporl_responses_unscored_total counter",
        *(
            f'maporl_responses_unscored_total{{cause="{cause}"}} {count}'
            for cause, count in sorted(waiting.faults.items())
        ),
        "# TYPE maporl_batches_total counter",
        f"maporl_batches_total {waiting.batches}",
        "# TYPE maporl_responses_waiting gauge",
        f"maporl_responses_waiting {waiting.waiting}",
        "# TYPE maporl_busy_seconds gauge",
        f"maporl_busy_seconds {waiting.busy_seconds():.6f}",
    ]
    return "\n".join(lines) + "\n"
