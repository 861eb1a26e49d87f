"""The end of a process in which a thread is left that nothing can stop."""

from __future__ import annotations

import subprocess
import sys

import pytest

BUSY = """
import sys, threading, time
import torch

def work():
    square = torch.randn(64, 64)
    while True:
        square = torch.tanh(square @ square)
        started.set()

started = threading.Event()
threading.Thread(target=work, daemon=True).start()
started.wait()
"""
"""A thread in native code, which the interpreter's own end would abort before Python 3.14."""
COMMAND = "from maporl_agents.cli import main; sys.argv[1:] = {words!r}; main()"
RUN = "from maporl_agents.commands.ending import as_program; as_program(lambda: {what})"


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        (COMMAND.format(words=["train", "--runs", "\0"]), 2, "maporl: "),
        pytest.param(COMMAND.format(words=["--version"]), 0, "maporl ", marks=pytest.mark.thorough),
        pytest.param(RUN.format(what="1 / 0"), 1, "ZeroDivision", marks=pytest.mark.thorough),
        pytest.param(RUN.format(what="sys.exit('no')"), 1, "no", marks=pytest.mark.thorough),
    ],
)
def test_the_code_is_that_of_the_command(end: str, code: int, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BUSY + end], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
    assert "terminate" not in done.stderr
