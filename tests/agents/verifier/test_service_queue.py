"""The queue of the verifier service: batches, a full queue, faults, many connections."""

from __future__ import annotations

import http.client
import itertools
import json
import random
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from service_cases import (
    GOOD,
    MALFORMED,
    QUESTION,
    Locked,
    Running,
    ask_in_threads,
    read_score,
    serving,
    wait_until,
)

from maporl_agents.verifier import serve
from maporl_agents.verifier.service_queue import Limits, ScoreQueue
from maporl_env.types import Question
from maporl_env.verifiers import (
    RemoteUnavailable,
    RemoteVerifier,
)


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


@pytest.mark.thorough
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
