"""The run log of a process that writes no files: all but the first of a run of several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from maporl_agents.records.run_log import RunLog


class MutedLog(RunLog):
    """A run log that checks what it is given, and writes nothing.

    Args:
        folder: of the run, which the first process writes.
        config: a dataclass or dict of JSON values.
    """

    def __init__(self, folder: Path, config: Any) -> None:
        self.folder = folder
        self.config = config
        self.loggers = ()
        self.seen = 0
        self._step = 0

    def close(self) -> None:
        """Do nothing: there is no file to close."""

    def truncate_after(self, step: int) -> None:
        """Go on after `step`."""
        self._step = step

    def _append(self, name: str, lines: list[str]) -> None:
        pass

    def _replace(self, name: str, lines: list[str]) -> None:
        pass
