"""Chat templates, rendered where they can do no harm: in a process with limits.

One process serves all templates; it is started for the first, and holds no torch.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

from maporl_agents import template_worker
from maporl_agents.template_worker import SECONDS


class _Worker:
    """The process, as seen from here; started when it is first needed and when it has ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._caller = 0

    def ask(self, request: str) -> dict[str, str]:
        """Return the answer to a request; EOFError if the process ended over it."""
        with self._lock:
            process = self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{request}\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                self._end()
                raise EOFError
            answer: dict[str, str] = json.loads(line)
            return answer

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._caller != os.getpid():  # a fork has pipes of its own
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
    """Return a conversation in the words of a template, up to the cue to speak.

    Args:
        template: Jinja.
        messages: role and content of each.
        tokens: the tokenizer's special ones by name, which templates may read.

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
    except EOFError:
        raise ValueError(f"it takes more than {SECONDS:g} s of processor time") from None
    if "error" in answer:
        raise ValueError(answer["error"])
    return answer["text"]
