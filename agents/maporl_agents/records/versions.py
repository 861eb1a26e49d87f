"""Versions of packages, platform and git commit, as a run notes them in versions.json."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("maporl", "torch", "transformers", "peft", "safetensors", "numpy", "pettingzoo")
PACKAGE = Path(__file__).parent


def versions() -> dict[str, Any]:
    """Return packages, platform and commit of this process; null for unknown ones."""
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu_count": os.cpu_count(),
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the git commit of this package, "-dirty" appended if files differ from it.

    None where the package is no part of a repository, though it may be installed within one.
    """
    try:
        _git("ls-files", "--error-unmatch", str(PACKAGE / "versions.py"))
        return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or None
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(PACKAGE), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
