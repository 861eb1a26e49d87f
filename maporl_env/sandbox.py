r"""A sandbox for untrusted Python: runs and tests programs that a model wrote.

    sandbox = Sandbox()
    job = Job(source="def double(x): return 2 * x", name="double", tests="assert double(4) == 8")
    sandbox.run(job).outcome                                           # "passed"
    sandbox.run(Job("def f(): return 6 * 7", "f")).value               # 42, without tests

A program runs in a process of its own, in new user, process, network, mount and shared-memory
namespaces, behind a system-call filter and resource limits, with an empty environment, and in a
file system that holds Python's library and one empty folder. Its tests run in *another* process,
confined likewise, which calls the function through a pipe: arguments and results cross as plain
data. So a program cannot read the tests, replace `==`, end the tests by exiting, or write the
verdict. What it can do is return values, be slow, and stop.

Where the kernel does not offer this isolation, :class:`SandboxUnavailable` is raised: the sandbox
never falls back to less. `isolation="none"` keeps the processes, most limits and the filter, but
not the namespaces: a program can then read and change files of this user and see its processes.
`docs/how-to/sandbox.md` lists the limits of this isolation.

Linux on x86_64 or aarch64. Safe to use from several threads.
"""

from __future__ import annotations

import os
import queue
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from maporl_env.declared import Checked, Range, whole
from maporl_env.jail import frames

Isolation = Literal["namespaces", "none"]
Outcome = Literal["passed", "failed", "died", "timeout", "invalid", "lost"]

MAX_SOURCE_CHARS = 150_000
START_SECONDS = 60.0  # for the interpreter of a supervisor, on a very busy machine
GRACE_SECONDS = 10.0  # beyond a job's limit, before the supervisor itself is killed
NOBODY = 65534
_JAIL = Path(__file__).parent / "jail"
_BOOT = """
import sys
sys.path.pop(0)
sys.dont_write_bytecode = True
from importlib import util
spec = util.spec_from_file_location(
    "jail", sys.argv[1] + "/__init__.py", submodule_search_locations=[sys.argv[1]]
)
sys.modules["jail"] = util.module_from_spec(spec)
from jail import supervisor
isolated = sys.argv.pop() == "namespaces"
del sys.argv[1:]
supervisor.main(isolated)
"""


class SandboxUnavailable(RuntimeError):
    """This machine does not offer the isolation that was asked for."""


@dataclass(frozen=True, slots=True)
class Limits(Checked):
    """Limits of one program.

    Attributes:
        seconds: wall-clock time for the program and its tests together.
        memory_mb: address space of each of its processes, the interpreter included.
        processes: largest number of processes and threads, its own included.
        file_mb: size of all files in its folder.
        output_chars: number of printed characters that are kept; the rest is dropped.
    """

    seconds: Annotated[float, Range("in (0, 3600]", lambda x: 0 < x <= 3600)] = 5.0
    memory_mb: Annotated[int, whole(64)] = 512
    processes: Annotated[int, whole(1)] = 1
    file_mb: Annotated[int, whole(1)] = 16
    output_chars: Annotated[int, whole(0)] = 2_000


@dataclass(frozen=True, slots=True)
class Job:
    """A program, and the function or tests to run.

    Attributes:
        source: untrusted Python that defines a function `name`.
        name: of the function that is called.
        tests: *trusted* Python with assertions about `name`; None to call it once instead. What it
            defines under that name itself is ignored, so it may begin with the function's stub.
        arguments: of the one call, plain data; only without tests.
        preamble: trusted Python that runs before the program, in its names: imports, helpers.

    Raises:
        ValueError: arguments together with tests; arguments that are not plain data; tests that
            are too long. (A *program* that is too long gives a failed result instead.)
    """

    source: str
    name: str
    tests: str | None = None
    arguments: tuple[Any, ...] = ()
    preamble: str = ""

    def __post_init__(self) -> None:
        if self.tests is not None and self.arguments:
            raise ValueError("arguments are for a job without tests: tests bring their own")
        for name, text in (("tests", self.tests or ""), ("preamble", self.preamble)):
            if len(text) > MAX_SOURCE_CHARS:
                raise ValueError(f"{name} of more than {MAX_SOURCE_CHARS} characters: divide them")
        if len(frames.dumps(frames.pack(self.arguments))) > MAX_SOURCE_CHARS:
            raise ValueError(f"arguments of more than {MAX_SOURCE_CHARS} bytes: pass less")


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a job.

    Attributes:
        outcome: "passed" (every assertion held, or the call returned plain data), "failed",
            "died" (the program ended its process or was ended by a limit), "timeout"; or, with
            nothing said about the program, "invalid" (the *tests* are no Python, or assert nothing)
            or "lost" (the sandbox itself gave no answer).
        value: what the call returned, made of plain data; None with tests.
        passed: assertions that held each time they ran.
        total: assertions that were counted, each once however often it runs; 0 if the program died.
        detail: the message of the first error.
        output: the start of what the program printed.
        seconds: wall-clock time.
        cpu_seconds: of the program, its threads and processes, from its loading to its end, as the
            kernel counts them: not the tests' time, nor that of setting up the isolation.
        share: of the assertions that held; one that ran several times counts by the share of these.
    """

    outcome: Outcome
    value: Any = None
    passed: int = 0
    total: int = 0
    detail: str = ""
    output: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    share: float = 0.0


def _usual_workers() -> int:
    """Return this process's share of the machine's processors, at most 8."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(1, min(8, len(os.sched_getaffinity(0)) // processes))


Workers = Annotated[int | None, Range("at least 1 or None", lambda x: x is None or x >= 1)]


@dataclass(frozen=True)
class Sandbox(Checked):
    """Runs jobs, `workers` at a time. Keeps no process between calls.

    Attributes:
        limits: of each job.
        isolation: "namespaces", or "none" for programs that you trust.
        workers: jobs at a time; None for one per processor, at most 8. Processes of a run that a
            launcher has started on this machine (LOCAL_WORLD_SIZE) share the processors.

    Raises:
        SandboxUnavailable: the kernel refuses the isolation.
        ValueError: an unknown isolation, or fewer workers than 1.
    """

    limits: Limits = field(default_factory=Limits)
    isolation: Isolation = "namespaces"
    workers: Annotated[int | None, Range("at least 1 or None", lambda x: x is None or x >= 1)] = (
        None
    )

    def __post_init__(self) -> None:
        Checked.__post_init__(self)
        if reason := unavailable(self.isolation):
            raise SandboxUnavailable(reason)

    def run(self, job: Job) -> Result:
        """Return the result of one job; see :meth:`run_many`."""
        return self.run_many([job])[0]

    def run_many(self, jobs: Sequence[Job]) -> list[Result]:
        """Return one result per job, in order.

        An error of a program is never raised here; it is part of its result.

        Raises:
            SandboxUnavailable: a supervisor could not be started.
        """
        results: list[Result | None] = [None] * len(jobs)
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for place in range(len(jobs)):
            waiting.put(place)
        crew = min(self.workers or _usual_workers(), len(jobs))
        errors: list[BaseException] = []
        arguments = (jobs, results, waiting, errors)
        helpers = [
            threading.Thread(target=self._work, args=arguments, daemon=True)
            for _ in range(crew - 1)
        ]
        for helper in helpers:
            helper.start()
        self._work(*arguments)
        for helper in helpers:
            helper.join()
        if errors:
            raise errors[0]
        return [result for result in results if result is not None]

    def _work(
        self,
        jobs: Sequence[Job],
        results: list[Result | None],
        waiting: queue.SimpleQueue[int],
        errors: list[BaseException],
    ) -> None:
        supervisor: _Supervisor | None = None
        try:
            while not errors:
                place = waiting.get_nowait()
                if (refused := _refuse(jobs[place])) is not None:
                    results[place] = refused
                    continue
                if supervisor is None or not supervisor.alive:
                    supervisor = _Supervisor(self.isolation)
                results[place] = supervisor.run(jobs[place], self.limits)
        except queue.Empty:
            return
        except BaseException as error:
            errors.append(error)
        finally:
            if supervisor is not None:
                supervisor.close()


def _refuse(job: Job) -> Result | None:
    """The result of a job that is not worth a process, or None."""
    if len(job.source) > MAX_SOURCE_CHARS:
        return Result("failed", detail=f"the program has more than {MAX_SOURCE_CHARS} characters")
    return None


@cache
def unavailable(isolation: Isolation = "namespaces") -> str | None:
    """Return why the sandbox cannot run here, or None if it can. Found by trying, once."""
    if sys.platform != "linux":
        return f"the sandbox needs Linux, this is {sys.platform}: score programs on another machine"
    try:
        _Supervisor(isolation).close()
    except SandboxUnavailable as error:
        return str(error)
    return None


class _Supervisor:
    """The caller's end of one supervisor process. Belongs to one thread."""

    def __init__(self, isolation: Isolation) -> None:
        self.process = _start(isolation)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.input, self.output = self.process.stdin.fileno(), self.process.stdout.fileno()
        self.alive = True
        try:
            self._greet()
        except BaseException:
            self.close()
            raise

    def _greet(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        try:
            message = frames.receive(self.output, deadline)
            if "map" in message:
                _map_users(self.process.pid)
                frames.send(self.input, {}, deadline)
                message = frames.receive(self.output, deadline)
            reason = message.get("refused")
        except (EOFError, OSError, ValueError) as error:
            reason = str(error)
        if reason is not None:
            raise SandboxUnavailable(
                f"no sandbox here ({reason}): allow user namespaces to this user, or, for programs "
                "that you would run yourself, choose isolation='none'"
            )

    def run(self, job: Job, limits: Limits) -> Result:
        """Run one job. A supervisor that does not answer is given up, the job with it."""
        nonce = secrets.token_hex(16)
        deadline = time.monotonic() + limits.seconds + GRACE_SECONDS
        try:
            frames.send(self.input, _for_worker(job, limits), deadline)
            frames.send(self.input, _for_checker(job, nonce), deadline)
            report = frames.receive(self.output, deadline)
        except (EOFError, OSError) as error:
            self.close()
            return Result("lost", detail=f"the sandbox gave no answer: {error}")
        if report.pop("nonce", nonce) != nonce:
            self.close()
            raise RuntimeError("the sandbox answered another job than the one it was given")
        if "value" in report:
            report["value"] = frames.unpack(report["value"])
        return Result(**report)

    def close(self) -> None:
        """End the supervisor, and with it whatever it runs."""
        self.alive = False
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def _start(isolation: Isolation) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [_interpreter(), "-s", "-S", "-c", _BOOT, str(_JAIL), isolation],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONHASHSEED": "0"},  # one program, one verdict; the program sees none of it
            cwd="/",
            start_new_session=True,
            bufsize=0,
        )
    except OSError as error:
        raise SandboxUnavailable(f"cannot start {_interpreter()}: {error}") from error


def _for_worker(job: Job, limits: Limits) -> dict[str, Any]:
    """Return the part of a job that supervisor and worker get; the limits bind the checker too."""
    return {
        "sources": [job.preamble, job.source],
        "seconds": limits.seconds,
        "memory_bytes": limits.memory_mb << 20,
        "file_bytes": limits.file_mb << 20,
        "folder_bytes": limits.file_mb << 20,
        "output_bytes": limits.output_chars,
        "processes": limits.processes,
        "housemates": 1 if os.geteuid() == 0 else 2,  # checker and, but for root, supervisor
    }


def _for_checker(job: Job, nonce: str) -> dict[str, Any]:
    """Return the part of a job that the checker alone gets."""
    arguments = frames.pack(job.arguments)
    return {"nonce": nonce, "name": job.name, "tests": job.tests, "arguments": arguments}


def _interpreter() -> str:
    """The Python behind a virtual environment: the same library, no site-packages."""
    return str(getattr(sys, "_base_executable", None) or sys.executable)


def _map_users(pid: int) -> None:
    """Map the supervisor's users: under root, workers run as user nobody, else as the caller."""
    folder = Path(f"/proc/{pid}")
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        try:
            (folder / "uid_map").write_text(f"0 0 1\n1000 {NOBODY} 1\n")
            (folder / "gid_map").write_text(f"0 0 1\n1000 {NOBODY} 1\n")
            return
        except PermissionError:  # root of a container without that right
            pass
    (folder / "uid_map").write_text(f"1000 {user} 1\n")
    (folder / "setgroups").write_text("deny")
    (folder / "gid_map").write_text(f"1000 {group} 1\n")
