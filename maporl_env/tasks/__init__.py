"""Tasks: questions in named splits, and the template that words them. `load_task` is in `by_name`.

One module per task; data sets that others have published are in `published`, questions that a
scripted user asks in `dialogues`.
"""

from maporl_env.tasks.base import Task
from maporl_env.tasks.by_name import BUILT_IN, TASKS, load_task

__all__ = ["BUILT_IN", "TASKS", "Task", "load_task"]
