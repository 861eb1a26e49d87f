"""The run folder: never lost, never mixed, the same bytes after a resume."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from run_log_cases import Config, finished, transcript, tree

from maporl_agents.records import versions
from maporl_agents.records.run_log import RunLog, read_metrics
from maporl_env.types import Transcript

# --- Create ------------------------------------------------------------------


def test_a_run_folder_holds_config_versions_metrics_transcripts_and_events(tmp_path: Path) -> None:
    folder = finished(tmp_path / "runs" / "first")
    assert json.loads((folder / "config.json").read_text()) == {
        "seed": 0,
        "gamma": 0.3,
        "data": "data/train.jsonl",
        "game": {"task": "shopping", "alpha": [0.0, 0.5]},
    }
    assert (folder / "metrics.jsonl").read_text() == (
        '{"step": 1, "loss": 1.0, "kl": 1e-09}\n'
        '{"step": 2, "loss": 0.5, "kl": 2e-09}\n'
        '{"step": 3, "loss": 0.3333333333333333, "kl": null, "nonfinite": 1}\n'
    )
    assert {path.name for path in folder.iterdir()} == {
        ".lock", "config.json", "versions.json", "metrics.jsonl", "tensorboard", "transcripts",
        "checkpoints",
    }  # fmt: skip


def test_versions_name_packages_and_platform_but_no_person_or_machine(tmp_path: Path) -> None:
    RunLog.create(tmp_path / "run", {}).close()
    text = (tmp_path / "run" / "versions.json").read_text()
    saved = json.loads(text)
    assert set(saved) == {"python", "packages", "platform", "cpu_count", "commit"}
    assert saved["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert saved["packages"]["numpy"] == np.__version__
    assert saved["cpu_count"] == os.cpu_count()
    words = text.replace('"', " ").replace("/", " ").split()
    assert socket.gethostname() not in words
    assert Path.home().name not in words


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_of_the_package_is_noted_wherever_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, elsewhere = tmp_path / "package", tmp_path / "elsewhere"
    for folder in (package, elsewhere):
        folder.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(versions, "PACKAGE", package)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert versions.versions()["commit"] is None

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
        done = subprocess.run(["git", *who, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(file: Path) -> str:
        file.write_text("one")
        git("-C", str(file.parent), "init")
        git("-C", str(file.parent), "add", file.name)
        git("-C", str(file.parent), "commit", "-m", "One")
        return git("-C", str(file.parent), "rev-parse", "HEAD")

    commit(elsewhere / "file")
    assert versions.versions()["commit"] is None
    git("init", str(tmp_path))  # installed within a repository that does not hold it
    assert versions.versions()["commit"] is None
    head = commit(package / "versions.py")
    assert versions.versions()["commit"] == head
    (package / "versions.py").write_text("two")
    assert versions.versions()["commit"] == f"{head}-dirty"


# --- Metrics -----------------------------------------------------------------


def test_metrics_take_all_kinds_of_numbers(tmp_path: Path) -> None:
    values = {
        "int": 3,
        "bool": True,
        "numpy": np.float32(0.5),
        "count": np.int64(4),
        "tensor": torch.tensor(0.25, requires_grad=True),
        "nan": math.nan,
        "inf": -math.inf,
    }
    with RunLog.create(tmp_path, {}) as log:
        log.metrics(np.int64(0), values)
        assert read_metrics(tmp_path) == [  # readable while the run goes on
            {"step": 0, "int": 3, "bool": 1, "numpy": 0.5, "count": 4, "tensor": 0.25,
             "nan": None, "inf": None, "nonfinite": 2}
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("step", "values", "says"),
    [
        (4, {"loss": 0.0}, "step 4 comes after step 5; steps do not fall"),
        (6, {"loss": "0.5"}, "metric 'loss' is '0.5', which is not one number"),
        (6, {"loss": None}, "metric 'loss' is None"),
        (6, {"loss": torch.ones(2)}, "which is not one number"),
        (6, {"step": 1.0}, "cannot be called 'step'"),
        (6, {"nonfinite": 1.0}, "cannot be called 'nonfinite'"),
    ],
)
def test_a_bad_metric_writes_nothing(
    tmp_path: Path, step: int, values: Mapping[str, float], says: str
) -> None:
    with RunLog.create(tmp_path, {}) as log:
        log.metrics(5, {"loss": 1.0})
        before = tree(tmp_path)
        with pytest.raises(ValueError, match=says):
            log.metrics(step, {"fine": 1.0, **values})
        assert tree(tmp_path) == before
        log.metrics(5, {"vote": 0.5})  # a second line of a step is fine


def test_a_full_disk_takes_back_the_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunLog.create(tmp_path, {}) as log:
        log.metrics(1, {"loss": 1.0})
        before = tree(tmp_path)

        def full(_: int) -> None:
            raise OSError(28, os.strerror(28))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match=r"No space left.*metrics\.jsonl\. Free some space"):
                log.metrics(2, {"loss": 0.5})
        assert tree(tmp_path) == before
        log.metrics(2, {"loss": 0.25})
    assert [line["loss"] for line in read_metrics(tmp_path)] == [1.0, 0.25]


def test_a_closed_log_takes_nothing(tmp_path: Path) -> None:
    log = RunLog.create(tmp_path, {})
    log.close()
    log.close()
    with pytest.raises(ValueError, match="is closed"):
        log.metrics(1, {})
    assert read_metrics(tmp_path) == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("not json", "is not JSON"),
        ('{"step": 2, "lo', "is not JSON"),
        ('{"loss": 1.0}', "is not an object with a whole number"),
        ('{"step": 2.5}', "is not an object with a whole number"),
        ("[2]", "is not an object"),
        ("", "is not JSON"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    finished(tmp_path)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], line + "\n", *lines[1:]]))
    with pytest.raises(ValueError, match=rf"metrics\.jsonl, line 2 {says}"):
        read_metrics(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(ValueError, match=rf"metrics\.jsonl, line 2 {says}"):
        RunLog.resume(tmp_path, Config())
    assert tree(tmp_path) == before


def test_a_torn_last_line_is_dropped_with_a_warning_and_never_glued_to(tmp_path: Path) -> None:
    finished(tmp_path)
    whole = read_metrics(tmp_path)
    for torn in ("{", '{"step": 4, "loss": 0.1}'):
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write(torn)
        with pytest.warns(UserWarning, match="the last line is torn and left out"):
            assert read_metrics(tmp_path) == whole
        with RunLog.resume(tmp_path, Config()):
            assert read_metrics(tmp_path) == whole


def test_metrics_of_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"metrics\.jsonl does not exist: give the folder"):
        read_metrics(tmp_path)


# --- Transcripts -------------------------------------------------------------

HOSTILE = ["two\nlines\r\n", "</script><script>alert(1)</script>", "\u2028\x85\x0b\x00", "\ud800 é",
           '{"step": 9}\n{"step": 10}']  # fmt: skip


def test_one_debate_stays_one_line_whatever_agents_write(tmp_path: Path) -> None:
    debates = [transcript(text, text) for text in HOSTILE]
    with RunLog.create(tmp_path, {}) as log:
        log.transcripts("before", debates[:1])
        log.metrics(3, {})
        log.transcripts("train", debates)
        log.transcripts("train", iter(debates[:2]))
    lines = (tmp_path / "transcripts" / "train.jsonl").read_bytes().splitlines()
    assert [Transcript.from_json(line.decode("ascii")) for line in lines] == debates + debates[:2]
    assert all(line.startswith(b'{"step": 3, "question"') for line in lines)
    assert (tmp_path / "transcripts" / "before.jsonl").read_bytes().startswith(b'{"step": 0, ')


@pytest.mark.parametrize("name", ["", "../metrics", "a/b", ".hidden", "a b", "a\n"])
def test_transcripts_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    with RunLog.create(tmp_path, {}) as log:
        before = tree(tmp_path)
        with pytest.raises(ValueError, match="is no name for transcripts"):
            log.transcripts(name, [transcript("a")])
        assert tree(tmp_path) == before
