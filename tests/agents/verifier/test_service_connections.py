"""Slow, silent and vanished clients of the verifier service."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from service_cases import (
    GOOD,
    QUESTION,
    TOKEN,
    Locked,
    Running,
    ask_in_threads,
    serving,
    wait_until,
)

from maporl_env.verifiers import (
    RemoteVerifier,
)


def test_a_body_that_does_not_arrive_is_given_up() -> None:
    with serving(receive_seconds=0.2) as running:
        with socket.create_connection(("127.0.0.1", running.port), 10) as connection:
            connection.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
            assert b" 408 " in connection.recv(65536).splitlines()[0]
        assert running.post(GOOD)[0] == 200


HEADS = [b"", b"POST /sc", b"GET /health HTTP/1.1\r\nHost: x\r\n"]


BODY = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n{"


@contextmanager
def half_open(running: Running, number: int, begun: bytes) -> Iterator[list[socket.socket]]:
    """Connections whose request never comes to its end."""
    with ExitStack() as stack:
        sockets = []
        for _ in range(number):
            address = ("127.0.0.1", running.port)
            sockets.append(stack.enter_context(socket.create_connection(address, 10)))
            sockets[-1].sendall(begun)
        wait_until(lambda: len(running.server.server_state.connections) >= min(number, 8))
        yield sockets


def closed(connection: socket.socket) -> bool:
    """Whether the service ends a connection, after whatever it says."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


@pytest.mark.parametrize("begun", [*HEADS, BODY])
@pytest.mark.parametrize("limits", [{"max_connections": 8}, {"max_client_connections": 8}])
@pytest.mark.parametrize("token", [TOKEN, None])
def test_half_open_connections_lock_nobody_out(
    begun: bytes, limits: dict[str, int], token: str | None
) -> None:
    with serving(token=token, **limits) as running, half_open(running, 20, begun):
        assert running.ask("GET", "/health")[0] == 200
        remote = RemoteVerifier(running.url, token=token, retries=0)
        assert remote.score([QUESTION], ["0.5"]) == [0.5]
        assert len(running.server.server_state.connections) <= 9


@pytest.mark.parametrize("begun", HEADS)
def test_a_head_that_does_not_arrive_ends_its_connection(begun: bytes) -> None:
    with serving(receive_seconds=0.2) as running, half_open(running, 3, begun) as sockets:
        assert all(map(closed, sockets))
        assert running.post(GOOD) == (200, {"scores": [0.25]})


def drip(connection: socket.socket, head: bytes) -> float:
    """Send a request byte by byte, for ever; return for how long the service listened."""
    start = time.monotonic()
    connection.settimeout(0.02)
    connection.sendall(head)
    while True:
        try:
            connection.sendall(b"a")
            if not connection.recv(65536):
                return time.monotonic() - start
        except TimeoutError:
            assert time.monotonic() - start < 20
        except ConnectionError:
            return time.monotonic() - start


ASKED = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.thorough
@pytest.mark.parametrize("head", [b"", b"GET /health HTTP/1.1\r\nX: ", ASKED, ASKED + BODY])
def test_dripping_buys_no_time(head: bytes) -> None:
    """Also not by a refused request whose body goes on, nor after a first whole request."""
    with (
        serving(token=TOKEN, receive_seconds=0.2) as running,
        socket.create_connection(("127.0.0.1", running.port), 10) as connection,
    ):
        assert drip(connection, head) < 15  # on a busy machine; `receive_seconds` is 0.2


def test_requests_under_way_are_never_ended_for_a_newcomer() -> None:
    locked = Locked()
    with serving(locked, max_client_connections=2) as running:
        threads, answers = ask_in_threads(running, ["0.1", "0.2"])
        wait_until(lambda: len(locked.sizes) + len(running.server.server_state.connections) >= 3)
        status, content = running.post(GOOD)
        assert (status, content["error"]["type"]) == (503, "busy")
        locked.release.set()
        for thread in threads:
            thread.join()
    assert answers == {text: (200, {"scores": [float(text)]}) for text in ("0.1", "0.2")}


def test_a_client_that_hangs_up_is_no_failure() -> None:
    with serving() as running:
        with socket.create_connection(("127.0.0.1", running.port), 10) as connection:
            connection.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        wait_until(lambda: 'status="400"} 1' in running.ask("GET", "/metrics")[1].decode())
        assert running.post(GOOD)[0] == 200
