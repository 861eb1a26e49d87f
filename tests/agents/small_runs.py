"""Trainings of a few small steps, from the command line and from Python."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from maporl_agents import cli
from maporl_agents.config import EvalConfig, PPOConfig, Sampling, TrainConfig
from maporl_agents.records import checkpoint_folder
from maporl_agents.training import loop

SIZES: dict[str, Any] = {
    "steps": 3,
    "questions_per_step": 3,
    "checkpoint_every": 1,
    "sampling": Sampling(max_new_tokens=4),
    "eval": EvalConfig(questions=6),
}
"""Settings of a run of any scheme that takes a moment."""
SMALL = TrainConfig(
    name="run",
    steps=6,
    questions_per_step=2,
    checkpoint_every=1,
    eval=EvalConfig(questions=2),
    ppo=PPOConfig(minibatches=1),
)


def maporl(*argv: object) -> int:
    """Run the command line here; return its exit code."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in argv])
    return int(stop.value.code or 0)


def cut_and_resumed(
    monkeypatch: pytest.MonkeyPatch, flags: Sequence[object], *, killed_in: int
) -> list[int]:
    """Train a run named x in the folder "cut", kill it in a step, counted from 1, and resume it.

    Returns:
        The steps that were begun, from 0, in both.
    """
    take_step, begun = loop.take_step, []

    def killed(*args: Any) -> Any:
        begun.append(args[4])  # the step
        if len(begun) == killed_in:
            raise RuntimeError("killed")
        return take_step(*args)

    monkeypatch.setattr(loop, "take_step", killed)
    with pytest.raises(RuntimeError, match="killed"):
        maporl("train", *flags, "--runs", "cut")
    assert maporl("train", "--resume", "cut/x") == 0
    return begun


def wait_for_step(process: subprocess.Popen[str], folder: Path, step: int) -> None:
    """Return as soon as the run of a process has logged a step."""
    metrics = folder / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= step):
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.01)


def newest_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return every tensor of a run's newest checkpoint: policies, critics, optimiser."""
    newest = checkpoint_folder.latest(folder / "checkpoints")
    assert newest is not None
    return {
        f"{path.relative_to(newest)}:{name}": tensor
        for path in sorted(newest.rglob("*.safetensors"))
        for name, tensor in checkpoint_folder.load_tensors(path).items()
    }
