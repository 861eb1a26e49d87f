"""The folder of a checkpoint, written atomically: manifest, digests, the newest whole one, pruning.

What a checkpoint of training holds (weights, optimiser state) is in `training.checkpointing`; here
are folders of safetensors and JSON, nothing pickled, that survive a kill at any moment.

A checkpoint is a folder `step-000012` with a `manifest.json` that holds size and SHA-256 of every
file. It is written under another name, synced to the disk, checked, and only then renamed, so that
a folder with such a name is whole or was damaged later; `latest` tells the two apart and falls back
on the one before. Only older ones are ever removed, after the new one has been checked.

One process at a time may save into a folder (`maporl_agents.records.run_log` holds a lock); any
number may read. The file formats are in `storage`, the state of an optimiser in `optimizer_state`;
the public functions of both are offered here too.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError

from maporl_agents.records.optimizer_state import load_optimizer_state, optimizer_state
from maporl_agents.records.storage import (
    MANIFEST,
    CheckpointError,
    load_json,
    load_tensors,
    reason,
    save_json,
    save_tensors,
    sync,
    unlisted,
    write_text,
)
from maporl_env.tasks.line_index import file_digest

__all__ = [
    "CheckpointError",
    "latest",
    "load_json",
    "load_optimizer_state",
    "load_tensors",
    "optimizer_state",
    "save",
    "save_json",
    "save_tensors",
    "step_of",
    "verify",
]

FORMAT = 1
"""Version of the layout described above; written into and demanded of every manifest."""

POINTER = "latest"

PICKLED = frozenset(
    {".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npy", ".npz"}
)
"""Endings of files that may run code when they are read. Such a file is refused, never opened."""

_STEP = re.compile(r"step-([0-9]+)(\.old)?")  # ".old": set aside while the same step is replaced
_DEBRIS = (".saving-", ".removing-")


# --- Save ------------------------------------------------------------------------


def save(root: Path, step: int, write: Callable[[Path], None], *, keep: int = 2) -> Path:
    """Save one checkpoint so that a kill at any moment leaves a loadable newest one.

    Args:
        root: folder of all checkpoints of a run; made if absent.
        step: at least 0. A checkpoint of the same step is replaced.
        write: fills an empty folder, sub-folders allowed, with safetensors, JSON and text.
        keep: at least 1; how many checkpoints stay, this one included. Newer ones always stay.

    Returns:
        The folder, `root/step-000012`.

    Raises:
        CheckpointError: disk full, not writable, or `write` left nothing, a link or a pickle.
        ValueError: if `step` or `keep` is out of range. What `write` raises passes through.
    """
    if step < 0 or keep < 1:
        raise ValueError(f"step={step}, keep={keep}: step must be at least 0 and keep at least 1.")
    root, target = Path(root), Path(root) / f"step-{step:06d}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        _clear_debris(root)
        folder = root / f".saving-{target.name}-{secrets.token_hex(4)}"
        folder.mkdir()
        try:
            write(folder)
            _seal(folder, step)
            verify(folder)
            _publish(folder, target)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    except CheckpointError as error:
        raise CheckpointError(f"Nothing was saved as {target}: {error}") from error
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"Cannot save {target}: {reason(error)}. Free some space there, make it writable or "
            "choose another folder; the checkpoints saved before are untouched."
        ) from error
    _prune(root, target, keep)
    return target


def _seal(folder: Path, step: int) -> None:
    """Write the manifest and bring every file and folder to the disk."""
    files = _listing(folder)
    if not files:
        raise CheckpointError("its write function left no file; it must fill the folder it gets.")
    body = {
        "format": FORMAT,
        "step": step,
        "files": {
            name: {"size": path.stat().st_size, "sha256": file_digest(path)}
            for name, path in files.items()
        },
    }
    save_json(folder / MANIFEST, {**body, "checksum": _checksum(body)})
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(place, name))
        sync(Path(place))


def _publish(folder: Path, target: Path) -> None:
    """Give a sealed folder its name, then move the pointer."""
    root = target.parent
    if target.exists():
        aside = target.with_name(target.name + ".old")
        if aside.exists():
            _remove(aside)
        os.rename(target, aside)
    os.rename(folder, target)
    sync(root)
    write_text(root / POINTER, target.name + "\n")


def _prune(root: Path, target: Path, keep: int) -> None:
    """Remove checkpoints that `target` replaces or `keep` drops; a failure is only a warning."""
    step = step_of(target)
    older = [path for path in _candidates(root) if step_of(path) <= step and path != target]
    replaced = [path for path in older if step_of(path) == step]
    for path in replaced + older[len(replaced) :][keep - 1 :]:
        if foreign := unlisted(path):
            text = f"The old checkpoint {path} is kept: {foreign[0]} was not saved with it."
            warnings.warn(text, stacklevel=3)
            continue
        try:
            _remove(path)
        except OSError as error:
            text = f"The old checkpoint {path} could not be removed: {reason(error)}."
            warnings.warn(text, stacklevel=3)


def _remove(path: Path) -> None:
    """Remove a checkpoint; half removed, it no longer carries a checkpoint's name."""
    doomed = path.with_name(f".removing-{path.name}-{secrets.token_hex(4)}")
    os.rename(path, doomed)
    _discard(doomed)


def _clear_debris(root: Path) -> None:
    """Remove files that killed saves left behind, as far as possible."""
    for path in root.iterdir():
        if path.name.startswith(_DEBRIS):
            _discard(path)


def _discard(path: Path) -> None:
    """Remove a file or a folder as far as possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


# --- Find and check --------------------------------------------------------------


def step_of(folder: Path) -> int:
    """Return the step that a checkpoint's folder is named after.

    Raises:
        ValueError: if the name is not that of a checkpoint.
    """
    match = _STEP.fullmatch(folder.name)
    if match is None:
        raise ValueError(f"{folder} is not named like a checkpoint, step-000012.")
    return int(match[1])


def latest(root: Path) -> Path | None:
    """Return the loadable checkpoint with the highest step, or None if there never was one.

    A damaged one is passed over with a warning that names the damage.

    Raises:
        CheckpointError: if there are checkpoints but none is loadable; names each one's damage.
    """
    if not root.exists():
        return None
    candidates = _candidates(root)
    problems = _pointer_problems(root, candidates)
    found = None
    for folder in candidates:
        try:
            verify(folder)
        except CheckpointError as error:
            problems.append(str(error))
        else:
            found = folder
            break
    if problems and found is None:
        raise CheckpointError(f"No checkpoint in {root} can be loaded. " + " ".join(problems))
    for problem in problems:
        warnings.warn(f"{problem} Going on from {found}.", stacklevel=2)
    return found


def _candidates(root: Path) -> list[Path]:
    """Return folders named like checkpoints, newest first; a replaced one after its successor."""
    named = [path for path in root.iterdir() if _STEP.fullmatch(path.name)]
    return sorted(named, key=lambda path: (-step_of(path), path.suffix == ".old", path.name))


def _pointer_problems(root: Path, candidates: list[Path]) -> list[str]:
    """Return a problem if the newest checkpoint that was saved here is missing as a whole."""
    try:
        name = (root / POINTER).read_text(encoding="utf-8", errors="replace").strip()[:80]
    except OSError:
        return []
    if any(path.name.removesuffix(".old") == name for path in candidates):
        return []
    return [f"{root / POINTER} names {name!r}, but {root} holds no such checkpoint."]


def verify(folder: Path) -> None:
    """Check that a checkpoint is exactly what was saved.

    Raises:
        CheckpointError: naming the damage: no folder; manifest missing, empty, not JSON, malformed,
            of another version, altered, pointing outside or of another step; a file missing,
            shortened, lengthened, altered, unreadable or not plain; a file too many; a pickle.
    """
    manifest = _read_manifest(folder)
    found = _listing(folder)
    for name in found.keys() - manifest["files"].keys():
        raise _damage(folder, f"holds {name}, which was not saved with it")
    for name, entry in manifest["files"].items():
        if name not in found:
            raise _damage(folder, f"lacks {name}")
        _check_file(folder, name, entry)


def fingerprint(folder: Path) -> str:
    """Return the SHA-256 of all that a checkpoint holds; CheckpointError if it is none."""
    return _checksum(_read_manifest(folder))


def _check_file(folder: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Compare one file with its size and SHA-256 in the manifest."""
    try:
        size = (folder / name).stat().st_size
        if size < entry["size"]:
            raise _damage(folder, f"has {name} cut short: {size} of {entry['size']} bytes")
        if size > entry["size"]:
            raise _damage(folder, f"has {name} too long: {size} instead of {entry['size']} bytes")
        if file_digest(folder / name) != entry["sha256"]:
            raise _damage(folder, f"has {name} altered: its SHA-256 is not the one that was saved")
    except OSError as error:
        raise _damage(folder, f"has {name} unreadable: {reason(error)}") from error


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Return a manifest whose form, version, checksum and names hold."""
    if not folder.is_dir():
        raise _damage(folder, "is not a folder")
    try:
        data = (folder / MANIFEST).read_bytes()
        manifest = json.loads(data) if data else None
    except FileNotFoundError:
        raise _damage(folder, f"has no {MANIFEST}, so it is not complete") from None
    except OSError as error:
        raise _damage(folder, f"has {MANIFEST} unreadable: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise _damage(folder, f"has a {MANIFEST} that is not JSON ({error})") from error
    if manifest is None:
        raise _damage(folder, f"has an empty {MANIFEST}")
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if type(version) is int and version != FORMAT:
        raise _damage(folder, f"has format {version}, and this version reads format {FORMAT}")
    if not _well_formed(manifest):
        raise _damage(folder, f"has a malformed {MANIFEST}: format, step, files or checksum wrong")
    if manifest.pop("checksum") != _checksum(manifest):
        raise _damage(folder, f"has an altered {MANIFEST}: it does not match its own checksum")
    for name in manifest["files"]:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise _damage(folder, f"has a {MANIFEST} that names {name!r}, outside the folder")
    if _STEP.fullmatch(folder.name) and step_of(folder) != manifest["step"]:
        raise _damage(folder, f"holds step {manifest['step']}, not the step of its name")
    return manifest


def _well_formed(manifest: Any) -> bool:
    """Whether a manifest has exactly the fields it must have, each of its type."""
    return (
        isinstance(manifest, dict)
        and manifest.keys() == {"format", "step", "files", "checksum"}
        and type(manifest["format"]) is int
        and type(manifest["step"]) is int
        and isinstance(manifest["files"], dict)
        and all(
            isinstance(entry, dict)
            and entry.keys() == {"size", "sha256"}
            and type(entry["size"]) is int
            and isinstance(entry["sha256"], str)
            for entry in manifest["files"].values()
        )
    )


def _listing(folder: Path) -> dict[str, Path]:
    """Return every file below a folder but its manifest, by its name with forward slashes.

    Raises:
        CheckpointError: for a pickle, and for links, pipes and other things that are not files.
    """
    found = {}
    for place, folders, names in os.walk(folder):
        for name in sorted(folders + names):
            path = Path(place, name)
            shown = path.relative_to(folder).as_posix()
            mode = path.lstat().st_mode
            if path.suffix.lower() in PICKLED:
                raise _damage(folder, f"holds {shown}: a pickle may run code and is never loaded")
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise _damage(folder, f"has {shown} as a link or device instead of a plain file")
            if stat.S_ISREG(mode) and shown != MANIFEST:
                found[shown] = path
    return found


def _damage(folder: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"Checkpoint {folder} {what}. Restore it from a copy, or move it away to use another one."
    )


def _checksum(body: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest's content; tells a damaged manifest from a damaged file."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
