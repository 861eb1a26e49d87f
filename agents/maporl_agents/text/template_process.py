"""Renders chat templates, which are foreign code, in a separate process with limits.

One process serves all templates; it is started for the first, and holds no torch.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

from maporl_agents.text import template_worker
from maporl_agents.text.template_worker import SECONDS


class _Worker:
    """The rendering process; started at the first request, and again after it has ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._caller = 0

    def ask(self, request: str) -> dict[str, str]:
        """Return the answer to a request; EOFError says how the process ended over it."""
        with self._lock:
            process = self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(f"{request}\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except OSError:  # it has ended while it was written to
                line = ""
            if not line:
                raise EOFError(self._cause_of_death(process))
            answer: dict[str, str] = json.loads(line)
            return answer

    def _running(self) -> subprocess.Popen[str]:
        mine = self._caller == os.getpid()  # a fork has pipes of its own
        if mine and self._process is not None and self._process.poll() is not None:
            self._end()
        if self._process is None or not mine:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(template_worker.__file__), json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self._caller = os.getpid()
            assert self._process.stdout is not None
            if self._process.stdout.readline() != "ready\n":
                self._end()
                raise RuntimeError(
                    "the process that renders chat templates did not start: "
                    "check that transformers and jinja2 are installed"
                )
        return self._process

    def _cause_of_death(self, process: subprocess.Popen[str]) -> str:
        """Clean up after a process that ended, and return a clause on how it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS)
        code = process.poll()
        self._end()
        if code == -signal.SIGPROF:
            return f"it takes more than {SECONDS:g} s of processor time"
        how = "closed its output" if code is None else f"ended with exit code {code}"
        if code is not None and code < 0:
            how = f"was ended by {signal.Signals(-code).name}"
        return f"the process that renders it {how}"

    def _end(self) -> None:
        if self._process is not None and self._caller == os.getpid():
            self._process.kill()
            self._process.communicate()
        self._process = None


_WORKER = _Worker()
atexit.register(_WORKER._end)


def render(
    template: str, messages: Sequence[Mapping[str, str]], tokens: Mapping[str, object]
) -> str:
    """Return a conversation as a template renders it, with the prompt for the next message.

    Args:
        template: Jinja.
        messages: role and content of each.
        tokens: variables that templates may read: the tokenizer's special tokens, and switches.

    Raises:
        ValueError: the template cannot be rendered, or takes too long; says which in one clause.
    """
    request = {
        **tokens,
        "conversations": [list(map(dict, messages))],
        "chat_template": template,
        "add_generation_prompt": True,
    }
    try:
        answer = _WORKER.ask(json.dumps(request))
    except EOFError as death:
        raise ValueError(str(death)) from None
    if "error" in answer:
        raise ValueError(answer["error"])
    return answer["text"]
