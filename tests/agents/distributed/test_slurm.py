"""`deploy/slurm.sbatch` on a SLURM cluster of two nodes, both of them this machine.

On Debian: apt-get install slurm-wlm munge; pytest tests/agents/distributed/test_slurm.py
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from slurm_cluster import Cluster, cluster, missing
from small_runs import newest_weights
from test_faults import FLAGS, said

from maporl_agents.records import checkpoint_folder
from maporl_agents.records.run_log import read_metrics

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(bool(missing()), reason=f"not installed: {', '.join(missing())}"),
]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(RUNS=str(tmp_path), PROCESSES="1") as found:
        yield found


def wait_for_step(nodes: Cluster, job: str, folder: Path, step: int) -> None:
    """Return as soon as the run of a job has logged a step."""
    metrics = folder / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= step):
        assert nodes.told("squeue", "-h", "-j", job), nodes.output(job)
        time.sleep(0.05)


def test_a_job_of_two_nodes_ends_as_it_should_though_it_is_killed_or_stopped(
    nodes: Cluster, tmp_path: Path
) -> None:
    """One job loses a process, another is told to end and submitted again: the same result."""
    killed, stopped = tmp_path / "run", tmp_path / "other"
    job = nodes.submit(*FLAGS)
    wait_for_step(nodes, job, killed, 1)
    os.kill(nodes.process_of(job, 1), signal.SIGKILL)
    assert nodes.ended(job) == "COMPLETED", nodes.output(job)
    assert "resuming" in nodes.output(job)
    assert nodes.output(job).count("run folder:") == 1

    job = nodes.submit(*FLAGS, "--name", "other")
    wait_for_step(nodes, job, stopped, 1)
    nodes.told("scancel", "--signal=TERM", job)  # as `#SBATCH --signal` does: to steps alone
    assert nodes.ended(job) == "FAILED"
    assert nodes.output(job).count("stopped after step") == 1
    done = len(read_metrics(stopped))
    newest = checkpoint_folder.latest(stopped / "checkpoints")
    assert newest is not None
    assert checkpoint_folder.step_of(newest) == done < 5
    job = nodes.submit(*FLAGS, "--name", "other")
    assert nodes.ended(job) == "COMPLETED", nodes.output(job)

    expected, found = newest_weights(killed), newest_weights(stopped)
    assert all(torch.equal(expected[name], found[name]) for name in expected | found)
    assert said(killed) == said(stopped)
    assert len(read_metrics(killed)) == len(read_metrics(stopped)) == 5
