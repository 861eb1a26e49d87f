"""Tasks by name, by file, or as a list of questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from maporl_env.tasks import shopping
from maporl_env.tasks.base import Task
from maporl_env.types import Question

TASKS: dict[str, Callable[..., Task]] = {"shopping": shopping.load}


def load_task(task: str | Path | Sequence[Question] | Task, data: str | None = None) -> Task:
    """Return a task."""
    if isinstance(task, Task):
        return task
    return TASKS[str(task)]()
