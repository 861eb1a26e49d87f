"""Writes and reads single files, text replaced at once, strict JSON, safetensors; whole folders.

There is no third format: what JSON and safetensors cannot hold is refused when it is saved, and a
pickle is never opened. torch is imported where tensors are handled, so that the rest stays quick.
"""

from __future__ import annotations

import errno
import glob
import json
import math
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

if TYPE_CHECKING:
    from torch import Tensor


MANIFEST = "manifest.json"
"""In a checkpoint: size and SHA-256 of every other file."""


GGUF_SOURCE = "gguf.json"
"""In the folder of an imported model: what it was made of."""


class CheckpointError(RuntimeError):
    """A checkpoint is damaged or could not be saved; the message says what, where and the way out.

    Where saving failed, the checkpoints that were there before are still there.
    """


def write_text(path: Path, text: str) -> None:
    """Replace a whole text file at once: after a kill it is the old one or the new one.

    Raises:
        OSError: as the system says; the old file is then untouched.
    """
    fresh = path.with_name(f"{_fresh(path)}-{secrets.token_hex(4)}")
    try:
        fresh.write_text(text, encoding="utf-8")
        sync(fresh)
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync(path.parent)


def require_new(to: Path, option: str) -> None:
    """Raise ValueError where `to` is a file or holds something; `option` is what names it."""
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ValueError(
            f"{to} is not an empty folder: choose another {option}, nothing is replaced"
        )


@contextmanager
def new_folder(to: Path, option: str) -> Iterator[Path]:
    """Yield an empty folder beside `to`, which is moved there at the end: `to` is whole or absent.

    Args:
        to: a new or empty folder.
        option: what names it on the command line, for the error.

    Raises:
        ValueError: `to` is a file or holds something.
        OSError: it cannot be written; where the disk is full, whoever noticed it.
    """
    require_new(to, option)
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=f"{_fresh(to)}-", dir=to.parent) as scratch:
            ready = Path(scratch) / to.name
            ready.mkdir()
            yield ready
            ready.replace(to)
    except Exception as error:
        if _is_full(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(to)) from error
        raise
    sync(to.parent)


def _fresh(path: Path) -> str:
    """Return the beginning of the name of a file or folder that will be moved to `path`."""
    return f".saving-{path.name}"


def _is_full(error: Exception) -> bool:
    """Whether the disk is full, as the system says it or safetensors, which has no error number."""
    full = (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, OSError):
        return error.errno in full
    return any(f"(os error {number})" in str(error) for number in full)


def remove_unfinished(to: Path) -> None:
    """Remove what killed processes left of `new_folder(to)`; no other may be writing it now."""
    for left in to.parent.glob(f"{glob.escape(_fresh(to))}-*"):
        shutil.rmtree(left, ignore_errors=True)


def sync(path: Path) -> None:
    """Bring one file, or the names in one folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unlisted(folder: Path) -> list[str]:
    """Return the files below a checkpoint, or other folder with a manifest, that it does not list.

    All of them where there is no manifest that can be read.
    """
    try:
        listed = set(json.loads((folder / MANIFEST).read_bytes())["files"]) | {MANIFEST}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        listed = set()
    files = (path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir())
    return [name for path in files if (name := path.relative_to(folder).as_posix()) not in listed]


def reason(error: BaseException) -> str:
    """Return an error in its own words, without the number and path of a system error."""
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def save_json(path: Path, value: Any) -> None:
    """Write a value that JSON gives back unchanged (floats bitwise, tuples as lists).

    Raises:
        ValueError: for NaN and infinities, which JSON does not have, for keys that are not text,
            which would come back as text, and for objects; names the place. No file is made.
    """
    require_plain(value, path.name)
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def load_json(path: Path) -> Any:
    """Read what `save_json` wrote.

    Raises:
        CheckpointError: if the file is absent, not JSON, holds NaN or Infinity, or a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {reason(error)}.") from error


def require_plain(value: Any, where: str) -> None:
    """Raise ValueError, naming the place, unless JSON gives `value` back."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{where} has the key {key!r}: JSON keys must be text.")
            require_plain(item, f"{where}, {key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            require_plain(item, f"{where}, [{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}: JSON holds finite numbers only; use null.")
    elif not isinstance(value, (str, int, float, type(None))):
        raise ValueError(f"{where} is a {type(value).__name__}: JSON holds no such thing.")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"one of the keys {', '.join(found)} stands there twice")
    return found


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors of any shape and dtype to a safetensors file, bitwise.

    Raises:
        ValueError: if the file is not called `*.safetensors`.
        OSError: disk full or not writable.
    """
    from safetensors.torch import save_file

    if path.suffix != ".safetensors":
        raise ValueError(f"{path} must end in .safetensors: tensors are saved in no other format.")
    seen: set[int] = set()
    ready = {}
    for name, tensor in tensors.items():
        flat = tensor.detach().cpu().contiguous()
        memory = flat.untyped_storage().data_ptr()
        ready[name] = flat.clone() if memory in seen else flat  # the format refuses shared memory
        seen.add(memory)
    try:
        save_file(ready, path)
    except SafetensorError as error:
        raise OSError(f"{path} could not be written: {error}") from error


def load_tensors(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """Read all tensors of a safetensors file onto a device.

    Raises:
        CheckpointError: if the file is absent, damaged, or not called `*.safetensors`; a pickle
            (`.pt`, `.bin`, ...) is refused by its name and never opened.
    """
    from safetensors.torch import load_file

    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path} is not a .safetensors file. Pickled weights may run code and are never "
            "loaded: convert them to safetensors first."
        )
    try:
        return load_file(path, device=device)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {reason(error)}.") from error
