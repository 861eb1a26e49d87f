"""The example on recorded solutions runs as its page says, on the real file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "replay_gsm8k.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments], capture_output=True, text=True, timeout=120
    )


def test_four_real_models_debate_by_what_they_wrote(data_dir: Path) -> None:
    done = run(str(data_dir / "gsm8k" / "example_model_solutions.jsonl"))
    assert done.returncode == 0, done.stderr
    assert "the key agrees with 100.00% of the 3600 published marks" in done.stdout
    assert "175b_verification" in done.stdout


def test_a_file_that_is_not_there_is_one_sentence() -> None:
    done = run("nowhere.jsonl")
    assert done.returncode != 0
    assert "nowhere.jsonl" in done.stderr
    assert "Traceback" not in done.stderr
