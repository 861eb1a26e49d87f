"""The run folder: its name, its lock, and the files that a run may remove."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
from pathlib import Path

from maporl_agents.records.storage import unlisted

_LOCK = ".lock"
_FILES = (
    "config.json",
    "versions.json",
    "questions.json",
    "task.jsonl",
    "metrics.jsonl",
    "alarms.jsonl",
    "seconds.jsonl",
    "validation.jsonl",
    "warmup.jsonl",
    "before.json",
    "loggers.json",
    "results.json",
    "returns.json",
    "curve.png",
    "report.html",
)
_CHECKPOINTS = re.compile(r"step-[0-9]+(\.old)?|latest|\.(saving|removing)-.+-[0-9a-f]{8}")
_FOLDERS = {  # what a run writes into each
    "tensorboard": re.compile(r"events\.out\.tfevents\..*"),
    "transcripts": re.compile(r"[\w.-]+\.jsonl"),
    "malt": re.compile(r"round-[0-9]+"),
    "checkpoints": _CHECKPOINTS,
    "best": _CHECKPOINTS,
    "pool": _CHECKPOINTS,
}
_OF_A_ROUND = re.compile(r"[\w.-]+\.jsonl|manifest\.json|\.saving-.+-[0-9a-f]{8}")
_HALF_WRITTEN = re.compile(r"\.saving-.+-[0-9a-f]{8}")
_NAME = re.compile(r"\w[\w.-]{0,99}")


def folder_of(runs: Path, name: str) -> Path:
    """Return the folder of a run of some name.

    Raises:
        ValueError: the name is not that of one folder directly below `runs`, or has letters in it
            that a shell or another system reads in its own way.
    """
    if not _NAME.fullmatch(name) or name.endswith("."):
        raise ValueError(
            f"{name[:100]!r} is no name for a run: use at most 100 letters, digits, _ - and ., a "
            "letter or digit first (--name); the folder of all runs is given by --runs"
        )
    return runs / name


def _taken(what: str, way: str) -> ValueError:
    """Return why a run may not start in a folder: what stands there, and what to do."""
    return ValueError(f"{what}: {way}.")


def acquire(folder: Path) -> int:
    """Lock a folder and return the lock; the system releases it when the process ends.

    Raises:
        ValueError: if another process, or another log in this one, holds it, or if it is a link to
            a file elsewhere, which is not touched.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        lock = os.open(folder / _LOCK, flags, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _not_own(folder / _LOCK) from error
        raise
    if not _is_own(os.fstat(lock)):
        os.close(lock)
        raise _not_own(folder / _LOCK)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(lock, 20).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        raise _taken(
            f"Another process (id {holder}) is writing to {folder}",
            "wait for it, stop it, or choose another --name",
        ) from error
    os.truncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    return lock


def require_own_files(folder: Path) -> None:
    """Check that the files a run will write are plain files; `checkpoints` may be a link.

    Raises:
        ValueError: one of its files, or the folder of some, is a link, or shared with another name.
    """
    for name in (*_FILES, *_FOLDERS):
        path = folder / name
        below = [] if name == "checkpoints" or not path.is_dir() else path.rglob("*")
        for one in (path, *below):
            linked = one.is_symlink() and one.name != "checkpoints"
            if linked or not (one.is_dir() or not one.exists() or _is_own(one.lstat())):
                raise _not_own(one)


def _is_own(found: os.stat_result) -> bool:
    """Whether a file is a plain one that has no other name."""
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def _not_own(path: Path) -> ValueError:
    return ValueError(
        f"{path} is a link, or no plain file: a run would write into what it leads to; put a copy "
        "in its place, or remove it"
    )


def require_free(folder: Path, overwrite: bool) -> None:
    """Raise ValueError unless a run may start in a folder."""
    if folder.is_symlink() and not folder.exists():
        raise _taken(
            f"{folder} is a link to {folder.readlink()}, where there is nothing",
            "remove the link, make the folder that it leads to, or choose another --name",
        )
    if not folder.exists():
        return
    if not folder.is_dir():
        raise _taken(f"{folder} is a file, not a folder", "choose another --name")
    nothing = (_LOCK, ".saving-")  # all that a start which was killed at once can leave
    present = [path for path in folder.iterdir() if not path.name.startswith(nothing)]
    if present and not overwrite:
        raise _taken(
            f"{folder} is not empty",
            "continue the run there (--resume), replace it (--overwrite), or choose another --name",
        )
    if foreign := _foreign(folder):
        raise _taken(
            f"{folder} holds what no run writes ({', '.join(foreign[:5])}), so it is not "
            "overwritten",
            "move that away or choose another --name",
        )


def _foreign(folder: Path) -> list[str]:
    """Return the files that no run wrote, relative to the folder; links count as foreign."""
    found = []
    for path in sorted(folder.iterdir()):
        pattern = _FOLDERS.get(path.name)
        if pattern and path.is_dir() and not path.is_symlink():
            found += [
                f"{path.name}/{name}"
                for child in sorted(path.iterdir())
                for name in _foreign_below(child, pattern)
            ]
        elif path.is_symlink() or not path.is_file() or not _is_own_file(path.name):
            found.append(path.name)
    return found


def _foreign_below(child: Path, pattern: re.Pattern[str]) -> list[str]:
    """Return the files that no run writes below one of its folders, relative to that folder."""
    if not pattern.fullmatch(child.name):
        return [child.name]
    if not child.is_dir() or child.is_symlink() or child.name.startswith("."):
        return []
    if child.name.startswith("round-"):
        inside = (path.name for path in sorted(child.iterdir()))
        return [f"{child.name}/{name}" for name in inside if not _OF_A_ROUND.fullmatch(name)]
    return [f"{child.name}/{name}" for name in unlisted(child)]


def _is_own_file(name: str) -> bool:
    return name in (*_FILES, _LOCK) or bool(_HALF_WRITTEN.fullmatch(name))


def remove_run(folder: Path) -> None:
    """Remove everything a run wrote, but not the lock."""
    for path in folder.iterdir():
        if path.name in _FOLDERS:
            shutil.rmtree(path)
        elif path.name != _LOCK and _is_own_file(path.name):
            path.unlink()
