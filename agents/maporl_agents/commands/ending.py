"""The end of a process in which a thread is left that nothing can stop."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress


def as_program(run: Callable[[], None]) -> None:
    """Call `run` as the whole of this process, which ends with the code `run` asks for.

    A thread may be left at the end: a verifier function beyond its time, an agent that writes while
    the debate is stopped, debates played ahead. Python before 3.14 stops such a thread where it
    next asks for the interpreter; inside the native code of a library that aborts the process
    ("terminate called without an active exception", code 134), though all is done and saved. Where
    one is left, the process therefore ends without the interpreter's own end.

    Raises:
        SystemExit: as of `run`.
    """
    code = 1  # of an error that nobody catches

    def end() -> None:
        others = set(threading.enumerate()) - {threading.main_thread()}
        if others:  # daemons: all other threads have been waited for
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):
                    stream.flush()
            os._exit(code)

    atexit.register(end)  # first, so that it runs after what is registered later
    try:
        run()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        raise
