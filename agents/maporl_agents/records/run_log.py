"""RunLog writes a run folder: settings, versions, metrics, alarms, transcripts.

    config.json               the settings
    versions.json             packages, platform, commit; no machine or user names
    questions.json            number and hash of the questions: see `questions_record`
    metrics.jsonl             one JSON object a line, "step" first, steps never falling
    tensorboard/              the same as TensorBoard events
    alarms.jsonl              early warnings, one a line: "step", then "name", "where", "text"
    warmup.jsonl              loss of each update of a warm-up, one a line
    validation.jsonl          score of each checkpoint on the validation slice, one a line
    seconds.jsonl             seconds of each phase of a step, one step a line: see `phases`
    transcripts/<name>.jsonl  one debate a line: "step", then the fields of a `Transcript`
    checkpoints/              see `checkpoint_folder`
    best/, pool/              likewise: what did best in validation; past versions in self-play
    .lock                     held by the process that writes here

NaN and infinities are no JSON: such a metric is null, and "nonfinite" at the end of the line counts
them. Times do not belong in `RunLog.metrics`, so that a resumed run's file equals that of an
uninterrupted one byte for byte; give them to `RunLog.seconds`.
"""

from __future__ import annotations

import json
import math
import operator
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from maporl_agents.records.log_lines import last_step, log_lines, read_metrics
from maporl_agents.records.loggers import Logger, TensorBoardLogger, WandbLogger
from maporl_agents.records.run_folder import (
    acquire,
    remove_run,
    require_free,
    require_own_files,
)
from maporl_agents.records.saved_settings import plain_settings
from maporl_agents.records.settings_diff import SettingsDiffer, config_diff, require_same_settings
from maporl_agents.records.storage import reason, write_text
from maporl_agents.records.versions import versions
from maporl_env.types import Transcript

__all__ = [
    "Logger",
    "RunLog",
    "SettingsDiffer",
    "TensorBoardLogger",
    "WandbLogger",
    "config_diff",
    "read_metrics",
    "versions",
]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class RunLog:
    """The run folder of this process; made by `create` or `resume`, closed by `close` or `with`.

    Attributes:
        folder: `runs/<name>`.
        config: the settings as JSON values.
        loggers: where metrics go besides the folder, TensorBoard first.
        seen: steps that were logged before `truncate_after`; 0 if their settings were others.
    """

    def __init__(self, folder: Path, config: Any, lock: int, loggers: Sequence[Logger]) -> None:
        self.folder = folder
        self.config = config
        self.loggers: tuple[Logger, ...] = (TensorBoardLogger(folder / "tensorboard"), *loggers)
        self._lock: int | None = lock
        self.seen = 0
        self._step = 0
        self._new_settings = False

    # --- Open and close ---

    @classmethod
    def create(
        cls,
        folder: Path,
        config: Any,
        *,
        overwrite: bool = False,
        loggers: Sequence[Logger] = (),
    ) -> RunLog:
        """Start a run in an empty or new folder.

        Args:
            folder: of the run; parents are made.
            config: a dataclass or dict of JSON values.
            overwrite: remove an earlier run there. Only files that a run writes are ever removed.
            loggers: take the metrics too, and are closed with the log.

        Raises:
            ValueError: if the folder holds a run (without `overwrite`) or anything that no run
                writes, if another process writes there, or if JSON cannot hold the config. The
                folder is then as it was.
            OSError: disk full or not writable; nothing half-written stays.
        """
        folder = Path(folder)
        plain = plain_settings(config)
        require_free(folder, overwrite)
        existed = folder.exists()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = acquire(folder)
        except OSError as error:
            raise _cannot_write(folder, error) from error
        try:
            require_free(folder, overwrite)  # again, now that the lock is held
            cls._start(folder, plain)
            return cls(folder, plain, lock, loggers)
        except BaseException as error:
            os.close(lock)
            if not existed:
                shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise _cannot_write(folder, error) from error
            raise

    @staticmethod
    def _start(folder: Path, plain: Any) -> None:
        """Replace an earlier run's files by the first files of this one; all of them or none."""
        remove_run(folder)
        try:
            write_text(folder / "versions.json", _pretty(versions()))
            write_text(folder / "config.json", _pretty(plain))
            (folder / "metrics.jsonl").touch()
        except BaseException:
            remove_run(folder)
            raise

    @classmethod
    def resume(
        cls,
        folder: Path,
        config: Any,
        *,
        force: bool = False,
        loggers: Sequence[Logger] = (),
    ) -> RunLog:
        """Resume a run. Load its checkpoint next, then call `truncate_after` with its step.

        Args:
            folder: of the run.
            config: as at the start of the run.
            force: go on although the config differs; the difference is printed to stderr, and
                `truncate_after` puts the new config in the place of the old one.
            loggers: as for `create`.

        Raises:
            ValueError: if there is no run, another process writes there, or (`SettingsDiffer`)
                the config differs without `force`. The folder is then as it was.
            CheckpointError: if the saved config is damaged.
        """
        folder = Path(folder)
        plain = plain_settings(config)
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"There is no run in {folder} (no config.json): give the folder of a run, or start "
                "one without --resume."
            )
        require_own_files(folder)
        lock = acquire(folder)
        try:
            diff = require_same_settings(folder, config, force=force)
            log = cls(folder, plain, lock, loggers)
            log._cut(math.inf)
            if diff:
                notice = f"Going on in {folder} with other settings:"
                print(notice, *diff, sep="\n", file=sys.stderr)
                log._new_settings = True
            return log
        except BaseException:
            os.close(lock)
            raise

    def close(self) -> None:
        """Close all loggers and release the lock of the folder. Safe to call twice."""
        if self._lock is None:
            return
        try:
            for logger in self.loggers:
                logger.close()
        finally:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- Write ---

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line to metrics.jsonl, synced to the disk, and pass the values to the loggers.

        Args:
            step: not below that of the line before.
            values: numbers, zero-dimensional arrays and tensors included, by name.

        Raises:
            ValueError: if the step falls, a value is no number, or a name is "step" or "nonfinite".
                Nothing is written then.
            OSError: disk full or not writable; the file ends with the last whole line.
        """
        step = operator.index(step)
        if step < self._step:
            raise ValueError(
                f"{self.folder}: step {step} comes after step {self._step}; steps do not fall. "
                "After resuming from a checkpoint, call truncate_after(its step) first."
            )
        numbers = {name: _number(name, value) for name, value in values.items()}
        line = {k: v if math.isfinite(v) else None for k, v in numbers.items()}
        nonfinite = sum(value is None for value in line.values())
        counted = {"nonfinite": nonfinite} if nonfinite else {}
        self._append("metrics.jsonl", [json.dumps({"step": step, **line, **counted})])
        self._step = step
        for logger in self.loggers:
            logger.log(step, numbers)

    def transcripts(
        self, name: str, transcripts: Iterable[Transcript], *, replace: bool = False
    ) -> None:
        """Append debates to transcripts/<name>.jsonl, each with the step of the newest metrics.

        Whatever agents wrote, a debate stays one line, and `Transcript.from_json` reads it.

        Args:
            name: of the file.
            transcripts: the debates.
            replace: put them in the place of what the file holds, all at once.

        Raises:
            ValueError: if the name holds anything but letters, digits, `_`, `-` and `.`.
            OSError: disk full or not writable; the file ends with the last whole call.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for transcripts: use letters, digits, _ - and .")
        lines = [
            json.dumps({"step": self._step, **one.to_dict()}, allow_nan=False)
            for one in transcripts
        ]
        (self._replace if replace else self._append)(f"transcripts/{name}.jsonl", lines)

    def alarms(self, alarms: Iterable[Mapping[str, str]]) -> None:
        """Append early warnings to alarms.jsonl, each with the step of the newest metrics.

        Raises:
            OSError: disk full or not writable; the file ends with the last whole call.
        """
        if lines := [json.dumps({"step": self._step, **alarm}) for alarm in alarms]:
            self._append("alarms.jsonl", lines)

    def seconds(self, phases: Mapping[str, float]) -> None:
        """Append the seconds of each phase of a step to seconds.jsonl; pass them to the loggers.

        Args:
            phases: seconds by phase, of the step of the newest metrics.

        Raises:
            OSError: disk full or not writable; the file ends with the last whole line.
        """
        line = {name: round(spent, 6) for name, spent in phases.items()}
        self._append("seconds.jsonl", [json.dumps({"step": self._step, **line})])
        for logger in self.loggers:
            logger.log(self._step, {f"seconds/{name}": spent for name, spent in line.items()})

    def beside(self, file: Literal["validation", "warmup"], values: Mapping[str, float]) -> None:
        """Append a line of numbers to validation.jsonl or warmup.jsonl; pass them to the loggers.

        Args:
            file: its name without the ending, before which loggers put the numbers' names.
            values: numbers by name, of the step of the newest metrics.

        Raises:
            OSError: disk full or not writable; the file ends with the last whole line.
        """
        self._append(f"{file}.jsonl", [json.dumps({"step": self._step, **values})])
        for logger in self.loggers:
            logger.log(self._step, {f"{file}/{name}": value for name, value in values.items()})

    def truncate_after(self, step: int) -> None:
        """Remove the log lines of later steps, to continue from the checkpoint of `step`.

        Settings that differ (see `resume`) are saved now, once the checkpoint is known to fit
        them, and not earlier.

        Raises:
            ValueError: if a line that is to stay is damaged; names file and line.
        """
        if not self._new_settings:
            self.seen = last_step(self.folder / "metrics.jsonl")
        self._cut(step)
        if self._new_settings:
            write_text(self.folder / "config.json", _pretty(self.config))
            self._new_settings = False

    def _cut(self, step: float) -> None:
        self._step = 0
        metrics = self.folder / "metrics.jsonl"
        others = (
            self.folder / name
            for name in ("alarms.jsonl", "seconds.jsonl", "validation.jsonl", "warmup.jsonl")
        )
        for path in (metrics, *others, *self.folder.glob("transcripts/*.jsonl")):
            end = 0
            for record, after in log_lines(path):
                if record["step"] > step:
                    break
                end = after
                if path == metrics:
                    self._step = record["step"]
            if path.exists() and path.stat().st_size > end:
                os.truncate(path, end)

    def _replace(self, name: str, lines: list[str]) -> None:
        """Write a file of the run anew, whole or not at all."""
        path = self._open(name)
        try:
            path.parent.mkdir(exist_ok=True)
            write_text(path, "".join(line + "\n" for line in lines))
        except OSError as error:
            raise _cannot_write(path, error) from error

    def _open(self, name: str) -> Path:
        """Return the path of a file of the run; ValueError after `close`."""
        if self._lock is None:
            raise ValueError(f"The run log of {self.folder} is closed.")
        return self.folder / name

    def _append(self, name: str, lines: list[str]) -> None:
        """Append whole lines to a file of the run, or nothing."""
        path = self._open(name)
        try:
            path.parent.mkdir(exist_ok=True)
            with path.open("ab", buffering=0) as file:
                start = file.tell()
                try:
                    data = "".join(line + "\n" for line in lines).encode()
                    while data:
                        data = data[file.write(data) :]
                    os.fsync(file.fileno())
                except BaseException:
                    os.truncate(path, start)
                    raise
        except OSError as error:
            raise _cannot_write(path, error) from error


# --- Values ------------------------------------------------------------------


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def _number(name: str, value: Any) -> float:
    """Return a metric as int or float."""
    if name in ("step", "nonfinite"):
        raise ValueError(f"A metric cannot be called {name!r}: the run log uses that name itself.")
    try:
        if isinstance(value, str):
            raise TypeError("text")
        value = value.item() if hasattr(value, "item") else value  # numpy, torch
        return int(value) if isinstance(value, int) else float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"The metric {name!r} is {value!r}, which is not one number.") from error


def _cannot_write(path: Path, error: OSError) -> OSError:
    """Return an OSError of the same number that says what to do."""
    advice = "Free some space there or make it writable."
    return OSError(error.errno, f"{reason(error)}: cannot write {path}. {advice}")
