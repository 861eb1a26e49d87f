"""Language-model agents that speak in `maporl_env` and are trained by it.

    import maporl_agents
    run = maporl_agents.train(task=questions, model=(model, tokenizer), verifier=reward, steps=10)

`train`, `evaluate` and `load_team` are the Python entry; see `maporl_agents.training.python_entry`.
They are imported when they are first asked for: `import maporl_agents` alone costs nothing, and
each module only what it needs itself. To read the code, start at `maporl_agents.algorithms`, one
training loop per file; `maporl_agents.types` says what flows between its steps. Install with
`pip install 'maporl[train]'`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from maporl_env import moved_modules as _moved_modules

if TYPE_CHECKING:
    from maporl_agents.training.python_entry import Run, evaluate, load_team, train

__all__ = ["Run", "evaluate", "load_team", "train"]

_moved_modules.forward(
    "maporl_agents",
    {
        "bases": "models.bases",
        "chat": "text.chat",
        "checkpoint": "records.checkpoint_folder",
        "experiment": "training.experiment",
        "learner": "update.optimiser",
        "loading": "models.loading",
        "lora": "models.lora",
        "ranks": "distributed",
        "rollout": "play.rollout",
        "runlog": "records.run_log",
        "sampler": "play.local_engine",
        "service_queue": "verifier.service_queue",
        "team": "models.team",
    },
)


def __getattr__(name: str) -> Any:
    if name in __all__:
        from maporl_agents.training import python_entry

        return getattr(python_entry, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
