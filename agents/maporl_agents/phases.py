"""Seconds that the phases of a training step take: who measures, and who asks.

    from maporl_agents.phases import measured, phase

    with measured() as seconds:
        with phase("play"):
            ...
    assert seconds["play"] <= seconds["total"]

A phase may be entered many times, inside another one, and in threads of `side_by_side`: its times
add up. Phases that run in several threads at once count each thread's time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Seconds = dict[str, float]
"""Wall-clock seconds by phase."""

_ADDING = threading.Lock()

_MEASURED: ContextVar[Seconds | None] = ContextVar("measured", default=None)


@contextmanager
def measured() -> Iterator[Seconds]:
    """Collect the seconds of all phases inside the block, and of the whole block as "total"."""
    seconds: Seconds = {}
    token = _MEASURED.set(seconds)
    try:
        with phase("total"):
            yield seconds
    finally:
        _MEASURED.reset(token)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Add the time of the block to a phase; outside of `measured` this does nothing."""
    seconds = _MEASURED.get()
    start = time.perf_counter()
    try:
        yield
    finally:
        if seconds is not None:
            spent = time.perf_counter() - start
            with _ADDING:
                seconds[name] = seconds.get(name, 0.0) + spent


def shares(seconds: Seconds) -> str:
    """Return the share of each phase in the steps as one line, the largest first."""
    whole = seconds["total"]
    parts = sorted((s for s in seconds.items() if s[0] != "total"), key=lambda part: -part[1])
    return ", ".join(f"{name} {time / whole:.0%}" for name, time in parts)
