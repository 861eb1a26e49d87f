"""The trusted process between the caller and untrusted programs.

For each job it forks a worker (its own processes, mounts, shared memory; no privilege; knows only
the program) and a checker (its own processes; no privilege either; knows the tests). The supervisor
itself reads the worker's half of a job only, so no fork of it can hold tests, neither these nor
those of an earlier job. It keeps the time and ends both.
"""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import struct
import tempfile
import time
from typing import Any

from . import checker, frames, kernel, room, worker

Message = dict[str, Any]
STDIN, STDOUT = 0, 1
CHECKER_MEMORY = 1 << 30
_SECONDS = struct.Struct(">d")
_OUTSIDE = kernel.NEW_USERS | kernel.NEW_NETWORK | kernel.NEW_MOUNTS | kernel.NEW_UTS
_PER_JOB = kernel.NEW_PIDS | kernel.NEW_MOUNTS | kernel.NEW_IPC


def main(isolated: bool) -> None:
    """Isolate this process, say so, then run the jobs that come in until the caller is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.clear()
    try:
        prepare(isolated)
    except OSError as error:
        frames.send(STDOUT, {"refused": str(error)})
        return
    frames.serve(STDIN, STDOUT, lambda job: run(job, isolated))


def prepare(isolated: bool) -> None:
    """Enter the namespaces that all jobs share; OSError where the kernel refuses."""
    kernel.machine()
    for module in ("encodings.idna", "math", "re", "typing", "collections", "datetime"):
        __import__(module)
    if isolated:
        kernel.unshare(_OUTSIDE)
        frames.send(STDOUT, {"map": os.getpid()})  # only the caller may map the users
        frames.receive(STDIN)
        room.build()
        trial = kernel.fork(_PER_JOB)
        if trial == 0:
            os._exit(0)
        os.waitpid(trial, 0)
    else:
        kernel.adopt_orphans()
    kernel.die_with_parent()
    kernel.hide_memory()


def run(job: Message, isolated: bool) -> Message:
    """Run one job and return its report."""
    folder = None if isolated else tempfile.mkdtemp(prefix="maporl-")
    calls, answers, output, report, go = (os.pipe() for _ in range(5))
    pids = []
    try:
        pids.append(_start_worker(job, calls[0], answers[1], output[1], folder))
        pids.append(_start_checker(job, calls[1], answers[0], report[1], go[1], isolated))
        for pipe in (calls[0], calls[1], answers[0], answers[1], output[1], report[1], go[1]):
            os.close(pipe)
        os.read(go[0], 1)  # the checker has its half of the job
        start_up = _start_up(output[0])
        started = time.monotonic()
        verdict, text = _watch(report[0], output[0], started + job["seconds"], job["output_bytes"])
        seconds = time.monotonic() - started
    finally:
        spent = _end(pids, isolated)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    for pipe in (report[0], output[0], go[0]):
        os.close(pipe)
    cpu_seconds = max(0.0, spent - start_up)
    return {**verdict, "output": text, "seconds": seconds, "cpu_seconds": cpu_seconds}


def _start_worker(job: Message, calls: int, answers: int, output: int, folder: str | None) -> int:
    isolated = folder is None
    pid = kernel.fork(_PER_JOB) if isolated else os.fork()
    if pid:
        return pid
    try:
        _same_chances()
        os.setsid()  # a signal to its process group reaches no other process
        if folder is not None:
            os.chdir(folder)
        pipes = worker.enter(job, calls, answers, output, isolated)
        os.write(1, _SECONDS.pack(time.process_time()))  # before anything of the program runs
        worker.serve(job, *pipes)
    except BaseException:
        os._exit(1)
    os._exit(0)


def _start_checker(
    limits: Message, calls: int, answers: int, report: int, go: int, isolated: bool
) -> int:
    pid = kernel.fork(kernel.NEW_PIDS) if isolated else os.fork()
    if pid:
        return pid
    try:
        _same_chances()
        _check(limits, calls, answers, report, go, isolated)
    except BaseException:
        os._exit(1)
    os._exit(0)


def _check(limits: Message, calls: int, answers: int, report: int, go: int, isolated: bool) -> None:
    job = frames.receive(STDIN)
    os.write(go, b".")
    nothing = os.open("/dev/null", os.O_RDWR)
    for pipe in (0, 1, 2):
        os.dup2(nothing, pipe)
    keep = (0, 1, 2, calls, answers, report)
    for pipe in range(max(keep)):
        if pipe not in keep:
            _close(pipe)
    worker.confine({**limits, "memory_bytes": CHECKER_MEMORY}, isolated)
    verdict = checker.check(job, calls, answers)
    frames.send(report, {**verdict, "nonce": job["nonce"]})


def _same_chances() -> None:
    """Start a fresh fork's random numbers alike each time: one program, one verdict."""
    random.setstate(random.Random(0).getstate())


def _close(pipe: int) -> None:
    try:
        os.close(pipe)
    except OSError:
        return


def _watch(report: int, output: int, deadline: float, max_output: int) -> tuple[Message, str]:
    """Wait for the verdict, emptying the program's output meanwhile; ends at the deadline."""
    poll = select.poll()
    poll.register(report, select.POLLIN)
    poll.register(output, select.POLLIN)
    poll.register(STDIN, 0)  # only whether the caller is gone
    os.set_blocking(output, False)
    kept = bytearray()
    while (left := deadline - time.monotonic()) > 0:
        events = dict(poll.poll(left * 1000 + 1))
        if events.get(STDIN, 0) & (select.POLLHUP | select.POLLERR):
            os.kill(os.getpid(), signal.SIGKILL)
        if output in events and not _drain(output, kept, max_output):
            poll.unregister(output)
        if report in events:
            verdict = _receive(report, deadline)
            _drain(output, kept, max_output)
            return verdict, kept.decode("utf-8", "replace")
    return {"outcome": "timeout", "detail": ""}, kept.decode("utf-8", "replace")


def _drain(output: int, kept: bytearray, max_output: int) -> bool:
    """Read once and keep what fits; return False when all other ends of the pipe are closed."""
    try:
        part = os.read(output, 1 << 16)
    except BlockingIOError:
        return True
    kept += part[: max_output - len(kept)]
    return bool(part)


def _receive(report: int, deadline: float) -> Message:
    try:
        verdict: Message = frames.receive(report, deadline)
    except TimeoutError:
        return {"outcome": "timeout", "detail": ""}
    except (EOFError, ValueError):
        return {"outcome": "failed", "detail": "the tests could not digest what the program gave"}
    return verdict


def _start_up(output: int) -> float:
    """Return the CPU seconds of a worker before its program; 0 if it ended before that."""
    head = os.read(output, _SECONDS.size)
    seconds: float = _SECONDS.unpack(head)[0] if len(head) == _SECONDS.size else 0.0
    return seconds


def _end(pids: list[int], isolated: bool) -> float:
    """Kill worker, checker and all their descendants, and wait until they have ended.

    Returns the CPU seconds of the worker and of all processes that it has started.
    """
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    # The first process of a namespace takes all others with it, and their CPU time.
    spent = [_reap(pid) for pid in pids][:1]
    while not isolated and (orphans := _children()):
        for pid in orphans:
            os.kill(pid, signal.SIGKILL)
            spent.append(_reap(pid))
    return sum(spent)


def _reap(pid: int) -> float:
    """Wait for a process and return the CPU seconds of it and of the children it waited for."""
    usage = os.wait4(pid, 0)[2]
    return usage.ru_utime + usage.ru_stime


def _children() -> list[int]:
    try:
        with open("/proc/thread-self/children") as lines:
            return [int(pid) for pid in lines.read().split()]
    except OSError:
        return []
