"""A library in a process of its own, which is ended where a request takes too long.

No time-out inside Python stops what an answer can ask of a library, such as `9^{9^{9^9}}`.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from maporl_env.jail import frames
from maporl_env.types import Question

T = TypeVar("T")
U = TypeVar("U")

START_SECONDS = 300.0  # to import a library, on a very busy machine
_BOOT = "import sys; sys.path[:] = {path!r}; from {module} import main; main()"


class LibraryProcess:
    """A process that runs `main()` of a module and answers requests; see `jail.frames.serve`.

    Args:
        module: whose `main` reads requests from standard input and replies on standard output;
            its first message is {"ready": true}, or {"refused": reason}.
        library: the name of what it runs, for errors.
        first: a request that is sent before the first message is awaited; None for none.

    Raises:
        RuntimeError: the library does not start.
    """

    def __init__(self, module: str, library: str, first: dict[str, Any] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _BOOT.format(path=sys.path, module=module)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONHASHSEED": "0"},  # sets have one order in every process
            start_new_session=True,  # Ctrl-C is for the caller, who ends this process
            bufsize=0,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.requests, self.replies = self.process.stdin.fileno(), self.process.stdout.fileno()
        self.owner = os.getpid()
        self.end_process = weakref.finalize(self, _end, self.process)
        deadline = time.monotonic() + START_SECONDS
        try:
            if first is not None:
                frames.send(self.requests, first, deadline)
            reply = frames.receive(self.replies, deadline)
        except (EOFError, OSError, ValueError) as error:
            self.end()
            raise RuntimeError(f"{library} does not start: {error}") from error
        if "refused" in reply:
            self.end()
            raise RuntimeError(f"{library} does not start: {reply['refused']}")

    def is_mine(self) -> bool:
        """Whether this process started it; a fork of that process shares its pipes."""
        return self.owner == os.getpid()

    def ask(self, request: dict[str, Any], seconds: float) -> Any:
        """Return the reply; TimeoutError, EOFError, OSError or ValueError without one."""
        deadline = time.monotonic() + seconds
        frames.send(self.requests, request, deadline)
        return frames.receive(self.replies, deadline)

    def end(self) -> None:
        """End the process."""
        self.end_process()


class LibraryVerifier:
    """Scores one response after the other by a library in a process of its own.

    Safe to use from several threads, which take turns.

    Args:
        seconds: on the clock, for one answer.

    Raises:
        ValueError: `seconds` is no finite number above 0.
    """

    def __init__(self, seconds: float) -> None:
        if not (math.isfinite(seconds) and seconds > 0):
            raise ValueError(f"seconds must be a finite number > 0, not {seconds!r}")
        self.seconds = seconds
        self._lock = threading.Lock()
        self._worker: LibraryProcess | None = None

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float | None]:
        """Return one score per response; None for one that cannot be scored.

        Raises:
            RuntimeError: the library does not start.
        """
        with self._lock:
            return [self._one(q, text) for q, text in zip(questions, responses, strict=True)]

    def _one(self, question: Question, text: str) -> float | None:
        """Return the score of one response."""
        raise NotImplementedError

    def _started(self) -> LibraryProcess:
        """Return a process of the library."""
        raise NotImplementedError

    def _ask(self, request: dict[str, Any], read: Callable[[Any], T], without: U) -> T | U:
        """Return what `read` makes of the reply; `without` one, e.g. because it takes too long."""
        for _ in range(2):  # once more, should something else have ended the process
            if self._worker is None or not self._worker.is_mine():
                self._worker = self._started()
            try:
                return read(self._worker.ask({**request, "seconds": self.seconds}, self.seconds))
            except (EOFError, OSError, ValueError) as error:
                self._worker.end()
                self._worker = None
                if isinstance(error, TimeoutError):
                    break
        return without


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
