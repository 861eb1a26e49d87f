"""A file is read in one sitting, and a folder is seen at a glance."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINES, MODULES = 400, 27


def python_files() -> list[Path]:
    """Return the project's own Python files: those of git, with the new ones."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip(f"needs a checkout of git: {listed.stderr.strip()}")
    return [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]


def test_no_file_is_too_long() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in python_files()}
    assert {str(p.relative_to(ROOT)): n for p, n in lengths.items() if n > LINES} == {}


def test_no_folder_has_too_many_modules() -> None:
    folders = Counter(path.parent for path in python_files())
    assert {str(p.relative_to(ROOT)): n for p, n in folders.items() if n > MODULES} == {}
