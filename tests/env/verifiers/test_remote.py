"""The client of a remote verifier against services that are sound, dead, slow, rude or wrong."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from maporl_env.types import Question
from maporl_env.verifiers import (
    RemoteError,
    RemoteGarbage,
    RemoteRefused,
    RemoteTimeout,
    RemoteUnavailable,
    RemoteVerifier,
    Scorer,
)

QUESTION = Question("q1", "2 + 2?", "4")

Reply = Callable[[socket.socket], None]


class Service:
    """A server on a real socket that keeps each request and answers them by a script.

    Each connection takes the next reply of the script; the last one is repeated.
    """

    def __init__(self, script: Sequence[Reply]) -> None:
        self.script = list(script)
        self.requests: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.stopping = threading.Event()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while not self.stopping.is_set():
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                self.requests.append(read_request(connection))
                reply = self.script[min(len(self.requests), len(self.script)) - 1]
                try:
                    reply(connection)
                except OSError:
                    continue  # the client gave up

    def body(self, index: int = 0) -> Any:
        return json.loads(self.requests[index].partition(b"\r\n\r\n")[2])


def read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    [length] = [int(x[15:]) for x in head.lower().split(b"\r\n") if x[:15] == b"content-length:"]
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def send(
    content: bytes, status: str = "200 OK", length: int | None = None, header: str = "X-None: 0"
) -> Reply:
    size = len(content) if length is None else length
    head = f"HTTP/1.1 {status}\r\n{header}\r\nContent-Length: {size}\r\n\r\n".encode()
    return lambda connection: connection.sendall(head + content)


def answer(*scores: object) -> Reply:
    return send(json.dumps({"scores": scores}).encode())


def hang_up(connection: socket.socket) -> None:
    connection.close()


def drip(connection: socket.socket) -> None:
    """Send a byte of an endless head every 20 ms: no single read ever times out."""
    while True:
        connection.sendall(b"H")
        time.sleep(0.02)


def drip_body(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.02)


def silent(connection: socket.socket) -> None:
    """Say nothing until the caller gives up."""
    while connection.recv(4096):
        pass


@contextmanager
def serving(*script: Reply) -> Iterator[Service]:
    service = Service(script)
    try:
        yield service
    finally:
        service.stopping.set()
        service.listener.close()


def client(service: Service, **options: Any) -> RemoteVerifier:
    return RemoteVerifier(service.url, **{"pause_seconds": 0.0, "timeout_seconds": 5.0, **options})


def test_scores_come_back_in_order_and_the_key_stays_here() -> None:
    with serving(answer(0.25, 1, None)) as service:
        scores = client(service).score([QUESTION] * 3, ["a", "é \ud800", ""])
    assert scores == [0.25, 1.0, None]
    asked = {"id": "q1", "prompt": "2 + 2?", "kind": "number"}
    assert service.body() == {"questions": [asked] * 3, "responses": ["a", "é \ud800", ""]}
    assert b"authorization" not in service.requests[0].lower()


def test_the_key_and_the_token_are_sent_where_asked_for() -> None:
    with serving(answer(0.5)) as service:
        remote = client(service, token="a-token-of-16-ch", send_answers=True)
        remote.score([QUESTION], ["a"])
    assert b"Authorization: Bearer a-token-of-16-ch\r\n" in service.requests[0]
    assert service.body()["questions"][0]["answer"] == "4"


def test_the_reference_for_verifiers_is_sent_and_private_texts_are_not() -> None:
    told = Question("q2", "3 + 3?", "6", private=("only you", ""), hidden="six, counted twice")
    with serving(answer(0.5, 0.5)) as service:
        client(service).score([told, QUESTION], ["a", "b"])
    first, second = service.body()["questions"]
    assert first == {"id": "q2", "prompt": "3 + 3?", "kind": "number", "hidden": told.hidden}
    assert "hidden" not in second


def test_many_responses_go_in_several_requests() -> None:
    with serving(answer(0.1, 0.2), answer(0.3, 0.4), answer(0.5)) as service:
        scores = client(service, max_items=2).score([QUESTION] * 5, list("abcde"))
    assert scores == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert [service.body(i)["responses"] for i in range(3)] == [["a", "b"], ["c", "d"], ["e"]]


def test_nothing_to_score_asks_nobody() -> None:
    assert RemoteVerifier("http://127.0.0.1:1").score([], []) == []


@pytest.mark.parametrize(
    "failure",
    [
        hang_up,
        send(b"", status="503 Service Unavailable"),
        send(b"{", status="500 Oops"),
        send(b'{"scores"', length=400),
        lambda connection: connection.sendall(b"SSH-2.0-no\r\n\r\n"),
    ],
)
def test_what_may_pass_is_tried_again_so_many_times(failure: Reply) -> None:
    with serving(failure, failure, answer(0.75)) as service:
        assert client(service, retries=2).score([QUESTION], ["a"]) == [0.75]
        assert len(service.requests) == 3
    with serving(failure) as service:
        with pytest.raises(RemoteUnavailable):
            client(service, retries=2).score([QUESTION], ["a"])
        assert len(service.requests) == 3


def test_pauses_double(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("maporl_env.services.http_json.time.sleep", pauses.append)
    with serving(hang_up) as service, pytest.raises(RemoteUnavailable):
        client(service, retries=3, pause_seconds=0.5).score([QUESTION], ["a"])
    assert pauses == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    "status", [408, 409, 425, 429, 500, 502, 503, 504, 507, 520, 521, 522, 523, 524, 529, 599]
)
def test_every_passing_status_is_tried_again(status: int) -> None:
    with serving(send(b"later", status=f"{status} Later"), answer(0.5)) as service:
        assert client(service, retries=1).score([QUESTION], ["a"]) == [0.5]


@pytest.mark.parametrize("status", [402, 404, 410, 422, 451, 501, 505])
def test_a_status_that_does_not_pass_is_final(status: int) -> None:
    refused = pytest.raises(RemoteRefused, match=f"answered {status}: never")
    with serving(send(b"never", status=f"{status} Never"), answer(0.5)) as service, refused:
        client(service, retries=1).score([QUESTION], ["a"])


@pytest.mark.parametrize(
    ("wish", "pause"),
    [
        ("7", 7.0),
        (" 0 ", 0.5),
        ("86400", 60.0),
        ("9" * 400, 60.0),
        ("Sun, 06 Nov 2094 08:49:37 GMT", 60.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.5),
        *((nonsense, 0.5) for nonsense in ("", "-5", "soon", "1e9", "nan", "\u0663", "٣")),
    ],
)
def test_a_service_may_ask_for_a_longer_pause_up_to_a_minute(
    monkeypatch: pytest.MonkeyPatch, wish: str, pause: float
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("maporl_env.services.http_json.time.sleep", pauses.append)
    busy = send(b"", status="429 Later", header=f"Retry-After: {wish}")
    with serving(busy, answer(0.5)) as service:
        assert client(service, retries=1, pause_seconds=0.5).score([QUESTION], ["a"]) == [0.5]
    assert pauses == [pause]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_takes_the_token_nowhere(status: int) -> None:
    with serving(answer(0.5)) as other:
        target = f"Location: {other.url.replace('127.0.0.1', 'localhost')}/score"
        refused = pytest.raises(RemoteRefused, match=rf"{status}.*redirects to http://localhost")
        with serving(send(b"", status=f"{status} Moved", header=target)) as service, refused:
            client(service, token="a-token-of-16-ch").score([QUESTION], ["a"])
        assert other.requests == []


@pytest.mark.parametrize("host", ["example.org", "10.0.0.1", "0.0.0.0", "[2001:db8::1]", "host"])
def test_a_token_never_crosses_the_network_in_plain_text(host: str) -> None:
    with pytest.raises(ValueError, match=r"the token for the verifier at http://.* use https://"):
        RemoteVerifier(f"http://{host}:80", token="a-token-of-16-ch")
    RemoteVerifier(f"http://{host}:80")
    RemoteVerifier(f"https://{host}", token="a-token-of-16-ch")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"])
def test_on_this_machine_a_token_needs_no_encryption(host: str) -> None:
    RemoteVerifier(f"http://{host}:80", token="a-token-of-16-ch")


@pytest.mark.parametrize("status", ["400 Bad Request", "401 Unauthorized", "413 Large", "302 Go"])
def test_a_refusal_is_final_and_says_why(status: str) -> None:
    content = json.dumps({"error": {"type": "x", "message": "say\nplease"}}).encode()
    with serving(send(content, status=status)) as service:
        with pytest.raises(RemoteRefused, match=rf"answered {status[:3]}: say please"):
            client(service).score([QUESTION], ["a"])
        assert len(service.requests) == 1


@pytest.mark.parametrize("status", ["401 Unauthorized", "503 Later", "302 Go"])
@pytest.mark.parametrize("before", ["no such key: ", "x" * 190])
def test_a_service_that_repeats_the_token_does_not_bring_it_into_an_error(
    status: str, before: str
) -> None:
    token = "a-token-of-16-ch"
    header = f"Location: http://localhost/{token}"
    said = send(f"{before}{token}".encode(), status=status, header=header)
    with serving(said) as service, pytest.raises(RemoteError) as caught:
        client(service, token=token, retries=0).score([QUESTION], ["a"])
    assert "answered" in str(caught.value)
    assert token[:6] not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"<html>", "without"),
        (b"[0.5]", "without"),
        (b'{"scores": 0.5}', "without"),
        (b"\xff", "without"),
        (b"[" * 100_000, "without"),
        (b'{"scores": []}', "0 scores for 1"),
        (b'{"scores": [0.5, 0.5]}', "2 scores for 1"),
        (b'{"scores": ["0.5"]}', "no number"),
        (b'{"scores": [true]}', "no number"),
        (b'{"scores": [7.0]}', "no number"),
        (b'{"scores": [-0.1]}', "no number"),
        (b'{"scores": [NaN]}', "no number"),
        (b'{"scores": [Infinity]}', "no number"),
        (b'{"scores": [1e999]}', "no number"),
    ],
)
def test_garbage_is_named_and_not_asked_for_twice(content: bytes, complaint: str) -> None:
    with serving(send(content)) as service:
        with pytest.raises(RemoteGarbage, match=complaint):
            client(service).score([QUESTION], ["a"])
        assert len(service.requests) == 1


@pytest.mark.parametrize("slow", [drip, drip_body, silent])
def test_an_attempt_ends_on_time_however_the_bytes_drip(slow: Reply) -> None:
    with serving(slow) as service:
        start = time.monotonic()
        with pytest.raises(RemoteTimeout, match=r"no answer in 0\.2 s"):
            client(service, timeout_seconds=0.2, retries=0).score([QUESTION], ["a"])
        assert time.monotonic() - start < 30  # on a busy machine; else it would never end


def test_an_endless_answer_is_not_read_to_its_end() -> None:
    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"[" * 65536)

    with serving(endless) as service, pytest.raises(RemoteGarbage):
        client(service).score([QUESTION], ["a"])


def test_a_dead_service_masks_and_counts_but_never_scores_zero() -> None:
    with socket.socket() as nobody:  # bound but never listening: every connection is refused
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        scorer = Scorer(RemoteVerifier(url, retries=1, pause_seconds=0.0))
        scores = scorer.score([QUESTION] * 2, ["a", "b"])
    assert scores == [None, None]
    assert scorer.faults == {"raised": 2}
    assert scorer.last_error is not None
    assert "maporl verifier serve" in scorer.last_error


def test_a_late_service_counts_as_timed_out() -> None:
    with serving(silent) as service:
        scorer = Scorer(client(service, timeout_seconds=0.1, retries=0))
        assert scorer.score([QUESTION], ["a"]) == [None]
    assert scorer.faults == {"timed out": 1}


def test_threads_may_share_a_client() -> None:
    with serving(*(answer(i / 10) for i in range(8))) as service:
        remote = client(service)
        results: list[float | None] = []
        threads = [
            threading.Thread(target=lambda: results.extend(remote.score([QUESTION], ["a"])))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(x for x in results if x is not None) == [i / 10 for i in range(8)]


@pytest.mark.parametrize(
    ("url", "options", "complaint"),
    [
        ("127.0.0.1:8000", {}, "http://host:port"),
        ("ftp://host", {}, "http://host:port"),
        ("http://", {}, "http://host:port"),
        ("http://me:secret@host", {}, "not one with a name or password"),
        ("http://host:99999", {}, "no address"),
        ("http://host?x=1", {}, "http://host:port"),
        ("http://host", {"token": "a b"}, "without spaces"),
        ("http://host", {"token": "abc\n"}, "line end"),
        ("http://host", {"token": ""}, "printable"),
        ("http://host", {"timeout_seconds": 0}, "timeout_seconds must be"),
        ("http://host", {"retries": -1}, "retries must be"),
        ("http://host", {"max_items": 0}, "max_items must be"),
        ("http://host", {"pause_seconds": float("nan")}, "pause_seconds must be"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    url: str, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        RemoteVerifier(url, **options)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://host:80", (False, "host", 80, "/score")),
        ("https://host/behind/proxy/", (True, "host", None, "/behind/proxy/score")),
        ("http://[::1]:8000", (False, "::1", 8000, "/score")),
    ],
)
def test_an_address_is_taken_apart(url: str, place: tuple[Any, ...]) -> None:
    service = RemoteVerifier(url).service
    assert (service._secure, service._host, service._port, service._path) == place


def test_every_error_is_a_remote_error() -> None:
    for error in (RemoteTimeout, RemoteUnavailable, RemoteRefused, RemoteGarbage):
        assert issubclass(error, RemoteError)
    assert issubclass(RemoteTimeout, TimeoutError)


def test_who_asks_nobody_loads_no_http_library() -> None:
    code = "import sys, maporl_env.verifiers; sys.exit('http.client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
