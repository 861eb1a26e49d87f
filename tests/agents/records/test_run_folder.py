"""Where a run may start: overwriting, links, names, full disks."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import pytest
from run_log_cases import Config, finished, tree

from maporl_agents.records import checkpoint_folder, run_folder
from maporl_agents.records.run_log import RunLog, read_metrics


@pytest.mark.parametrize("options", [{}, {"overwrite": True}])
def test_an_empty_folder_may_be_there_already(tmp_path: Path, options: dict[str, bool]) -> None:
    with RunLog.create(tmp_path, {"a": 1}, **options) as log:
        assert log.config == {"a": 1}


def test_a_folder_with_a_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    before = tree(folder)
    with pytest.raises(ValueError, match=r"run is not empty.*--resume.*--overwrite.*--name"):
        RunLog.create(folder, Config(seed=1))
    assert tree(folder) == before


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(ValueError, match="is a file, not a folder"):
        RunLog.create(tmp_path / "run", {}, overwrite=True)
    with pytest.raises(OSError, match="Not a directory: cannot write"):
        RunLog.create(tmp_path / "run" / "below", {})
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.parametrize("options", [{}, {"overwrite": True}])
def test_a_link_to_nothing_is_no_place_for_a_run(tmp_path: Path, options: dict[str, bool]) -> None:
    (tmp_path / "dang").symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"dang is a link to nowhere, where there is nothing: rem"):
        RunLog.create(tmp_path / "dang", {}, **options)
    assert not (tmp_path / "nowhere").exists()


def test_overwrite_replaces_a_run_whole(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    (folder / "curve.png").write_bytes(b"old")
    checkpoint_folder.save(
        folder / "checkpoints", 4, lambda f: checkpoint_folder.save_json(f / "a.json", 1)
    )
    RunLog.create(folder, {"seed": 7}, overwrite=True).close()
    assert set(tree(folder)) == {"config.json", "versions.json", "metrics.jsonl"}
    assert json.loads((folder / "config.json").read_text()) == {"seed": 7}
    assert read_metrics(folder) == []


@pytest.mark.parametrize(
    "name", ["notes.txt", "thesis/chapter.tex", "checkpoints/v2-final", "transcripts/my notes.md",
             "tensorboard/picture.png"]
)  # fmt: skip
def test_overwrite_never_removes_what_no_run_writes(tmp_path: Path, name: str) -> None:
    folder = finished(tmp_path / "run")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("precious")
    before = tree(folder)
    with pytest.raises(ValueError, match="holds what no run writes") as caught:
        RunLog.create(folder, {}, overwrite=True)
    assert name.removesuffix("/chapter.tex") in str(caught.value)
    assert tree(folder) == before


@pytest.mark.parametrize(
    "name",
    ["checkpoints/step-000004/notes.txt", "checkpoints/step-000004/policies/agent_0/mine.bin",
     "checkpoints/step-000009/thesis.tex", "checkpoints/.saving-mine", "malt/round-1/notes.txt",
     ".saving-thesis.tex"],
)  # fmt: skip
def test_overwrite_never_removes_what_stands_among_a_runs_own(tmp_path: Path, name: str) -> None:
    folder = finished(tmp_path / "run")
    checkpoint_folder.save(
        folder / "checkpoints", 4, lambda f: checkpoint_folder.save_json(f / "a.json", 1)
    )
    (folder / name).parent.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text("precious")
    before = tree(folder)
    with pytest.raises(ValueError, match=rf"holds what no run writes \(.*{Path(name).name}"):
        RunLog.create(folder, {}, overwrite=True)
    assert tree(folder) == before


def test_overwrite_removes_what_a_killed_save_left(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    for name in (".saving-step-000004-0a1b2c3d", ".removing-step-000002-0a1b2c3d"):
        (folder / "checkpoints" / name).mkdir(parents=True)
        (folder / "checkpoints" / name / "half.safetensors").touch()
    (folder / ".saving-config.json-0a1b2c3d").touch()
    RunLog.create(folder, {}, overwrite=True).close()
    assert set(tree(folder)) == {"config.json", "versions.json", "metrics.jsonl"}


LINKED = ["metrics.jsonl", "questions.json", "results.json", "transcripts/train.jsonl", ".lock"]


@pytest.mark.parametrize("kind", [Path.symlink_to, Path.hardlink_to])
@pytest.mark.parametrize("name", LINKED)
def test_a_link_in_a_run_folder_leads_nowhere(tmp_path: Path, kind: object, name: str) -> None:
    """A folder from somebody else: what its links lead to is neither emptied nor written to."""
    folder = finished(tmp_path / "run")
    victim = tmp_path / "victim"
    victim.write_text('{"step": 9}\nprecious')
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    kind(folder / name, victim)  # type: ignore[operator]
    with pytest.raises(ValueError, match=rf"{name} is a link"):
        RunLog.resume(folder, Config())
    assert victim.read_text() == '{"step": 9}\nprecious'


def test_folders_of_a_run_are_no_links_but_that_of_its_checkpoints(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    (tmp_path / "big disk").mkdir()
    shutil.rmtree(folder / "checkpoints")
    (folder / "checkpoints").symlink_to(tmp_path / "big disk")
    RunLog.resume(folder, Config()).close()
    shutil.rmtree(folder / "transcripts", ignore_errors=True)
    (folder / "transcripts").symlink_to(tmp_path / "big disk")
    with pytest.raises(ValueError, match="transcripts is a link"):
        RunLog.resume(folder, Config())


def test_a_lock_that_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    (folder / ".lock").unlink()
    os.mkfifo(folder / ".lock")
    with pytest.raises(ValueError, match="is a link, or no plain file"):
        RunLog.resume(folder, Config())


@pytest.mark.parametrize("name", ["run", "a.b-c_1", "größe", "7"])
def test_a_runs_folder_is_directly_below_all_runs(tmp_path: Path, name: str) -> None:
    assert run_folder.folder_of(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "/tmp/x", "a/b", "a\\b", "-x", ".hidden", "a\0b", "a\nb",
             "x" * 101, "a b", "~", "x.", "C:x", "$HOME", "*"],
)  # fmt: skip
def test_a_name_that_leaves_the_folder_of_all_runs_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is no name for a run"):
        run_folder.folder_of(tmp_path, name)


def test_overwrite_follows_no_link(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    shutil.rmtree(folder / "checkpoints")
    (tmp_path / "big disk").mkdir()
    (tmp_path / "big disk" / "latest").write_text("precious")
    (folder / "checkpoints").symlink_to(tmp_path / "big disk")
    with pytest.raises(ValueError, match=r"no run writes \(checkpoints\)"):
        RunLog.create(folder, {}, overwrite=True)
    assert (tmp_path / "big disk" / "latest").read_text() == "precious"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"lr": math.nan}, "config, lr is nan"),
        ({"f": print}, "config, f is a builtin_function_or_method"),
        ({1: 2}, "config has the key 1"),
        (Config, "The config is a type: give a dataclass or a dict"),
        (None, "The config is a NoneType"),
    ],
)
def test_a_config_that_json_cannot_hold_makes_nothing(
    tmp_path: Path, config: object, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        RunLog.create(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("existed", [False, True])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_at_the_start_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, existed: bool
) -> None:
    folder = tmp_path / "run"
    if existed:
        folder.mkdir()
    real, calls = getattr(os, call), []

    def failing(*args: object) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise OSError(28, os.strerror(28))
        real(*args)

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(OSError, match=r"No space left on device: cannot write .*run\. Free"):
        RunLog.create(folder, {})
    monkeypatch.undo()
    assert folder.exists() == existed
    assert not existed or tree(folder) == {}
    RunLog.create(folder, {}).close()
