"""A verifier that runs elsewhere, asked over HTTP: the client of ``maporl verifier serve``.

    verifier = RemoteVerifier("http://127.0.0.1:8000")
    scores = verifier.score(questions, responses)

One request is `POST /score` with `{"questions": [{"id", "prompt", "kind"}], "responses": [...]}`;
the answer is `{"scores": [...]}`: one number in [0, 1] per response, null where there is none.
"""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from maporl_env.types import Question

if TYPE_CHECKING:
    from http.client import HTTPConnection

MAX_ANSWER_BYTES = 4_000_000
_WORTH_A_RETRY = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}


class RemoteError(RuntimeError):
    """A remote verifier gave no scores."""


class RemoteTimeout(RemoteError, TimeoutError):
    """It did not answer in time."""


class RemoteUnavailable(RemoteError):
    """It could not be reached, broke off, or said that it cannot serve at present."""


class RemoteRefused(RemoteError):
    """It refused the request, which asking again would not change (token, size, address)."""


class RemoteGarbage(RemoteError):
    """What came back is not one score in [0, 1] or null per response."""


class RemoteVerifier:
    """Scores answers by asking a service. Several threads may share one.

    A failed attempt is repeated after a pause that doubles; a refusal and a nonsensical answer are
    not. At worst a call takes ceil(n / max_items) * (retries + 1) * timeout_seconds and the pauses.

    Args:
        url: of the service, `http://host:port` or `https://...`; a path is put before `/score`.
        token: sent as a bearer token; None for a service that asks for none.
        timeout_seconds: for one attempt, however slowly the answer drips; finding and greeting the
            host is not included, and has the same limit per system call.
        retries: further attempts after the first.
        pause_seconds: before the first repetition.
        max_items: responses per request; more are sent in several requests, in order.
        send_answers: also send the gold answers, for a service that works by the key.

    Raises:
        ValueError: settings that cannot work.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout_seconds: float = 30.0,
        retries: int = 2,
        pause_seconds: float = 0.2,
        max_items: int = 256,
        send_answers: bool = False,
    ) -> None:
        self._secure, self._host, self._port, self._path = _address(url)
        for name, value in (("timeout_seconds", timeout_seconds), ("max_items", max_items)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a finite number > 0, not {value!r}")
        for name, value in (("retries", retries), ("pause_seconds", pause_seconds)):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a finite number >= 0, not {value!r}")
        self.url = url
        self.timeout_seconds = timeout_seconds
        self.retries = retries
        self.pause_seconds = pause_seconds
        self.max_items = max_items
        self._fields = ("id", "prompt", "kind", *(("answer",) if send_answers else ()))
        self._headers = {"Content-Type": "application/json"} | _authorization(token)

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float | None]:
        """Return one score per response, None where the service has none.

        Raises:
            RemoteTimeout: the last attempt took too long.
            RemoteUnavailable: the last attempt failed otherwise.
            RemoteRefused: the service will not answer this.
            RemoteGarbage: its answer is no list of scores.
        """
        pairs = list(zip(questions, responses, strict=True))
        scores: list[float | None] = []
        for start in range(0, len(pairs), self.max_items):
            part = pairs[start : start + self.max_items]
            scores += _scores(self._ask(self._body(part)), len(part), self.url)
        return scores

    def _body(self, pairs: Sequence[tuple[Question, str]]) -> bytes:
        questions = [{name: getattr(q, name) for name in self._fields} for q, _ in pairs]
        request = {"questions": questions, "responses": [str(text) for _, text in pairs]}
        return json.dumps(request).encode("ascii")

    def _ask(self, body: bytes) -> bytes:
        """Return the answer of the first attempt that succeeds."""
        for attempt in range(self.retries):
            try:
                return self._attempt(body)
            except (RemoteTimeout, RemoteUnavailable):
                time.sleep(self.pause_seconds * 2**attempt)
        return self._attempt(body)

    def _attempt(self, body: bytes) -> bytes:
        from http.client import HTTPException  # heavy, and unused where no verifier is remote

        start = time.monotonic()
        connection = self._connection()
        watch: threading.Timer | None = None
        try:
            connection.connect()
            watch = _watch(connection, start + self.timeout_seconds - time.monotonic())
            connection.request("POST", self._path, body, self._headers)
            answer = connection.getresponse()
            content = answer.read(MAX_ANSWER_BYTES + 1)
            complete = answer.length in (None, 0) or len(content) > MAX_ANSWER_BYTES
        except (OSError, HTTPException) as error:
            if time.monotonic() - start >= self.timeout_seconds or isinstance(error, TimeoutError):
                raise self._late() from error
            raise RemoteUnavailable(
                f"the verifier at {self.url} cannot be reached ({_reason(error)}): start it with "
                "`maporl verifier serve`, or correct the address"
            ) from error
        finally:
            if watch is not None:
                watch.cancel()
            connection.close()
        if time.monotonic() - start >= self.timeout_seconds:
            raise self._late()  # what was cut off by the watch may look like an end
        self._check_status(answer.status, content)
        if not complete:
            raise RemoteUnavailable(f"the verifier at {self.url} broke off its answer")
        return content

    def _connection(self) -> HTTPConnection:
        from http.client import HTTPConnection, HTTPSConnection

        make = HTTPSConnection if self._secure else HTTPConnection
        return make(self._host, self._port, timeout=self.timeout_seconds)

    def _late(self) -> RemoteTimeout:
        return RemoteTimeout(
            f"the verifier at {self.url} gave no answer in {self.timeout_seconds} s"
        )

    def _check_status(self, status: int, content: bytes) -> None:
        if status == HTTPStatus.OK:
            return
        text = f"the verifier at {self.url} answered {status}: {_message(content)}"
        raise RemoteUnavailable(text) if status in _WORTH_A_RETRY else RemoteRefused(text)


def _address(url: str) -> tuple[bool, str, int | None, str]:
    """Return whether to encrypt, host, port and path; ValueError says what is wrong with a URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{url!r} is no address of a verifier: {error}") from error
    plain = not (parts.username or parts.password or parts.query or parts.fragment)
    if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
        shown = "one with a name or password" if parts.username or parts.password else repr(url)
        raise ValueError(
            f"the address of a verifier is http://host:port or https://host:port, not {shown}; "
            "give the token by itself"
        )
    return parts.scheme == "https", parts.hostname, port, parts.path.rstrip("/") + "/score"


def _authorization(token: str | None) -> dict[str, str]:
    if token is None:
        return {}
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("a token is printable ASCII without spaces: look for a stray line end")
    return {"Authorization": f"Bearer {token}"}


def _watch(connection: HTTPConnection, seconds: float) -> threading.Timer:
    """End an attempt on time, whatever it waits for; the time-out of a socket is for one read."""
    sock: socket.socket = connection.sock

    def end() -> None:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # closed already

    timer = threading.Timer(max(seconds, 0.0), end)
    timer.daemon = True
    timer.start()
    return timer


def _scores(content: bytes, count: int, url: str) -> list[float | None]:
    try:
        scores = json.loads(content)["scores"]
        if not isinstance(scores, list):
            raise TypeError("scores is no list")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise RemoteGarbage(f'{url} answered without {{"scores": [...]}}: {error}') from error
    if len(scores) != count:
        raise RemoteGarbage(f"{url} answered {len(scores)} scores for {count} responses")
    return [_sound(score, url) for score in scores]


def _sound(score: Any, url: str) -> float | None:
    if score is None:
        return None
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        raise RemoteGarbage(
            f"{url} answered the score {str(score)[:40]}: it is no number in [0, 1]"
        )
    return float(score)


def _message(content: bytes) -> str:
    """Return what an error answer says, in one line of bounded length."""
    try:
        text = json.loads(content)["error"]["message"]
    except (ValueError, TypeError, KeyError, RecursionError):
        text = content.decode("utf-8", "replace")
    return " ".join(str(text).split())[:200] or "nothing"


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
