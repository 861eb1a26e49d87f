"""What is left of torch.distributed when the interpreter ends; run by `test_distributed`."""

from __future__ import annotations

import atexit
import sys
from pathlib import Path

import torch

from maporl_agents import distributed

THREADS = Path("/proc/self/task")
"""Where Linux lists the threads of a process, those of native libraries too."""


def told() -> None:
    """Print what is left; registered before all others, so that it runs last."""
    names = [(one / "comm").read_text() for one in THREADS.glob("*")]
    left = any("gloo" in name for name in names)
    print(
        "begun" if torch.distributed.is_initialized() else "ended,",
        "threads" if left else "no thread",
    )


def main() -> None:
    """Work together twice, then end with a code."""
    for number in range(2):
        with distributed.together():
            distributed.gather("number", number)
    sys.exit(3)


if __name__ == "__main__":
    atexit.register(told)
    main()
