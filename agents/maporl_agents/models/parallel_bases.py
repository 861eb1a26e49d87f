"""Runs the work of several base models at once, a thread each, on CPUs with free cores.

Policies on different base models share nothing, so on a CPU their forward and backward passes run
in one thread each (torch releases the interpreter lock inside its operators). The results do not
depend on it: every job has its own parameters and its own generator.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return ``[work(item) for item in items]``, computed in threads where cores are free.

    `work` must set its own grad mode: torch keeps it per thread. An exception is raised here.
    """
    workers = min(len(items), free_cores())
    if workers < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(copy_context().run, work, item) for item in items]
        return [job.result() for job in jobs]


def cores() -> int:
    """Return ``MAPORL_CORES`` if set, else the cores that this process may run on.

    Processes of one run on a machine, of which a launcher tells the number, have equal shares.
    """
    shares = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return int(os.environ.get("MAPORL_CORES", 0)) or max(1, _available() // shares)


def _available() -> int:
    """Return the number of cores that the system lets this process run on."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_cores() -> int:
    """Return the number of operators that can run at once: cores over threads per operator."""
    return cores() // torch.get_num_threads()


def share_cores(num_bases: int) -> None:
    """Give each base its share of the cores; called once by the command line.

    An operator never takes more threads than ``OMP_NUM_THREADS`` allows.
    """
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    most = int(allowed) if allowed.isdecimal() and int(allowed) else cores()
    torch.set_num_threads(min(most, max(1, cores() // max(num_bases, 1))))
