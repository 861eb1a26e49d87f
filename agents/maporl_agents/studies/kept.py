"""Figures of finished jobs without their weights, in a folder that may go into a repository.

A job whose figures are there counts as done, on any machine, and is not carried out again. If
another measurement of it is wanted later, its team is made anew, for its weights were not kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from maporl_agents.studies.jobs import Job, missing

PATTERNS = (
    *("job.json", "versions.json", "cost.json", "run/metrics.jsonl", "run/versions.json"),
    "measures/*.json",
)
"""What is kept of a job's folder; last what tells that it is finished."""


def bring(jobs: Sequence[Job], kept: Path, root: Path) -> int:
    """Copy the figures of jobs that are kept to where jobs are carried out; return how many."""
    count = 0
    for job in jobs:
        there, here = kept / job.key, root / job.key
        if there.is_dir() and missing(job, here) and not missing(job, there):
            _copy(there, here)
            count += 1
    return count


def keep(jobs: Sequence[Job], root: Path, kept: Path) -> int:
    """Copy the figures of finished jobs to the folder where they are kept; return how many."""
    count = 0
    for job in jobs:
        here, there = root / job.key, kept / job.key
        if not missing(job, here) and missing(job, there):
            _copy(here, there)
            count += 1
    return count


def _copy(source: Path, target: Path) -> None:
    for file in _files(source):
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy.with_name(copy.name + ".part"))
        copy.with_name(copy.name + ".part").replace(copy)


def _files(folder: Path) -> Iterator[Path]:
    for pattern in PATTERNS:
        yield from sorted(folder.glob(pattern))
