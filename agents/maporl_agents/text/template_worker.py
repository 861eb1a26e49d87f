"""The process that renders chat templates; `template_process` starts it and talks to it.

A template comes with a model and is foreign code. Jinja's sandbox keeps it from attributes, but not
from looping for ever, nor from filling the memory. Here the kernel does: it ends the process when a
rendering has taken its seconds of processor time, whatever it is doing.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from pathlib import Path
from typing import Any

SECONDS = 2.0
"""Processor time of one rendering."""
MEMORY_BYTES = 2**30
"""Memory that a rendering may take beyond that of the process."""
MAX_CHARS = 10**6
"""Of what is rendered."""


def main() -> None:
    """Answer each line of JSON, the arguments of a rendering, with a line: its text or its error.

    The first argument on the command line is the `sys.path` of the caller.
    """
    sys.path[:] = json.loads(sys.argv[1])
    sys.modules["torch"] = None  # type: ignore[assignment]  # is not needed, and takes its time
    from transformers.utils.chat_template_utils import render_jinja_template

    _bound_memory()
    print("ready", flush=True)
    for line in sys.stdin:
        answer = _answer(render_jinja_template, json.loads(line))
        print(json.dumps(answer), flush=True)


def _answer(render: Any, arguments: dict[str, Any]) -> dict[str, str]:
    signal.setitimer(
        signal.ITIMER_PROF, SECONDS
    )  # its signal has no handler, so it ends this process
    try:
        [text], _ = render(**arguments)
        if len(text) > MAX_CHARS:
            return {"error": f"it writes {len(text):,} characters"}
        return {"text": str(text)}
    except Exception as error:  # whatever foreign code raises is its own fault
        line = next(iter(str(error).splitlines()), "")
        return {"error": f"{type(error).__name__}: {line}"[:200]}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _bound_memory() -> None:
    pages = Path("/proc/self/statm")
    if pages.exists():
        taken = int(pages.read_text().split()[0]) * resource.getpagesize()
        limit = taken + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main()
