"""The exchange with a measured process: it writes a line of JSON per iteration and reads one.

Runs in every environment, those of the peers too, so it imports nothing but the standard library.
A process announces {"ready": ..., "loaded": bytes}, then waits. On each line "go" it does one
iteration and says {"seconds": processor time, "growth": bytes over what was resident when the
models were loaded}. On "stop", or when its input ends, it leaves.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

STATUS = Path("/proc/self/status")
PEAKS = Path("/proc/self/clear_refs")


def resident(name: str = "VmRSS") -> int:
    """Return the resident memory of this process in bytes; "VmHWM" is its peak."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"{STATUS} has no line {name}")


class Worker:
    """This process as the other side sees it.

    Attributes:
        loaded: bytes that were resident when the models were loaded, before anything was done.
    """

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print goes to the standard error
        sys.stdout = sys.stderr
        self._begin: float | None = None
        self.loaded = 0

    def ready(self, **about: object) -> None:
        """Say that the models are loaded; the peak of memory counts from here on."""
        gc.collect()
        PEAKS.write_text("5")
        self.loaded = resident()
        self._say(ready=True, loaded=self.loaded, **about)

    def wait(self) -> None:
        """Report the iteration that ends here, if one was begun; return when the next may begin.

        Raises:
            SystemExit: there is to be none.
        """
        if self._begin is not None:
            spent = time.process_time() - self._begin
            self._say(seconds=spent, growth=resident("VmHWM") - self.loaded)
        if sys.stdin.readline().strip() != "go":
            leave()
        self._begin = time.process_time()

    def _say(self, **message: object) -> None:
        print(json.dumps(message), file=self._out, flush=True)


def leave() -> NoReturn:
    """End this process at once, threads of libraries included."""
    os._exit(0)
