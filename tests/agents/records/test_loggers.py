"""Loggers: TensorBoard, Weights & Biases and others."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

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


def test_a_logger_that_cannot_be_had_is_named_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match=r"'wandbb'.*choose among wandb"):
        loggers.require_loggers(["wandbb"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install wandb"):
        loggers.require_loggers(["wandb"])


def test_the_run_log_needs_no_torch() -> None:
    program = "import sys; sys.path[:0] = sys.argv[1:]; import maporl_agents.records.run_log; "
    program += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program, AGENTS, ENV], check=False).returncode == 0
