"""The verifier service over real connections: what it takes, refuses, counts and survives."""

from __future__ import annotations

import http.client
import itertools
import json
import random
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from maporl_agents.verifier import serve
from maporl_agents.verifier.serve import is_loopback, make_app, make_server, require_token
from maporl_agents.verifier.service_queue import Limits, ScoreQueue
from maporl_env.types import Question
from maporl_env.verifiers import (
    AnswerKey,
    RemoteRefused,
    RemoteUnavailable,
    RemoteVerifier,
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


@pytest.mark.parametrize("text", ["nan", "7.0", "-1", "inf", "no number"])
def test_an_unsound_score_is_null(service: Running, text: str) -> None:
    data = {"questions": [{"prompt": "p"}], "responses": [text]}
    assert service.post(data) == (200, {"scores": [None]})


def test_no_responses_no_scores(service: Running) -> None:
    assert service.post({"questions": [], "responses": []}) == (200, {"scores": []})


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


def test_what_waits_is_scored_together_and_goes_back_to_whoever_asked() -> None:
    locked = Locked()
    with serving(locked, batch_items=4) as running:
        threads, answers = ask_in_threads(running, ["0.0", "0.1", "0.2", "0.3", "0.4", "0.5"])
        wait_until(lambda: running.metric("maporl_responses_waiting") == 6)
        locked.release.set()
        for thread in threads:
            thread.join()
    assert answers == {text: (200, {"scores": [float(text)]}) for text in answers}
    assert len(answers) == sum(locked.sizes) == 6
    assert max(locked.sizes) <= 4
    assert len(locked.sizes) <= 3  # at worst 1 at once, then 4, then the last


def test_a_full_queue_says_busy_and_recovers() -> None:
    locked = Locked()
    with serving(locked, max_waiting=2, max_items=1) as running:
        threads, answers = ask_in_threads(running, ["0.1", "0.2"])
        wait_until(lambda: running.metric("maporl_responses_waiting") == 2)
        status, content = running.post(GOOD)
        assert (status, content["error"]["type"]) == (503, "busy")
        with pytest.raises(RemoteUnavailable, match="503"):
            RemoteVerifier(running.url, retries=0).score([QUESTION], ["1"])
        locked.release.set()
        for thread in threads:
            thread.join()
        assert len(answers) == 2
        assert running.post(GOOD) == (200, {"scores": [0.25]})


def test_a_verifier_that_hangs_costs_a_504_and_shows_in_health() -> None:
    locked = Locked()
    with serving(locked, answer_seconds=0.2) as running:
        status, content = running.post(GOOD)
        assert (status, content["error"]["type"]) == (504, "timed_out")
        assert running.post(GOOD)[0] == 504
        wait_until(lambda: running.ask("GET", "/health")[0] == 503)
        assert running.metric("maporl_responses_waiting") == 0
        locked.release.set()
        wait_until(lambda: running.ask("GET", "/health")[0] == 200)
        assert running.post(GOOD) == (200, {"scores": [0.25]})


def test_one_poisonous_request_does_not_cost_its_neighbours() -> None:
    locked = Locked()
    with serving(locked) as running:
        threads, answers = ask_in_threads(running, ["0.0", "poison", "0.2", "0.3"])
        wait_until(lambda: running.metric("maporl_responses_waiting") == 4)
        locked.release.set()
        for thread in threads:
            thread.join()
        assert running.metric('maporl_responses_unscored_total{cause="raised"}') == 1
        assert running.metric("maporl_responses_scored_total") == 3
    assert answers.pop("poison") == (200, {"scores": [None]})
    assert answers == {text: (200, {"scores": [float(text)]}) for text in ("0.0", "0.2", "0.3")}


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


@pytest.mark.parametrize("head", [b"", b"GET /health HTTP/1.1\r\nX: ", ASKED, ASKED + BODY])
def test_dripping_buys_no_time(head: bytes) -> None:
    """Also not by a refused request whose body goes on, nor after a first whole request."""
    with (
        serving(token=TOKEN, receive_seconds=0.2) as running,
        socket.create_connection(("127.0.0.1", running.port), 10) as connection,
    ):
        assert drip(connection, head) < 5


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


def test_what_a_verifier_raises_is_a_fault_and_not_the_end_of_the_service() -> None:
    errors = iter([SystemExit(0), KeyboardInterrupt(), GeneratorExit(), BaseException("x")])

    def verifier(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        for error in errors:
            raise error
        return read_score(questions, responses)

    with serving(verifier) as running:
        for _ in range(4):
            assert running.post(GOOD) == (200, {"scores": [None]})
        assert running.post(GOOD) == (200, {"scores": [0.25]})
        assert running.metric('maporl_responses_unscored_total{cause="raised"}') == 4


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_scoring_thread_that_ends_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(queue: ScoreQueue, jobs: object) -> Any:
        raise SystemExit

    monkeypatch.setattr(ScoreQueue, "_judge", ends)
    with serving() as running:
        for _ in range(2):  # the request at hand, and one that comes later
            status, content = running.post(GOOD)
            assert (status, content["error"]["type"]) == (500, "dead")
        status, content = running.ask("GET", "/health")
        assert (status, json.loads(content)["status"]) == (503, "dead")


def test_a_client_that_hangs_up_is_no_failure() -> None:
    with serving() as running:
        with socket.create_connection(("127.0.0.1", running.port), 10) as connection:
            connection.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        wait_until(lambda: 'status="400"} 1' in running.ask("GET", "/metrics")[1].decode())
        assert running.post(GOOD)[0] == 200


def test_an_unforeseen_failure_shows_nothing_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(body: bytes, limits: Limits) -> Any:
        raise ZeroDivisionError("a secret path")

    monkeypatch.setattr(serve, "parse", broken)
    with serving() as running:
        assert running.post(GOOD) == (
            500, {"error": {"type": "internal", "message": "the service failed"}}
        )  # fmt: skip


# --- Many at once --------------------------------------------------------------


def storm(running: Running, number: int, connections: int) -> tuple[int, int]:
    """Send `number` valid and as many malformed requests; return how many were answered rightly.

    Every valid request asks for scores of its own, so that a swapped answer is seen.
    """
    counters = (itertools.count(), itertools.count())
    right = [[0, 0] for _ in range(connections)]
    bad = [body if isinstance(body, bytes) else json.dumps(body).encode() for body, _ in MALFORMED]

    def work(me: int) -> None:
        rng = random.Random(me)
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
        order = [0] * (number // connections + 1) + [1] * (number // connections + 1)
        rng.shuffle(order)
        for kind in order:
            index = next(counters[kind])
            if index >= number:
                continue
            values = [(index % 997) / 997, (index % 89) / 89]
            data = {"questions": [{"prompt": "p"}] * 2, "responses": [str(v) for v in values]}
            body = json.dumps(data).encode() if kind == 0 else bad[index % len(bad)]
            connection.request("POST", "/score", body)
            answer = connection.getresponse()
            content = json.loads(answer.read())
            if kind == 0:
                right[me][0] += (answer.status, content) == (200, {"scores": values})
            else:
                right[me][1] += answer.status == 400 and "error" in content
        connection.close()

    threads = [threading.Thread(target=work, args=(me,)) for me in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(valid for valid, _ in right), sum(malformed for _, malformed in right)


def test_none_is_lost_or_swapped_over_many_connections() -> None:
    with serving() as running:
        assert storm(running, 300, 16) == (300, 300)
        assert running.metric("maporl_responses_scored_total") == 600
        assert running.metric("maporl_responses_waiting") == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_of_each_over_64_connections() -> None:
    with serving() as running:
        start = time.monotonic()
        assert storm(running, 10_000, 64) == (10_000, 10_000)
        seconds = time.monotonic() - start
        assert running.metric("maporl_responses_scored_total") == 20_000
        assert running.metric('maporl_requests_total{status="200"}') == 10_001  # and /metrics
        assert running.metric('maporl_requests_total{status="400"}') == 10_000
    print(f"20,000 requests in {seconds:.0f} s")
