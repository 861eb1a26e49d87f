"""Tests that are not to be trusted after all: the process that runs them is confined as well."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from maporl_env.sandbox import Job, Limits, Result, Sandbox, unavailable

needs_namespaces = pytest.mark.skipif(
    unavailable() is not None, reason=f"no namespaces: {unavailable()}"
)
PROGRAM = "def f(n):\n    return n\n"
LIMITS = Limits(seconds=1.0)


def judge(tests: str, limits: Limits = LIMITS) -> Result:
    return Sandbox(limits).run(Job(PROGRAM, "f", tests))


@pytest.fixture
def neighbour() -> Iterator[subprocess.Popen[bytes]]:
    """A process of this user's own."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def named(mark: str) -> list[int]:
    """Processes that carry a name."""
    found = []
    for file in Path("/proc").glob("[0-9]*/comm"):
        try:
            if file.read_text().strip() == mark:
                found.append(int(file.parent.name))
        except OSError:  # gone meanwhile
            continue
    return found


FORKS = """
import ctypes, os, time
ctypes.CDLL(None).prctl(15, {mark!r}, 0, 0, 0)  # the name that all forks inherit
made = 0
try:
    for _ in range(40):
        if os.fork() == 0:
            os.setsid()
            time.sleep(60)
        made += 1
except OSError:
    pass
assert f(made) == {made}
"""


@needs_namespaces
@pytest.mark.parametrize(("processes", "made"), [(1, 0), (4, 3)])
def test_forks_are_refused_beyond_the_limit_and_end_with_the_job(processes: int, made: int) -> None:
    mark = b"maporl-%d" % os.getpid()
    result = judge(FORKS.format(mark=mark, made=made), Limits(seconds=5.0, processes=processes))
    assert (result.outcome, result.detail) == ("passed", "")
    assert named(mark.decode()) == []


@needs_namespaces
def test_no_process_outside_can_be_reached(neighbour: subprocess.Popen[bytes]) -> None:
    pids = [neighbour.pid, os.getpid(), os.getppid()]
    tests = f"""
import os
reached = []
for pid in {pids}:
    try:
        os.kill(pid, 0 if pid != {neighbour.pid} else 9)
        reached.append(pid)
    except OSError:
        pass
try:
    os.kill(-1, 9)
except OSError:
    pass
assert f(reached) == []
assert f(os.getpid()) == 1
"""
    result = judge(tests)
    assert (result.outcome, result.passed) == ("passed", 2)
    assert neighbour.poll() is None


@needs_namespaces
def test_privileges_sockets_and_files_are_out_of_reach() -> None:
    tests = """
import os, socket
def refused(act, *arguments):
    try:
        act(*arguments)
    except OSError:
        return True
    return False
assert f(os.getuid()) == 1000
assert refused(os.setuid, 0)
assert refused(socket.socket)
assert refused(open, "/tmp/left", "w")
assert refused(open, "/etc/passwd")
"""
    result = judge(tests)
    assert (result.outcome, result.passed, result.detail) == ("passed", 5, "")


@needs_namespaces
def test_processor_time_is_limited_even_where_the_clock_is_not_watched() -> None:
    started = time.monotonic()
    tests = "import resource\nassert f(resource.getrlimit(resource.RLIMIT_CPU)) == (2, 2)\n"
    assert judge(tests).outcome == "passed"
    assert judge(tests + "while True: pass\n").outcome == "timeout"
    assert time.monotonic() - started < 30


@pytest.mark.skipif(unavailable("none") is not None, reason=f"{unavailable('none')}")
def test_without_namespaces_no_signal_can_be_sent(neighbour: subprocess.Popen[bytes]) -> None:
    tests = f"import os\nassert f(1) == 1\nos.kill({neighbour.pid}, 9)\n"
    result = Sandbox(LIMITS, isolation="none").run(Job(PROGRAM, "f", tests))
    assert (result.outcome, result.passed) == ("failed", 1)
    assert "PermissionError" in result.detail
    assert neighbour.poll() is None
