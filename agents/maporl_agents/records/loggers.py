"""Loggers that take metrics besides metrics.jsonl: TensorBoard and Weights & Biases."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class Logger(Protocol):
    """Takes the metrics of each step. Made by the caller, closed by the `RunLog` it is given to."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the metrics of one step; `values` may hold NaN and infinities."""

    def close(self) -> None:
        """Write out what is pending. Called once."""


class TensorBoardLogger:
    """Writes TensorBoard event files, without a thread and without the machine's name.

    The first step logged tells TensorBoard to drop what earlier files hold from that step on, so
    that a resumed run shows one curve.

    Args:
        folder: for the event files; made, with a new file in it, by the first `log`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: Any = None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write one scalar per value and hand it to the system.

        Raises:
            ImportError: if tensorboard is not installed; names the extra that holds it.
        """
        event, summary = _protocol()
        if self._writer is None:
            self._writer = self._open()
            start = event.SessionLog(status=event.SessionLog.START)
            self._write(event.Event(wall_time=time.time(), file_version="brain.Event:2"))
            self._write(event.Event(wall_time=time.time(), step=step, session_log=start))
        scalars = [summary.Summary.Value(tag=k, simple_value=v) for k, v in values.items()]
        record = event.Event(wall_time=time.time(), step=step)
        record.summary.CopyFrom(summary.Summary(value=scalars))
        self._write(record)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self) -> Any:
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.folder.mkdir(parents=True, exist_ok=True)
        index = len(list(self.folder.glob("events.out.tfevents.*")))  # read in the order of names
        return RecordWriter((self.folder / f"events.out.tfevents.{index:06d}").open("xb"))

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())


def _protocol() -> tuple[Any, Any]:
    """Return TensorBoard's modules of events and summaries."""
    try:
        from tensorboard.compat.proto import event_pb2, summary_pb2
    except ImportError as error:
        raise ImportError("TensorBoard is missing: pip install 'maporl[train]'.") from error
    return event_pb2, summary_pb2


class WandbLogger:
    """Sends metrics to Weights & Biases, which the user has installed and logged in to.

    Args:
        name: of the run.
        config: shown with the run.
        project: the project that the run belongs to.

    Raises:
        ValueError: if wandb is not installed.
    """

    def __init__(self, name: str, config: Mapping[str, Any], project: str = "maporl") -> None:
        try:
            wandb = importlib.import_module("wandb")
        except ImportError as error:
            raise ValueError(
                "Weights & Biases is not installed: pip install wandb, or leave this logger out."
            ) from error
        self._run = wandb.init(project=project, name=name, config=dict(config))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the metrics of one step."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


LOGGERS: dict[str, Callable[[str, Mapping[str, Any]], Logger]] = {"wandb": WandbLogger}
"""The loggers of ``--log-to`` by the name of their package; made from a run's name and settings."""


def require_loggers(names: Sequence[str]) -> None:
    """Raise ValueError unless each is a name of `LOGGERS` whose package is installed."""
    for name in names:
        if name not in LOGGERS:
            raise ValueError(f"cannot log to {name!r}: choose among {', '.join(LOGGERS)}")
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"{name} is not installed: pip install {name}, or do not --log-to it")


def make_loggers(names: Sequence[str], run: str, config: Mapping[str, Any]) -> tuple[Logger, ...]:
    """Return a logger for each name; ValueError as `require_loggers`."""
    require_loggers(names)
    return tuple(LOGGERS[name](run, config) for name in names)
