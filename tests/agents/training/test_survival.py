"""Runs that survive signals and kills."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from small_runs import maporl, newest_weights, wait_for_step

from maporl_agents.records import checkpoint_folder
from maporl_agents.records.run_log import read_metrics
from maporl_agents.training import experiment

REPOSITORY = Path(__file__).resolve().parents[3]


FLAGS = (
    *("--name", "run", "--steps", "6", "--questions-per-step", "2", "--checkpoint-every", "1"),
    *("--eval.questions", "2", "--ppo.minibatches", "1"),
)


def start_training(*argv: object) -> subprocess.Popen[str]:
    """Start ``maporl train`` in a process of its own."""
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "agents")])
    return subprocess.Popen(
        [sys.executable, "-m", "maporl_agents.cli", "train", *map(str, argv)],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, moments, metrics, sampled debates and results are bitwise the same."""
    for name in ("metrics.jsonl", "transcripts/train.jsonl", "results.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    mine, theirs = newest_weights(one), newest_weights(other)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert torch.equal(tensor, theirs[name]), name


def test_a_run_that_a_signal_ended_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise experiment.Interrupted(3, signal.SIGTERM)

    monkeypatch.setattr(experiment, "run", stopped)
    assert maporl("train", "--runs", tmp_path, *FLAGS) == 143
    shown = "".join(capsys.readouterr())
    assert "stopped after step 3" in shown
    assert "--resume" in shown


@pytest.mark.thorough
@pytest.mark.timeout(400)  # seconds; alone it takes about 15
def test_sigterm_saves_and_exits_143(tmp_path: Path) -> None:
    """E10, end to end: the running step is finished and saved, and can be gone on from."""
    folder = tmp_path / "run"
    flags = ("--runs", tmp_path, *FLAGS, "--steps", 10_000, "--checkpoint-every", 10_000)
    with start_training(*flags) as process:
        wait_for_step(process, folder, 1)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=120)  # one step and a checkpoint
    assert process.returncode == 143, out
    steps = len(read_metrics(folder))
    newest = checkpoint_folder.latest(folder / "checkpoints")
    assert newest is not None
    assert checkpoint_folder.step_of(newest) == steps
    assert f"stopped after step {steps}" in out
    assert "--resume" in out


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_any_moment_a_run_ends_bitwise_as_if_it_had_not_been(tmp_path: Path) -> None:
    """E2 and R2: SIGKILL at random times after each step, between and within steps."""
    chance = random.Random(0)
    flags = ("--runs", tmp_path / "killed", *FLAGS)
    folder = tmp_path / "killed" / "run"
    for step in range(1, 6):
        with start_training(*flags) as process:
            wait_for_step(process, folder, step)
            time.sleep(chance.uniform(0, 0.2))
            process.kill()
        flags = ("--resume", folder)
        if (
            checkpoint_folder.latest(folder / "checkpoints") is None
        ):  # killed before the first was whole
            flags = ("--runs", tmp_path / "killed", *FLAGS, "--overwrite")
    assert maporl("train", "--resume", folder) == 0
    assert maporl("train", "--runs", tmp_path / "whole", *FLAGS) == 0
    assert_same_run(tmp_path / "whole" / "run", folder)
