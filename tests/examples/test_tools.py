"""The example of tools: a tiny model learns to call one, end to end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra train")

EXAMPLE = Path(__file__).parents[2] / "examples" / "tools.py"


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_calls_become_more_frequent_and_messages_right(tmp_path: Path) -> None:
    """Imitation of transcripts with results, then GRPO, by `maporl_agents.train`."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--own"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    steps = re.findall(r"right (\d\.\d+)   calls (\d\.\d+)", done.stdout)
    right, calls = zip(*[map(float, step) for step in steps], strict=True)
    assert len(steps) == 15
    assert sum(calls[-3:]) / 3 > sum(calls[:3]) / 3 + 0.15
    assert sum(right[-3:]) / 3 > sum(right[:3]) / 3 + 0.1
    untrained, trained = map(float, re.findall(r"untrained (\S+), trained (\S+) ", done.stdout)[0])
    assert trained > untrained + 0.5
