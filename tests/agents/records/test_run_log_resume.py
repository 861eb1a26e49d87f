"""A resumed run log: the same bytes, other settings, one process at a time."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from run_log_cases import AGENTS, ENV, Config, finished, play, transcript, tree

from maporl_agents.records import checkpoint_folder
from maporl_agents.records.run_log import RunLog

# --- Resume ------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("cut", range(7))
def test_a_resumed_run_writes_the_same_bytes(tmp_path: Path, cut: int) -> None:
    """Killed after step 5, last checkpoint at `cut` (6: the kill came between the two)."""
    with RunLog.create(tmp_path / "whole", Config()) as log:
        play(log, 1, 9)
    stop = max(cut, 5)
    with RunLog.create(tmp_path / "cut", Config()) as log:
        play(log, 1, stop + 1)
    for path in (tmp_path / "cut").rglob("*.jsonl"):
        with path.open("a") as file:
            file.write('{"step": ')
    with RunLog.resume(tmp_path / "cut", Config()) as log:
        log.truncate_after(cut)
        play(log, cut + 1, 9)
    whole, resumed = tree(tmp_path / "whole"), tree(tmp_path / "cut")
    for name in ("metrics.jsonl", "transcripts/train.jsonl", "config.json"):
        assert resumed[name] == whole[name]


def test_resuming_without_truncating_does_not_repeat_steps(tmp_path: Path) -> None:
    with RunLog.create(tmp_path, Config()) as log:
        log.transcripts("before", [transcript("of step 0")])
        log.metrics(3, {})
    with (
        RunLog.resume(tmp_path, Config()) as log,
        pytest.raises(ValueError, match=r"step 2 comes after step 3.*call truncate_after"),
    ):
        log.metrics(2, {})


def test_there_must_be_a_run_to_resume(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match="There is no run in"):
            RunLog.resume(folder, {})
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_config_is_named(tmp_path: Path) -> None:
    finished(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(
        checkpoint_folder.CheckpointError, match=r"config\.json cannot be read as JSON"
    ):
        RunLog.resume(tmp_path, Config())
    RunLog.create(tmp_path, Config(), overwrite=True).close()  # the lock was let go


def test_other_settings_are_shown_and_refused(tmp_path: Path) -> None:
    finished(tmp_path)
    before = tree(tmp_path)
    other = {"seed": 0, "gamma": 0.9, "data": "data/train.jsonl",
             "game": {"task": "shopping", "alpha": [0.0, 2.0], "beta": [1, 1]}}  # fmt: skip
    with pytest.raises(ValueError, match=r"(?s)settings differ.*--force") as caught:
        RunLog.resume(tmp_path, other)
    assert str(caught.value).splitlines()[1:-1] == [
        "- game.alpha: [0.0, 0.5]",
        "+ game.alpha: [0.0, 2.0]",
        "+ game.beta: [1, 1]",
        "- gamma: 0.3",
        "+ gamma: 0.9",
    ]
    assert tree(tmp_path) == before


def test_other_settings_by_force_are_printed_and_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    with RunLog.resume(tmp_path, Config(gamma=0.9), force=True) as log:
        assert log.config["gamma"] == 0.9
        assert (tmp_path / "config.json").read_bytes() == before, "no checkpoint fits them yet"
        log.truncate_after(2)
    assert "- gamma: 0.3\n+ gamma: 0.9\n" in capsys.readouterr().err
    with RunLog.resume(tmp_path, Config(gamma=0.9)):
        assert capsys.readouterr().err == ""


# --- One writer --------------------------------------------------------------

HOLDER = """
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from maporl_agents.records.run_log import RunLog
log = RunLog.create(Path(sys.argv[1]), {})
log.transcripts("train", [])
print("holding", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-c", HOLDER, folder, AGENTS, ENV]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        before = tree(folder)
        says = rf"Another process \(id {process.pid}\) is writing to .*run"
        with pytest.raises(ValueError, match=says):
            RunLog.resume(folder, {})
        with pytest.raises(ValueError, match=says):
            RunLog.create(folder, {}, overwrite=True)
        assert tree(folder) == before
        process.send_signal(signal.SIGKILL)
    assert (folder / ".lock").read_text() == f"{process.pid}\n"  # stale, and taken over:
    with RunLog.resume(folder, {}):
        pass


def test_two_logs_of_one_process_are_refused_too(tmp_path: Path) -> None:
    with RunLog.create(tmp_path, {}), pytest.raises(ValueError, match="Another process"):
        RunLog.resume(tmp_path, {})
    RunLog.resume(tmp_path, {}).close()
