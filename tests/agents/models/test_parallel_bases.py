"""Tests of the cores that a process takes: its own, and no more than the user allows."""

from __future__ import annotations

import pytest
import torch

from maporl_agents.models import parallel_bases


@pytest.mark.parametrize(
    ("machine", "variables", "num_bases", "threads"),
    [
        (8, {}, 1, 8),
        (8, {}, 3, 2),
        (8, {}, 20, 1),
        (8, {"MAPORL_CORES": "4"}, 1, 4),
        (8, {"OMP_NUM_THREADS": "1"}, 1, 1),
        (8, {"OMP_NUM_THREADS": "6"}, 2, 4),
        (8, {"OMP_NUM_THREADS": "4,2"}, 1, 8),  # levels of nested threads: no single number
        (8, {"OMP_NUM_THREADS": ""}, 1, 8),
    ],
)
def test_an_operator_takes_the_cores_of_its_base(
    machine: int,
    variables: dict[str, str],
    num_bases: int,
    threads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("MAPORL_CORES", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(parallel_bases, "_available", lambda: machine)
    taken: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    parallel_bases.share_cores(num_bases)
    assert taken == [threads]


def test_cores_that_the_system_withholds_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAPORL_CORES", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {3, 5}, raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert parallel_bases.cores() == 2
