"""Hostile programs fail in time and leave nothing; their harmless twins succeed."""

from __future__ import annotations

import gc
import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from maporl_env import sandbox
from maporl_env.sandbox import Job, Limits, Sandbox

from .hostile_attempts import ATTEMPTS
from .hostile_programs import KINDS, MEMORY_SCAN
from .sandbox_runs import QUICK, RIGHT, TESTS, needs_namespaces, timed


def source_of(program: str, secret: Path, port: int) -> str:
    if "{" not in program:
        return program
    filled = {
        "{secret!r}": repr(str(secret)),
        "{port}": str(port),
        "{pid}": str(os.getpid()),
        "{packages!r}": repr(str(Path(np.__file__).parents[1])),
        "{repository!r}": repr(str(Path(sandbox.__file__).parents[1])),
    }
    for name, text in filled.items():
        program = program.replace(name, text)
    return program.replace("{{", "{").replace("}}", "}")


@needs_namespaces
@pytest.mark.parametrize("kind", ATTEMPTS)
def test_the_harmless_twin_of_every_attempt_succeeds(
    kind: str, secret: Path, server: socket.socket, no_orphans: None
) -> None:
    """The control: what is missing below when a program is held is there when it is not."""
    port = server.getsockname()[1]
    attempts = ATTEMPTS[kind].values()
    jobs = [Job(source_of(a.program(a.harmless), secret, port), "f", TESTS) for a in attempts]
    results = Sandbox(Limits(seconds=5, memory_mb=256, processes=4), workers=2).run_many(jobs)
    for name, result in zip(ATTEMPTS[kind], results, strict=True):
        assert "FOUND" in result.output, (name, result)


@pytest.mark.thorough
@needs_namespaces
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_programs_fail_in_time_and_leave_nothing(
    kind: str,
    secret: Path,
    server: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    no_orphans: None,
    library: None,
) -> None:
    monkeypatch.setenv("CANARY", "canary-of-the-environment")
    port = server.getsockname()[1]
    sources = [source_of(program, secret, port) for program in KINDS[kind].values()]
    descriptors = len(os.listdir("/proc/self/fd"))
    dumps = json.dumps
    # On the caller's clock, from the call to its return: start, killing and reaping are in it. How
    # long a start takes is up to the machine; an empty program says so in the same moment.
    empty = timed("")[1]
    with ThreadPoolExecutor(2) as two_at_a_time:
        runs = list(two_at_a_time.map(timed, sources))
    empty = max(empty, timed("")[1])
    for name, (result, took) in zip(KINDS[kind], runs, strict=True):
        assert result.outcome in ("failed", "died", "timeout"), name
        assert result.passed == 0, name
        assert took <= 1 + 3 * (QUICK.seconds + empty), name
        assert not any(word in result.output for word in ("canary", "FOUND")), name
        assert "canary" not in result.detail, name
        assert len(result.output) <= QUICK.output_chars, name
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert json.dumps is dumps
    with pytest.raises(BlockingIOError):
        server.accept()


@pytest.mark.thorough
@needs_namespaces
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("runs", [60, pytest.param(5_000, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_number_of_runs(runs: int) -> None:
    """Failure R11: less than 5 MB, whatever the programs do."""
    sources = [RIGHT, "import os; os._exit(0)", "print('x' * 10**6)", "def f(", "1 / 0"]
    box = Sandbox(QUICK, workers=2)

    def resident(count: int) -> int:
        for _ in range(count // 20):
            box.run_many([Job(source, "f", TESTS) for source in sources * 4])
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    before = resident(40)
    assert resident(runs) - before < 5 * 10**6


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may read the memory of such a process")
def test_no_worker_ever_holds_the_tests() -> None:
    weak = Sandbox(isolation="none", workers=1)
    results = weak.run_many([Job(MEMORY_SCAN, "f", TESTS)] * 3)
    # The control: the scan does find what is there. Later jobs have the same tests.
    assert [r.output.splitlines()[0] for r in results] == ["['own']"] * 3


def test_there_are_enough_hostile_programs() -> None:
    assert sum(map(len, KINDS.values())) >= 60
