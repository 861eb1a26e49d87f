"""Writers and readers of checkpoints for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from maporl_agents.records import checkpoint_folder

# --- Factories ---------------------------------------------------------------


NAMES = ("agent_0/adapter.safetensors", "state.json", "weights.safetensors")


def files_of(step: int) -> dict[str, bytes]:
    """The content of the checkpoint of a step: known in advance, different for every step."""
    return dict.fromkeys(NAMES, b"%d " % step * 20 * (step % 7 + 1))


def writer(step: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name, data in files_of(step).items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)

    return write


def save(root: Path, step: int, *, keep: int = 2) -> Path:
    return checkpoint_folder.save(root, step, writer(step), keep=keep)


def content(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


def newest(root: Path) -> Path:
    folder = checkpoint_folder.latest(root)
    assert folder is not None
    return folder
