"""The process in which `math_verify` reads and compares: see `latex_equivalence`.

Run as `main()` with messages of `jail.frames` on standard input and output. A request is a gold
answer and an answer or null; the reply says whether they are equal, or whether gold can be read.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from maporl_env.jail import frames

MEMORY_BYTES = 4 << 30
LAST_RESORT_SECONDS = 60  # beyond the limit of an answer, should no process be left to end this one


def taken_pipes() -> tuple[int, int]:
    """Return descriptors of requests and replies; a library that prints then writes no reply."""
    requests, replies = os.dup(0), os.dup(1)
    nothing = os.open("/dev/null", os.O_RDWR)
    for pipe in (0, 1, 2):
        os.dup2(nothing, pipe)
    return requests, replies


def main() -> None:
    """Answer requests until the other side is gone."""
    requests, replies = taken_pipes()
    limit_memory()
    try:
        compare = _comparison()
    except Exception as error:
        frames.send(replies, {"refused": f"{type(error).__name__}: {error}"})
        return

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        signal.alarm(int(request["seconds"]) + LAST_RESORT_SECONDS)  # whose default is the end
        equal = compare(request["gold"], request["answer"])
        signal.alarm(0)
        return {"equal": equal}

    frames.serve(requests, replies, answer)


def limit_memory() -> None:
    """Set the address space of this process to at most `MEMORY_BYTES`, where that is offered."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    allowed = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (allowed, hard))
    except (ValueError, OSError):  # a system that does not offer this limit
        return


def _comparison() -> Callable[[str, str | None], bool]:
    from math_verify import LatexExtractionConfig, parse, verify

    extraction = [LatexExtractionConfig(boxed_match_priority=0)]

    @lru_cache(maxsize=1024)
    def read(text: str) -> list[Any]:
        # The caller keeps the time: signals of the library cannot stop a loop in C.
        parsed: list[Any] = parse(f"\\boxed{{{text}}}", extraction, parsing_timeout=None)
        return parsed

    def compare(gold: str, answer: str | None) -> bool:
        if answer is None:
            return bool(read(gold))
        return bool(verify(read(gold), read(answer), timeout_seconds=None))

    return compare
