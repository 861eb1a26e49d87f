"""The run folder of several processes: the first writes it, with its loggers; others are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from maporl_agents import distributed
from maporl_agents.config import RunConfig
from maporl_agents.records.loggers import make_loggers
from maporl_agents.records.muted_log import MutedLog
from maporl_agents.records.run_log import RunLog


def log_of(open_log: Callable[[], RunLog], folder: Path, config: Any) -> RunLog:
    """Return the run log that `open_log` opens, on the first rank; a muted one on the others."""
    return open_log() if distributed.is_first() else MutedLog(folder, config)


def add_loggers(log: RunLog, config: RunConfig, log_to: Sequence[str]) -> None:
    """Send the metrics of a run to further loggers as well, on the first rank."""
    if distributed.is_first():
        log.loggers += make_loggers(log_to, config.name, log.config, log.folder, log.seen)


@contextmanager
def from_first(find: Callable[[], Path | None]) -> Iterator[Path | None]:
    """Yield the folder that the first rank finds; to the others a copy of it, under its name.

    So the others need not see the disk of the first. None where there is no folder.
    """
    if distributed.count() == 1:
        yield find()
        return
    found = find() if distributed.is_first() else None
    shared = distributed.first(lambda: None if found is None else (found.name, _files(found)))
    if shared is None or distributed.is_first():
        yield found
        return
    name, files = shared
    with TemporaryDirectory() as parent:
        for path, content in files.items():
            target = Path(parent) / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        yield Path(parent) / name


def _files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
