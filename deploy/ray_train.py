"""Train with Ray Train: its workers are the processes of one run.

    python deploy/ray_train.py --workers 2 --runs /shared/runs name=first steps=5 num_agents=2

Words NAME=VALUE are settings of `maporl_agents.train`, values as in JSON or plain text. The folder
of runs is one that all workers see. A run that is there goes on, so that Ray may start it again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def train(settings: dict[str, Any]) -> None:
    """Train in one worker; the others do the same."""
    import maporl_agents

    maporl_agents.train(**settings)


def value_of(text: str) -> Any:
    """Return a value as JSON reads it, or the text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def main() -> None:
    """Read the command line and start the workers."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gpu", action="store_true", help="a GPU for each worker")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("settings", nargs="*", help="NAME=VALUE")
    given = parser.parse_args()
    settings = {
        name: value_of(text) for name, _, text in (w.partition("=") for w in given.settings)
    }
    runs = given.runs.resolve()
    there = (runs / str(settings.get("name", "run")) / "config.json").is_file()
    trainer = TorchTrainer(
        train,
        train_loop_config=settings | {"runs": str(runs), "resume": there},
        scaling_config=ScalingConfig(num_workers=given.workers, use_gpu=given.gpu),
        torch_config=TorchConfig(backend="nccl" if given.gpu else "gloo"),
        run_config=RunConfig(
            name="maporl", storage_path=str(runs / ".ray"), failure_config=FailureConfig(0)
        ),
    )
    trainer.fit()


if __name__ == "__main__":
    main()
