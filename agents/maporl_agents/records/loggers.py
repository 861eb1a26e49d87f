"""Loggers that take metrics besides metrics.jsonl: TensorBoard, wandb, trackio and mlflow.

A run that goes on after a checkpoint repeats the steps after it, with the same numbers. The hosted
loggers go on with the same run there (its id is in `FILE`) and are not sent a step twice.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from maporl_agents.records.storage import write_text
from maporl_env.missing_extra import is_installed, missing_extra


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
        words = missing_extra("writing events for TensorBoard", "tensorboard", "train")
        raise ImportError(words) from error
    return event_pb2, summary_pb2


def _missing(name: str) -> str:
    """Return the error text for a logger of ``--log-to`` whose package is not installed."""
    return missing_extra(f"--log-to {name}", name, None, instead="or leave this logger out")


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(_missing(name)) from error


class HostedLogger:
    """Sends metrics to a package that knows a run by an id: the base of the classes below.

    Args:
        name: of the run.
        config: shown with the run.
        project: the project that the run belongs to.
        run_id: of an earlier logger of the same run, which goes on; None begins one.

    Attributes:
        run_id: names the run to a later logger.

    Raises:
        ValueError: if the package is not installed.
    """

    _run: Any

    def __init__(
        self,
        name: str,
        config: Mapping[str, Any],
        project: str = "maporl",
        run_id: str | None = None,
    ) -> None:
        self.run_id = self._begin(name, dict(config), project, run_id)

    def _begin(
        self, name: str, config: dict[str, Any], project: str, run_id: str | None
    ) -> str | None:
        """Begin a run, or go on with that of the id; return its id."""
        raise NotImplementedError

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the metrics of one step."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class WandbLogger(HostedLogger):
    """Sends metrics to Weights & Biases, which the user has installed and logged in to."""

    def _begin(
        self, name: str, config: dict[str, Any], project: str, run_id: str | None
    ) -> str | None:
        known = {} if run_id is None else {"id": run_id, "resume": "allow"}
        self._run = _package("wandb").init(project=project, name=name, config=config, **known)
        return getattr(self._run, "id", None)


class TrackioLogger(HostedLogger):
    """Writes metrics to trackio, on this machine or where its own variables say.

    The id is the name of the run there.
    """

    def _begin(
        self, name: str, config: dict[str, Any], project: str, run_id: str | None
    ) -> str | None:
        self._run = _package("trackio").init(
            project=project,
            name=run_id or name,
            config=config,
            resume="allow" if run_id else "never",
            embed=False,
        )
        return getattr(self._run, "name", None)


class MlflowLogger(HostedLogger):
    """Sends metrics to MLflow, to the server or folder that its own variables name.

    The project is MLflow's experiment.
    """

    def _begin(
        self, name: str, config: dict[str, Any], project: str, run_id: str | None
    ) -> str | None:
        self._mlflow = _package("mlflow")
        self._client = self._mlflow.MlflowClient()
        if run_id is not None:
            self._client.update_run(run_id, status="RUNNING")
            return run_id
        experiment = self._mlflow.set_experiment(project)
        run = self._client.create_run(experiment.experiment_id, run_name=name)
        self._client.log_dict(run.info.run_id, config, "config.json")
        return run.info.run_id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the metrics of one step."""
        now = int(1000 * time.time())
        metric = self._mlflow.entities.Metric
        sent = [metric(name, float(value), now, step) for name, value in values.items()]
        self._client.log_batch(self.run_id, metrics=sent)

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self.run_id)


class After:
    """Passes on what is logged after a step, and nothing up to it.

    Args:
        logger: takes the later steps.
        seen: the last step that it has already.
    """

    def __init__(self, logger: Logger, seen: int) -> None:
        self.logger = logger
        self.seen = seen

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Pass on the metrics of a new step, and a validation that came too late for the last."""
        late = step == self.seen and all(name.startswith("validation/") for name in values)
        if step > self.seen or late:
            self.logger.log(step, values)

    def close(self) -> None:
        """Close the logger."""
        self.logger.close()


FILE = "loggers.json"
"""In a run's folder: the ids of the run in the loggers that have some."""

LOGGERS: dict[str, Callable[..., Logger]] = {
    "wandb": WandbLogger,
    "trackio": TrackioLogger,
    "mlflow": MlflowLogger,
}
"""The loggers of ``--log-to`` by the name of their package; made from a run's name and settings."""


def require_loggers(names: Sequence[str]) -> None:
    """Raise ValueError unless each is a name of `LOGGERS` whose package is installed."""
    for name in names:
        if name not in LOGGERS:
            raise ValueError(f"cannot log to {name!r}: choose among {', '.join(LOGGERS)}")
        if not is_installed(name):
            raise ValueError(_missing(name))


def make_loggers(
    names: Sequence[str],
    run: str,
    config: Mapping[str, Any],
    folder: Path | None = None,
    seen: int = 0,
) -> tuple[Logger, ...]:
    """Return a logger for each name; ValueError as `require_loggers`.

    Args:
        names: of `LOGGERS`.
        run: its name.
        config: its settings.
        folder: of the run, where ids are kept; None keeps none.
        seen: the last step that the run's loggers have already; 0 begins new runs in them.
    """
    require_loggers(names)
    path = None if folder is None else folder / FILE
    known = json.loads(path.read_text()) if path is not None and seen and path.is_file() else {}
    made: list[Logger] = []
    for name in names:
        begun = known.get(name)
        logger = LOGGERS[name](run, config, **({} if begun is None else {"run_id": begun}))
        made.append(logger if begun is None else After(logger, seen))
        if (now := getattr(logger, "run_id", None)) is not None:
            known[name] = now
    if path is not None and known:
        write_text(path, json.dumps(known, indent=2) + "\n")
    return tuple(made)
