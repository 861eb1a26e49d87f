"""Programs and limits that the tests of the sandbox share."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from maporl_env.sandbox import Job, Limits, Result, Sandbox, unavailable

TESTS = "assert f(20) == 10946\nassert f(10) == 89\n"
RIGHT = "def f(n):\n    a, b = 1, 1\n    for _ in range(n): a, b = b, a + b\n    return a\n"
QUICK = Limits(seconds=0.5, memory_mb=256, processes=4)
PATIENT = Limits(seconds=60.0)  # for tests of the verdict, not of the time


needs_namespaces = pytest.mark.skipif(
    unavailable() is not None, reason=f"no namespaces: {unavailable()}"
)


def children() -> set[int]:
    """Children of this process, by any of its threads."""
    found = Path("/proc/self/task").glob("*/children")
    return {int(pid) for file in found for pid in file.read_text().split()}


def timed(source: str) -> tuple[Result, float]:
    """Run a program in a sandbox of its own; return the result, and the seconds that took us."""
    start = time.perf_counter()
    result = Sandbox(QUICK, workers=1).run(Job(source, "f", TESTS))
    return result, time.perf_counter() - start
