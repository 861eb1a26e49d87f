"""Tests of the allocator's setting: it must hold in a process, and leave the user's own alone."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

# Frees and asks for 16 MB thirty times; prints the page faults per round after the first ones.
PROBE = """
import resource, sys
import numpy as np
from maporl_agents.models.malloc_settings import keep_freed_memory
taken = keep_freed_memory() if sys.argv[1] == "keep" else None
for round in range(30):
    if round == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = np.empty(2**21)
    block[:] = 1.0
    del block
print(taken, (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 20)
"""


def probe(how: str, **variables: str) -> tuple[str, int]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, how],
        env={**env, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    taken, faults = done.stdout.split()
    return taken, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_blocks_are_not_asked_of_the_system_again() -> None:
    taken, kept = probe("keep")
    assert taken == "True"
    assert kept < 5
    assert kept <= probe("leave")[1]  # huge pages make few faults even there


def test_the_user_s_own_variables_are_left_alone() -> None:
    assert probe("keep", MALLOC_ARENA_MAX="4")[0] == "False"
