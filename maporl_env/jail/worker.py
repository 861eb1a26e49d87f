"""Runs an untrusted program and answers calls of its functions, one message each.

Nothing here protects itself from the program, which can read and change all of this process. What
matters is what the process never holds: the tests, their expected values, the way to the verdict.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import sys
from typing import Any

from . import filters, frames, kernel, room

Message = dict[str, Any]
USER = 1000  # inside the user namespace
MAX_DETAIL = 500
MAX_FILES = 64


def limit(job: Message, processes: int) -> None:
    """Set the resource limits of this process and its children."""
    seconds = math.ceil(job["seconds"]) + 1
    for kind, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, job["memory_bytes"]),
        (resource.RLIMIT_FSIZE, job["file_bytes"]),
        (resource.RLIMIT_NOFILE, MAX_FILES),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_STACK, 8 << 20),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def enter(
    job: Message, requests: int, replies: int, output: int, isolated: bool
) -> tuple[int, int]:
    """Give up everything but three pipes; returns the places of the first two."""
    nothing = os.open("/dev/null", os.O_RDWR)
    kept = (nothing, output, output, requests, replies)
    high = [os.dup2(pipe, 100 + place) for place, pipe in enumerate(kept)]
    for place, pipe in enumerate(high):
        os.dup2(pipe, place)
    os.closerange(len(kept), 65536)
    if isolated:
        room.furnish(job["folder_bytes"])
    confine(job, isolated)
    return 3, 4


def confine(job: Message, isolated: bool) -> None:
    """Give up privileges, and take on the limits of a job and the filter, for good."""
    if isolated and os.getuid() != USER:  # started by root: become the other mapped user
        os.setgroups([])
        os.setresgid(USER, USER, USER)  # outside this is nobody
        os.setresuid(USER, USER, USER)
    kernel.drop_privileges()  # with them a process could raise its own limits
    limit(job, job["processes"] + job["housemates"])
    kernel.die_with_parent()
    # The kernel does not count processes of root, nor, before the checker has become this user, one
    # too many; and it does not charge a process with the CPU time of a child that nobody waits for.
    alone = job["processes"] == 1
    kernel.install_filter(filters.instructions(signals=isolated, forks=not alone))


def serve(job: Message, requests: int, replies: int) -> None:
    """Run the program, then answer calls until the pipe closes."""
    names: dict[str, Any] = {"__name__": "program", "__builtins__": __builtins__}
    frames.send(replies, _try(_load, job["sources"], names))
    while True:
        call = frames.receive(requests)
        frames.send(replies, _try(_call, call, names))


def _load(sources: list[str], names: dict[str, Any]) -> None:
    for source in sources:
        exec(compile(source, "<program>", "exec", dont_inherit=True), names)


def _call(call: Message, names: dict[str, Any]) -> Any:
    arguments, keywords = frames.unpack(call["arguments"]), frames.unpack(call["keywords"])
    if call["name"] not in names:
        raise NameError(f"the program defines no {call['name']!r}")
    return frames.pack(names[call["name"]](*arguments, **keywords))


def _try(act: Any, *arguments: Any) -> Message:
    try:
        return {"value": act(*arguments)}
    except BaseException as error:
        name = type(error).__name__
        return {"raised": str(name)[:MAX_DETAIL], "detail": _describe(error)}
    finally:
        _flush()


def _flush() -> None:
    """Flush stdout before answering: the process may be killed right after."""
    with contextlib.suppress(BaseException):
        sys.stdout.flush()


def _describe(error: BaseException) -> str:
    try:
        return str.__str__(str(error))[:MAX_DETAIL]
    except BaseException:
        return ""
