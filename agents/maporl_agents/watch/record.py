"""The folder of a watched debate: its settings, its events, and what is made of them.

watch.json            settings and question, written once
events.jsonl          all that happened, one JSON object a line, appended and brought to disk
interventions.jsonl   each decision of a person: who, when, before, after
transcript.jsonl      the debate so far, for `maporl play --replay` and `maporl report`
preferences.jsonl     pairs of messages, see `pairs`
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from maporl_agents.records.log_lines import log_lines
from maporl_agents.records.run_folder import acquire
from maporl_agents.records.storage import load_json, require_new, require_plain, write_text

SETTINGS = "watch.json"
EVENTS = "events.jsonl"
INTERVENTIONS = "interventions.jsonl"
TRANSCRIPT = "transcript.jsonl"
PREFERENCES = "preferences.jsonl"


class Record:
    """The files of one debate, locked against other processes until it is closed.

    Make one with `create` or `open`.

    Attributes:
        folder: of the files.
        settings: as they were given to `create`.
        events: those that were there when it was opened.
    """

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder = folder
        self._lock = lock
        self.settings: Any = load_json(folder / SETTINGS)
        self.events: list[dict[str, Any]] = []
        end = 0
        path = folder / EVENTS
        for event, end in log_lines(path):  # noqa: B007
            self.events.append(event)
        if path.exists():
            os.truncate(path, end)  # a kill may have torn the last line
        self._count = len(self.events)

    @classmethod
    def create(cls, folder: Path, settings: Mapping[str, Any]) -> Record:
        """Begin a record.

        Raises:
            ValueError: the folder holds something, or the settings are no plain values.
        """
        require_new(folder, "--out")
        require_plain(dict(settings), SETTINGS)
        folder.mkdir(parents=True, exist_ok=True)
        lock = _locked(folder)
        try:
            write_text(folder / SETTINGS, json.dumps(settings, indent=1) + "\n")
            return cls(folder, lock)
        except BaseException:
            os.close(lock)
            raise

    @classmethod
    def open(cls, folder: Path) -> Record:
        """Go on with a record.

        Raises:
            FileNotFoundError: there is none.
            ValueError: another process writes it, or a line is damaged.
            CheckpointError: its settings cannot be read.
        """
        if not (folder / SETTINGS).is_file():
            raise FileNotFoundError(
                f"{folder} holds no watched debate (there is no {SETTINGS}): --resume takes a "
                "folder that `maporl watch` made"
            )
        lock = _locked(folder)
        try:
            return cls(folder, lock)
        except BaseException:
            os.close(lock)
            raise

    def append(self, event: Mapping[str, Any]) -> None:
        """Add one event and bring it to the disk.

        Raises:
            OSError: disk full or not writable; the file then ends as before.
        """
        numbered = {"step": self._count + 1, **event}
        line = (json.dumps(numbered, allow_nan=False) + "\n").encode("ascii")
        with (self.folder / EVENTS).open("ab") as file:
            before = file.seek(0, os.SEEK_END)
            try:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self.folder / EVENTS, before)
                raise
        self._count += 1

    def write(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Replace one of the files that are made of the events; none is made of no rows."""
        path = self.folder / name
        if rows or path.exists():
            write_text(path, "".join(json.dumps(row) + "\n" for row in rows))

    def close(self) -> None:
        """Release the files."""
        os.close(self._lock)

    def __enter__(self) -> Record:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _locked(folder: Path) -> int:
    try:
        return acquire(folder)
    except ValueError as error:
        raise ValueError(
            f"{folder} is being watched already, or is not ours to write: use the page of the "
            "process that watches it, or stop that process"
        ) from error
