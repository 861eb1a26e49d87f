"""What a run may find in its folder, who may write there, and what the run ran on."""

from __future__ import annotations

import errno
import fcntl
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("maporl", "torch", "transformers", "peft", "safetensors", "numpy", "pettingzoo")
PACKAGE = Path(__file__).parent

_LOCK = ".lock"
_FILES = (
    "config.json",
    "versions.json",
    "questions.json",
    "task.jsonl",
    "metrics.jsonl",
    "alarms.jsonl",
    "results.json",
    "curve.png",
    "report.html",
)
_FOLDERS = {  # what a run writes into each
    "tensorboard": re.compile(r"events\.out\.tfevents\..*"),
    "transcripts": re.compile(r"[\w.-]+\.jsonl"),
    "malt": re.compile(r"round-[0-9]+"),
    "checkpoints": re.compile(r"step-[0-9]+(\.old)?|latest|\.(saving|removing)-.*"),
}


def acquire(folder: Path) -> int:
    """Return the held lock of a folder. The system drops it when its process ends, however it ends.

    Raises:
        ValueError: if another process, or another log in this one, holds it.
    """
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(lock, 20).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        raise ValueError(
            f"Another process (id {holder}) is writing to {folder}: wait for it, stop it, or "
            "choose another --name."
        ) from error
    os.truncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    return lock


def require_free(folder: Path, overwrite: bool) -> None:
    """Raise ValueError unless a run may start in a folder."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file, not a folder: choose another --name.")
    nothing = (_LOCK, ".saving-")  # all that a start which was killed at once can leave
    present = [path for path in folder.iterdir() if not path.name.startswith(nothing)]
    if present and not overwrite:
        raise ValueError(
            f"{folder} is not empty: continue the run there (--resume), replace it (--overwrite), "
            "or choose another --name."
        )
    if foreign := _foreign(folder):
        raise ValueError(
            f"{folder} holds what no run writes ({', '.join(foreign[:5])}), so it is not "
            "overwritten: move that away or choose another --name."
        )


def _foreign(folder: Path) -> list[str]:
    """Return what a run did not write, relative to its folder; links count as foreign."""
    found = []
    for path in sorted(folder.iterdir()):
        pattern = _FOLDERS.get(path.name)
        if pattern and path.is_dir() and not path.is_symlink():
            inside = (child.name for child in sorted(path.iterdir()))
            found += [f"{path.name}/{name}" for name in inside if not pattern.fullmatch(name)]
        elif path.is_symlink() or not path.is_file() or not _is_own_file(path.name):
            found.append(path.name)
    return found


def _is_own_file(name: str) -> bool:
    return name in (*_FILES, _LOCK) or name.startswith(".saving-")


def remove_run(folder: Path) -> None:
    """Remove everything a run wrote, but not the lock."""
    for path in folder.iterdir():
        if path.name in _FOLDERS:
            shutil.rmtree(path)
        elif path.name != _LOCK and _is_own_file(path.name):
            path.unlink()


def versions() -> dict[str, Any]:
    """Return what the run ran on; null for what is not installed or not known."""
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
        _git("ls-files", "--error-unmatch", str(PACKAGE / "run_folder.py"))
        return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or None
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(PACKAGE), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
