"""JSON to a service over HTTP and back: one request, with a limit on time and size, and retries."""

from __future__ import annotations

import ipaddress
import json
import math
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from maporl_env.declared import whole
from maporl_env.services.api_keys import authorization_header, require_encrypted, without_key

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse

MAX_ANSWER_BYTES = 4_000_000
MAX_PAUSE_SECONDS = 60.0
"""Longest pause before another attempt, whatever pause the service asks for."""
_PASSING = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
    *range(500, 600),  # also those of proxies and clouds: 520 to 524, 529
} - {HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED}
"""Statuses of temporary failures: the request is repeated."""


class RemoteError(RuntimeError):
    """A service gave no usable answer."""


class RemoteTimeout(RemoteError, TimeoutError):
    """It did not answer in time."""


class RemoteUnavailable(RemoteError):
    """It could not be reached, broke off, or said that it cannot serve at present.

    Attributes:
        status: of its answer; 0 if there was none.
        retry_after_seconds: the pause that the service asked for, 0 if it asked for none.
    """

    status = 0
    retry_after_seconds = 0.0


class RemoteRefused(RemoteError):
    """It refused the request, which asking again would not change (token, size, address).

    Attributes:
        status: of its answer; 0 if it is not known.
    """

    status = 0


class RemoteGarbage(RemoteError):
    """The service answered, but not in the form that was asked for."""


class Attempts(NamedTuple):
    """How often a service is asked, and how long it may take.

    Attributes:
        timeout_seconds: limit for one attempt, however slowly the answer arrives. Name resolution
            and connection are not included; each system call there has the same limit.
        retries: number of attempts after the first.
        pause_seconds: pause before the second attempt; it doubles.
    """

    timeout_seconds: float
    retries: int
    pause_seconds: float


class Service:
    """One address that is asked, or that JSON is posted to. Several threads may share one.

    A failed attempt is repeated after a pause that doubles, or as long as the service asks for, at
    most `MAX_PAUSE_SECONDS`; a refusal is not. At worst a call takes (retries + 1) *
    timeout_seconds and the pauses. Redirects are not followed, so that the token is sent to no
    other address.

    Attributes:
        name: "the verifier at http://...", for messages.

    Args:
        url: of the service, `http://host:port` or `https://...`; a path is put before `path`.
        path: of the request, e.g. "/score".
        what: kind of service for messages, e.g. "verifier".
        remedy: advice for a service that cannot be reached.
        token: sent as a bearer token, to another machine only by https; None for a service that
            asks for none.
        attempts: how many are made, and their limit.
        max_answer_bytes: number of bytes that are read of an answer.

    Raises:
        ValueError: settings that cannot work.
    """

    def __init__(
        self,
        url: str,
        path: str,
        *,
        what: str,
        remedy: str,
        token: str | None = None,
        attempts: Attempts,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        self._secure, self._host, self._port, self._path = _address(url, path, what)
        require_number("timeout_seconds", attempts.timeout_seconds, above=0)
        require_number("retries", attempts.retries)
        require_number("pause_seconds", attempts.pause_seconds)
        self.url = url
        self.name = f"the {what} at {url}"
        self.remedy = remedy
        self.timeout_seconds, self.retries, self.pause_seconds = attempts
        self.max_answer_bytes = max_answer_bytes
        self._token = token
        self._headers = {"Content-Type": "application/json"} | authorization_header(token)
        encrypted = self._secure or is_loopback(self._host)
        require_encrypted(token, self.name, encrypted=encrypted)

    def get(self) -> bytes:
        """Return the answer of the first attempt that succeeds; errors as of `post`."""
        return self._repeated(None)

    def post(self, body: bytes) -> bytes:
        """Return the answer of the first attempt that succeeds.

        Raises:
            RemoteTimeout: the last attempt took too long.
            RemoteUnavailable: the last attempt failed otherwise.
            RemoteRefused: the service will not answer this.
        """
        return self._repeated(body)

    def _repeated(self, body: bytes | None) -> bytes:
        """Make attempts until one succeeds; without a body, of a GET request."""
        for attempt in range(self.retries):
            try:
                return self._attempt(body)
            except (RemoteTimeout, RemoteUnavailable) as error:
                asked = getattr(error, "retry_after_seconds", 0.0)
                pause = max(self.pause_seconds * 2 ** min(attempt, 30), asked)
                time.sleep(min(pause, MAX_PAUSE_SECONDS))
        return self._attempt(body)

    def _attempt(self, body: bytes | None) -> bytes:
        from http.client import HTTPException  # heavy, and unused where nothing is remote

        start = time.monotonic()
        connection = self._connection()
        watch: threading.Timer | None = None
        try:
            connection.connect()
            watch = _watch(connection, start + self.timeout_seconds - time.monotonic())
            method = "GET" if body is None else "POST"
            connection.request(method, self._path, body, self._headers)
            answer = connection.getresponse()
            content = answer.read(self.max_answer_bytes + 1)
            complete = answer.length in (None, 0) or len(content) > self.max_answer_bytes
        except (OSError, HTTPException) as error:
            if time.monotonic() - start >= self.timeout_seconds or isinstance(error, TimeoutError):
                raise self._late() from error
            raise RemoteUnavailable(
                f"{self.name} cannot be reached ({_reason(error)}): {self.remedy}"
            ) from error
        finally:
            if watch is not None:
                watch.cancel()
            connection.close()
        if time.monotonic() - start >= self.timeout_seconds:
            raise self._late()  # what was cut off by the watch may look like an end
        self._check_status(answer, content)
        if not complete:
            raise RemoteUnavailable(f"{self.name} broke off its answer")
        return content

    def _connection(self) -> HTTPConnection:
        from http.client import HTTPConnection, HTTPSConnection

        make = HTTPSConnection if self._secure else HTTPConnection
        return make(self._host, self._port, timeout=self.timeout_seconds)

    def _late(self) -> RemoteTimeout:
        return RemoteTimeout(f"{self.name} gave no answer in {self.timeout_seconds} s")

    def _check_status(self, answer: HTTPResponse, content: bytes) -> None:
        if answer.status == HTTPStatus.OK:
            return
        text = f"{self.name} answered {answer.status}: {self._quoted(_message(content))}"
        if answer.status in _PASSING:
            passing = RemoteUnavailable(text)
            passing.status = answer.status
            passing.retry_after_seconds = _seconds(answer.headers.get("Retry-After", ""))
            raise passing
        if target := answer.headers.get("Location"):
            text += f" (it redirects to {self._quoted(target)}: give that address itself)"
        refused = RemoteRefused(text)
        refused.status = answer.status
        raise refused

    def _quoted(self, text: str) -> str:
        """Return a service's words in a line of bounded length, without the token."""
        line = " ".join(text.split()) or "nothing"
        return without_key(line, self._token)[:200]


OWN_FIELDS = ("model", "messages", "n", "stream")
"""Fields of a request for a chat completion that are not the caller's to set."""


def chat_service(
    url: str,
    what: str,
    token: str | None,
    attempts: Attempts,
    *,
    parallel: object,
    options: Mapping[str, Any],
) -> Service:
    """Return the service of an OpenAI-compatible server's chat completions.

    Args:
        url: of the server, up to and without `/chat/completions`.
        what: the name of the service in errors.
        token: see `Service`.
        attempts: see `Service`.
        parallel: requests that the caller sends at the same time.
        options: further fields of its requests.

    Raises:
        ValueError: as `Service`; or `parallel` is below 1; or an option is set by every request.
    """
    if parallel not in (at_least_1 := whole(1)):
        raise ValueError(f"parallel must be {at_least_1.words}, not {parallel!r}")
    if taken := sorted(set(options) & set(OWN_FIELDS)):
        raise ValueError(f"options must leave {', '.join(taken)} to the {what} itself")
    remedy = "start the server, or correct the address"
    path = "/chat/completions"
    return Service(url, path, what=what, remedy=remedy, token=token, attempts=attempts)


@dataclass(frozen=True, slots=True)
class ChatCompletion:
    """The answer of an OpenAI-compatible `POST /chat/completions`; made by `completion_of`.

    Attributes:
        text: of the first choice; "" for a message without content (a refusal).
        prompt_tokens: tokens that the service says it has read; 0 where it does not say.
        completion_tokens: likewise written.
    """

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


def completion_of(content: bytes, name: str) -> ChatCompletion:
    """Return the chat completion in an answer of the service called `name`.

    Raises:
        RemoteGarbage: it is none.
    """
    try:
        answer = json.loads(content)
        text = _text(answer["choices"][0]["message"]["content"])
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise RemoteGarbage(
            f"{name} answered without choices[0].message.content: {type(error).__name__} {error}"
        ) from error
    usage = answer.get("usage")
    counts = (
        [
            n if isinstance(n := usage.get(field), int) and n > 0 else 0
            for field in ("prompt_tokens", "completion_tokens")
        ]
        if isinstance(usage, dict)
        else [0, 0]
    )
    return ChatCompletion(text, *counts)


TEXT_PARTS = ("text", "output_text")
"""Kinds of parts of a content that belong to the message."""


def _text(content: Any) -> str:
    """Return the text of a content: a string, None, or parts, of which those of text count.

    Parts of other kinds (thinking, a refusal, a picture) are no part of the message.

    Raises:
        TypeError: it is something else.
    """
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise TypeError(f"content is {type(content).__name__}, not text")
    texts = [
        part if isinstance(part, str) else part["text"]
        for part in content
        if isinstance(part, str) or part["type"] in TEXT_PARTS
    ]
    return "".join(texts)


def require_number(name: str, value: float, *, above: float | None = None) -> None:
    """Raise ValueError unless a setting is finite and >= 0, or greater than `above`."""
    if not (math.isfinite(value) and (value >= 0 if above is None else value > above)):
        bound = ">= 0" if above is None else f"> {above}"
        raise ValueError(f"{name} must be a finite number {bound}, not {value!r}")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address; a name other than localhost counts as no."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _address(url: str, path: str, what: str) -> tuple[bool, str, int | None, str]:
    """Return whether to encrypt, host, port and path; ValueError says what is wrong with a URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{url!r} is no address of a {what}: {error}") from error
    plain = not (parts.username or parts.password or parts.query or parts.fragment)
    if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
        shown = "one with a name or password" if parts.username or parts.password else repr(url)
        raise ValueError(
            f"the address of a {what} is http://host:port or https://host:port, not {shown}; "
            "give the token by itself"
        )
    return parts.scheme == "https", parts.hostname, port, parts.path.rstrip("/") + path


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


def _message(content: bytes) -> str:
    """Return the message of an error answer."""
    try:
        return str(json.loads(content)["error"]["message"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return content.decode("utf-8", "replace")


def _seconds(retry_after: str) -> float:
    """Return the wait that a Retry-After header asks for, in seconds or until a date; else 0."""
    from email.utils import parsedate_to_datetime  # heavy, as above

    try:
        if retry_after.strip().isdecimal():
            return float(retry_after[:9])
        until = parsedate_to_datetime(retry_after).timestamp()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return max(until - time.time(), 0.0)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
