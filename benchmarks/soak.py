"""Soak: thousands of updates in one process; memory, open files and threads must not grow.

    .venv/bin/python benchmarks/soak.py                  # 2,000 updates of the tiny model
    .venv/bin/python benchmarks/soak.py --updates 200

Prints resident memory, open files and threads along the way. Ends with exit code 1 if, from the
first tenth of the updates on, memory grew by more than 2 %, a file or thread was left open, or a
metric or weight was not finite.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from maporl_agents.config import EvalConfig, GameConfig, PPOConfig, Sampling, TrainConfig
from maporl_agents.measure.step_metrics import Metrics
from maporl_agents.records.run_log import RunLog, read_metrics
from maporl_agents.training import experiment
from maporl_agents.training.make_game import training_questions

ALLOWED_GROWTH = 0.02


@dataclass(frozen=True)
class Sample:
    """The memory of the process after an update."""

    step: int
    seconds: float
    resident_mib: float
    open_files: int
    threads: int


def sample(step: int, begun: float) -> Sample:
    """Look at this process; Linux only."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(
        step,
        time.monotonic() - begun,
        pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        len(os.listdir("/proc/self/fd")),
        threading.active_count(),
    )


def soak(updates: int, folder: Path) -> tuple[list[Sample], bool]:
    """Train as `maporl train` does, one update a step; return samples and whether all is finite."""
    config = TrainConfig(
        name="soak",
        steps=updates,
        questions_per_step=1,
        checkpoint_every=max(updates // 20, 1),
        game=GameConfig(num_turns=2),
        sampling=Sampling(max_new_tokens=8),
        ppo=PPOConfig(minibatches=1, learning_rate=1e-5, critic_learning_rate=1e-4),
        eval=EvalConfig(questions=1),
    )
    _, learner = experiment.build(config)
    begun = time.monotonic()
    samples: list[Sample] = []
    every = max(updates // 100, 1)

    def on_step(step: int, _metrics: Metrics) -> None:
        if step % every == 0:
            samples.append(sample(step, begun))

    with RunLog.create(folder / "run", config) as log:
        questions = training_questions(config.game)
        experiment.train(config, learner, questions, log, on_step=on_step)
    numbers = [x for row in read_metrics(folder / "run") for x in row.values()]
    finite = all(x is not None and math.isfinite(x) for x in numbers)
    return samples, finite and all(torch.isfinite(p).all() for p in learner.parameter_names())


def growth(samples: list[Sample]) -> float:
    """Return the growth of memory, last tenth against the second tenth (medians), as a share."""
    tenth = max(len(samples) // 10, 1)
    settled, last = samples[tenth : 2 * tenth], samples[-tenth:]
    before = median(s.resident_mib for s in settled)
    return median(s.resident_mib for s in last) / before - 1


def main() -> int:
    """Run, print the table and the verdict; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=2000, help="at least 20")
    updates = parser.parse_args().updates
    if updates < 20:
        parser.error("--updates must be at least 20: the first tenth is not counted")
    with tempfile.TemporaryDirectory() as folder:
        samples, finite = soak(updates, Path(folder))
    print("| update | seconds | resident MiB | open files | threads |\n|---|---|---|---|---|")
    for s in samples[:: max(len(samples) // 10, 1)] + samples[-1:]:
        print(
            f"| {s.step} | {s.seconds:.0f} | {s.resident_mib:.1f} | {s.open_files} | {s.threads} |"
        )
    settled = samples[len(samples) // 10 :]
    grown = growth(samples)
    constant = len({(s.open_files, s.threads) for s in settled}) == 1
    print(
        f"\nmemory {grown:+.2%}; open files and threads {'constant' if constant else 'CHANGED'}; "
    )
    print("every metric and weight finite" if finite else "NOT FINITE: a metric or weight")
    return 0 if grown <= ALLOWED_GROWTH and constant and finite else 1


if __name__ == "__main__":
    sys.exit(main())
