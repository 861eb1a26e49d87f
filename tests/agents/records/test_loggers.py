"""Loggers: TensorBoard, Weights & Biases and others."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pytest
from run_log_cases import AGENTS, ENV

from maporl_agents.records import loggers, run_log
from maporl_agents.records.run_log import RunLog, read_metrics

# --- Loggers -----------------------------------------------------------------


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def test_tensorboard_shows_one_curve_also_after_a_resume(tmp_path: Path) -> None:
    with RunLog.create(tmp_path, {}) as log:
        for step in (1, 2, 3):
            log.metrics(step, {"train/loss": step / 4})
        assert scalars(tmp_path) == {"train/loss": [(1, 0.25), (2, 0.5), (3, 0.75)]}
    with RunLog.resume(tmp_path, {}) as log:
        log.truncate_after(2)
        log.metrics(3, {"train/loss": 7.0, "kl": math.inf})
    assert scalars(tmp_path) == {
        "train/loss": [(1, 0.25), (2, 0.5), (3, 7.0)],
        "kl": [(3, math.inf)],
    }
    files = sorted(path.name for path in (tmp_path / "tensorboard").iterdir())
    assert files == ["events.out.tfevents.000000", "events.out.tfevents.000001"]


class Notes:
    """A logger of a user's own."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []
        self.closed = 0

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.lines.append((step, dict(values)))

    def close(self) -> None:
        self.closed += 1


def test_other_loggers_get_every_value_and_are_closed(tmp_path: Path) -> None:
    notes = Notes()
    with RunLog.create(tmp_path, {}, loggers=[notes]) as log:
        log.metrics(1, {"kl": math.inf})
        for logger in log.loggers:  # how times are logged, which are no metrics of the run
            logger.log(1, {"seconds": 2.5})
    log.close()
    assert notes.lines == [(1, {"kl": math.inf}), (1, {"seconds": 2.5})]
    assert notes.closed == 1
    assert read_metrics(tmp_path) == [{"step": 1, "kl": None, "nonfinite": 1}]
    assert scalars(tmp_path)["seconds"] == [(1, 2.5)]


def test_weights_and_biases_is_asked_only_when_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with pytest.raises(ValueError, match="pip install wandb"):
        run_log.WandbLogger("run", {})


def test_weights_and_biases_gets_every_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[object] = []
    run = SimpleNamespace(
        log=lambda values, step: said.append((step, values)), finish=lambda: said.append("finish")
    )

    def init(**options: object) -> SimpleNamespace:
        said.append(options)
        return run

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    logger = run_log.WandbLogger("first", {"seed": 0})
    with RunLog.create(tmp_path, {}, loggers=[logger]) as log:
        log.metrics(1, {"loss": 0.5})
    started = {"project": "maporl", "name": "first", "config": {"seed": 0}}
    assert said == [started, (1, {"loss": 0.5}), "finish"]


def test_loggers_are_made_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    wandb = ModuleType("wandb")
    wandb.init = lambda **options: started.append(options)  # type: ignore[attr-defined]
    wandb.__spec__ = ModuleSpec("wandb", None)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    [logger] = loggers.make_loggers(["wandb"], "first", {"seed": 0})
    assert isinstance(logger, loggers.WandbLogger)
    assert started == [{"project": "maporl", "name": "first", "config": {"seed": 0}}]
    assert loggers.make_loggers([], "first", {}) == ()


class Hosted:
    """A logger whose runs have ids, as those of wandb, trackio and mlflow."""

    runs: ClassVar[dict[str, list[tuple[int, dict[str, float]]]]] = {}

    def __init__(self, name: str, config: Mapping[str, object], run_id: str | None = None) -> None:
        self.run_id = run_id or f"{name}-{len(self.runs)}"
        self.lines = self.runs.setdefault(self.run_id, [])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.lines.append((step, dict(values)))

    def close(self) -> None:
        pass


@pytest.fixture
def hosted(monkeypatch: pytest.MonkeyPatch) -> type[Hosted]:
    monkeypatch.setattr(Hosted, "runs", {})
    monkeypatch.setitem(loggers.LOGGERS, "hosted", Hosted)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    return Hosted


def test_a_run_that_goes_on_is_one_run_there_with_every_step_once(
    tmp_path: Path, hosted: type[Hosted]
) -> None:
    """Three steps, a checkpoint after the second; the third is made again, and a fourth."""

    def begin(log: RunLog) -> None:
        log.loggers += loggers.make_loggers(["hosted"], "run", {}, tmp_path, log.seen)

    with RunLog.create(tmp_path, {}) as log:
        begin(log)
        for step in (1, 2, 3):
            log.metrics(step, {"kl": step / 8})
    with RunLog.resume(tmp_path, {}) as log:
        log.truncate_after(2)
        assert log.seen == 3
        begin(log)
        for step in (3, 4):
            log.metrics(step, {"kl": step / 8})
        log.beside("validation", {"score": 0.5})
    expected = [(step, {"kl": step / 8}) for step in (1, 2, 3, 4)]
    assert hosted.runs == {"run-0": [*expected, (4, {"validation/score": 0.5})]}
    assert json.loads((tmp_path / loggers.FILE).read_text()) == {"hosted": "run-0"}


def test_mlflow_takes_a_run_and_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the package itself, where it is installed."""
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
    monkeypatch.chdir(tmp_path)
    first = loggers.MlflowLogger("first", {"seed": 0})
    first.log(1, {"score/turn_1": 0.5, "kl": math.nan})
    first.close()
    again = loggers.MlflowLogger("first", {"seed": 0}, run_id=first.run_id)
    again.log(2, {"score/turn_1": 0.75})
    again.close()
    client = mlflow.MlflowClient()
    history = client.get_metric_history(first.run_id, "score/turn_1")
    assert [(one.step, one.value) for one in history] == [(1, 0.5), (2, 0.75)]
    assert client.get_run(first.run_id).info.status == "FINISHED"


TRACKIO = """
import math
from maporl_agents.records.loggers import TrackioLogger
first = TrackioLogger("first", {"seed": 0})
first.log(1, {"score/turn_1": 0.5, "kl": math.nan})
first.close()
again = TrackioLogger("first", {"seed": 0}, run_id=first.run_id)
again.log(2, {"score/turn_1": 0.75})
again.close()
from trackio.sqlite_storage import SQLiteStorage
[run] = SQLiteStorage.get_runs("maporl")
print([(one["step"], one["score/turn_1"]) for one in SQLiteStorage.get_logs("maporl", run)])
"""


@pytest.mark.timeout(500)  # a few seconds on a free core
def test_trackio_takes_a_run_and_goes_on_with_it(tmp_path: Path) -> None:
    """With the package itself, where it is installed; it reads its folder when it is imported."""
    pytest.importorskip("trackio", reason="trackio is not installed")
    done = subprocess.run(
        [sys.executable, "-c", TRACKIO],
        env={**os.environ, "TRACKIO_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    assert "[(1, 0.5), (2, 0.75)]" in done.stdout.splitlines()


def test_a_validation_that_was_cut_off_is_sent_with_its_step(
    tmp_path: Path, hosted: type[Hosted]
) -> None:
    (tmp_path / loggers.FILE).write_text('{"hosted": "a"}')
    [logger] = loggers.make_loggers(["hosted"], "run", {}, tmp_path, 3)
    for step in (2, 3):
        logger.log(step, {"kl": 0.1})
        logger.log(step, {"validation/score": 0.1})
    logger.close()
    assert hosted.runs == {"a": [(3, {"validation/score": 0.1})]}


def test_other_settings_are_another_run_there(tmp_path: Path, hosted: type[Hosted]) -> None:
    with RunLog.create(tmp_path, {"seed": 1}) as log:
        log.loggers += loggers.make_loggers(["hosted"], "run", {}, tmp_path, log.seen)
        log.metrics(1, {"kl": 1.0})
    with RunLog.resume(tmp_path, {"seed": 2}, force=True) as log:
        log.truncate_after(0)
        assert log.seen == 0
        log.loggers += loggers.make_loggers(["hosted"], "run", {}, tmp_path, log.seen)
        log.metrics(1, {"kl": 2.0})
    assert hosted.runs == {"run-0": [(1, {"kl": 1.0})], "run-1": [(1, {"kl": 2.0})]}


def test_trackio_gets_name_settings_and_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against fakes that take what the real packages take (trackio 0.43)."""
    said: list[object] = []
    run = SimpleNamespace(
        name="first-2",
        log=lambda values, step: said.append((step, values)),
        finish=lambda: said.append("finish"),
    )
    trackio = SimpleNamespace(init=lambda **options: said.append(options) or run)
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    for known in (None, "first-2"):
        logger = loggers.TrackioLogger("first", {"seed": 0}, run_id=known)
        logger.log(7, {"kl": 0.5})
        logger.close()
        started, *rest = said
        assert rest == [(7, {"kl": 0.5}), "finish"]
        assert started == {
            "project": "maporl",
            "name": known or "first",
            "config": {"seed": 0},
            "resume": "allow" if known else "never",
            "embed": False,
        }
        assert logger.run_id == "first-2"
        said.clear()


def test_a_logger_that_cannot_be_had_is_named_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match=r"'wandbb'.*choose among wandb, trackio"):
        loggers.require_loggers(["wandbb"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install wandb"):
        loggers.require_loggers(["wandb"])


def test_the_run_log_needs_no_torch() -> None:
    program = "import sys; sys.path[:0] = sys.argv[1:]; import maporl_agents.records.run_log; "
    program += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program, AGENTS, ENV], check=False).returncode == 0
