"""Checkpoints: what is written is read back, the newest is found, old ones go."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
import torch
from checkpoint_cases import content, files_of, names, newest, save, writer

from maporl_agents.records import checkpoint_folder
from maporl_agents.records.checkpoint_folder import CheckpointError

# --- Save and find -----------------------------------------------------------


def test_a_checkpoint_is_what_was_written_and_the_newest_is_found(tmp_path: Path) -> None:
    root = tmp_path / "runs" / "checkpoints"
    assert checkpoint_folder.latest(root) is None
    for step in (0, 9, 12):
        folder = save(root, step, keep=3)
        assert folder == root / f"step-{step:06d}"
        assert newest(root) == folder
        assert content(folder) == files_of(step)
        assert (root / "latest").read_text() == f"{folder.name}\n"
    assert names(root) == {"step-000000", "step-000009", "step-000012", "latest"}


def test_the_newest_is_by_number_and_foreign_names_are_ignored(tmp_path: Path) -> None:
    for step in (9, 10):
        save(tmp_path, step)
        (tmp_path / f"step-{step:06d}").rename(tmp_path / f"step-{step}")
    (tmp_path / "latest").unlink()
    for name in ("v2-final", "step-11b", "step-", "step-١٢", "my-step-99", "step-99.tmp"):
        (tmp_path / name).mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # they are not even taken for damaged ones
        assert newest(tmp_path).name == "step-10"


def test_a_folder_without_any_checkpoint_has_no_newest(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    (tmp_path / ".saving-step-000001-0").mkdir()
    assert checkpoint_folder.latest(tmp_path) is None


def test_old_ones_beyond_keep_are_removed_newer_ones_never(tmp_path: Path) -> None:
    for step in (1, 2, 3, 20):
        save(tmp_path, step, keep=9)
    save(tmp_path, 5, keep=2)
    assert names(tmp_path) == {"step-000003", "step-000005", "step-000020", "latest"}
    save(tmp_path, 21, keep=1)
    assert names(tmp_path) == {"step-000021", "latest"}


def test_removal_waits_until_the_new_one_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, keep=1)
    honest = checkpoint_folder.verify

    def verify(folder: Path) -> None:  # a disk that loses the last byte of what was written
        path = folder / "state.json"
        os.truncate(path, path.stat().st_size - 1)
        honest(folder)

    monkeypatch.setattr(checkpoint_folder, "verify", verify)
    with pytest.raises(CheckpointError, match=r"Nothing was saved.*state\.json cut short"):
        save(tmp_path, 2, keep=1)
    monkeypatch.undo()
    assert names(tmp_path) == {"step-000001", "latest"}
    assert content(newest(tmp_path)) == files_of(1)


def test_the_same_step_can_be_saved_again(tmp_path: Path) -> None:
    save(tmp_path, 3)
    folder = checkpoint_folder.save(tmp_path, 3, writer(4))
    assert content(folder) == files_of(4)
    assert names(tmp_path) == {"step-000003", "latest"}


def test_debris_of_killed_saves_is_cleaned_and_blocks_nothing(tmp_path: Path) -> None:
    save(tmp_path, 1)
    for name in (".saving-step-000002-abc", ".removing-step-000000-abc"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "half.safetensors").write_bytes(b"half")
    (tmp_path / ".saving-latest-abc").write_text("step-00")
    assert newest(tmp_path).name == "step-000001"
    save(tmp_path, 2)
    assert names(tmp_path) == {"step-000001", "step-000002", "latest"}


def test_what_the_writer_raises_passes_through_and_leaves_nothing(tmp_path: Path) -> None:
    save(tmp_path, 1)

    def write(folder: Path) -> None:
        writer(2)(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoint_folder.save(tmp_path, 2, write)
    assert names(tmp_path) == {"step-000001", "latest"}


@pytest.mark.parametrize("options", [{"step": -1}, {"step": 1, "keep": 0}])
def test_bad_numbers_are_refused_before_anything_is_made(
    tmp_path: Path, options: dict[str, int]
) -> None:
    with pytest.raises(ValueError, match="at least"):
        checkpoint_folder.save(tmp_path / "new", write=writer(1), **options)
    assert not (tmp_path / "new").exists()


def test_a_writer_that_leaves_nothing_or_a_pickle_saves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="left no file"):
        checkpoint_folder.save(tmp_path, 1, lambda folder: None)
    with pytest.raises(CheckpointError, match=r"Nothing was saved.*rng\.pth: a pickle"):
        checkpoint_folder.save(tmp_path, 1, lambda folder: torch.save({}, folder / "rng.pth"))
    assert names(tmp_path) == set()
