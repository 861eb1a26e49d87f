"""Carries out jobs of the bench side by side: processes that take the next job that nobody has.

A process of jobs is not ended by a job that fails: the sentence is kept and the next is taken. One
that is killed costs the job that it had, which is marked; another process takes its place.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from maporl_agents.records.storage import load_json, write_text
from maporl_agents.studies.job_pool import ONE_CORE, POLL_SECONDS
from maporl_agents.systems.jobs import (
    BenchJob,
    BenchSettings,
    carry_out,
    error_of,
    is_done,
    note_error,
    taken,
    tidy,
)
from maporl_agents.terminal import terminated_as_interrupt
from maporl_agents.training.loop import Interrupted

MAX_RESTARTS = 20
"""Processes that may be lost before the bench gives up."""


@dataclass(frozen=True)
class Queue:
    """What processes work on.

    Attributes:
        settings: of the bench.
        jobs: to be carried out, in this order.
        results: folder of results.
        work: folder of what is on the way.
        keep_runs: leave the folders of trained teams.
    """

    settings: BenchSettings
    jobs: tuple[BenchJob, ...]
    results: Path
    work: Path
    keep_runs: bool = False

    def save(self, path: Path) -> None:
        """Write the queue for other processes."""
        plain = {**asdict(self), "results": str(self.results), "work": str(self.work)}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(plain))

    @classmethod
    def read(cls, path: Path) -> Queue:
        """Inverse of `save`."""
        data = load_json(path)
        temperatures = tuple(data["settings"].pop("temperatures"))
        return cls(
            BenchSettings(**data["settings"], temperatures=temperatures),
            tuple(BenchJob(**one) for one in data["jobs"]),
            Path(data["results"]),
            Path(data["work"]),
            data["keep_runs"],
        )


def work_off(queue: Queue, now: Path | None = None) -> None:
    """Carry out all jobs that no other process has or had.

    Args:
        queue: the jobs.
        now: a file that holds the place of the job in hand in the queue, for whoever finds this
            process dead.

    Raises:
        Interrupted: a signal came; all that was done is saved.
    """
    for place, job in enumerate(queue.jobs):
        with taken(queue.work, job) as mine:
            done = is_done(queue.results, job, queue.settings)
            if not mine or done or error_of(queue.work, job):
                continue
            if now is not None:
                write_text(now, str(place))
            try:
                carry_out(job, queue.settings, queue.results, queue.work)
            except (Interrupted, KeyboardInterrupt):
                raise
            except Exception as error:
                traceback.print_exc()
                note_error(queue.work, job, f"{type(error).__name__}: {error}")
            else:
                if not queue.keep_runs:
                    tidy(queue.work, job)
            if now is not None:
                write_text(now, "")


def run(
    queue: Queue,
    workers: int,
    tick: Callable[[list[BenchJob]], None] = lambda done: None,
) -> dict[BenchJob, str]:
    """Carry out a queue in `workers` processes; return the sentences of jobs that failed.

    Jobs that failed before are tried again. `tick` is told the finished jobs again and again.

    Raises:
        KeyboardInterrupt: Ctrl-C; all that was done is saved.
        RuntimeError: processes die again and again.
    """
    if workers < 1:
        raise ValueError(f"jobs must be at least 1 at a time, not {workers}")
    for job in queue.jobs:
        (queue.work / f"{job.path}.error").unlink(missing_ok=True)
    path = queue.work / f"queue-{os.getpid()}.json"
    queue.save(path)
    running: dict[subprocess.Popen[bytes], Path] = {}
    restarts = 0
    try:
        with terminated_as_interrupt():
            for number in range(min(workers, len(queue.jobs))):
                _start(running, path, number)
            while running:
                time.sleep(POLL_SECONDS)
                for process in [one for one in running if one.poll() is not None]:
                    now = running.pop(process)
                    if process.returncode:
                        restarts += 1
                        _mark_lost(queue, now, process.returncode)
                        if restarts > MAX_RESTARTS:
                            raise RuntimeError(f"processes of jobs died {restarts} times")
                        _start(running, path, restarts + workers)
                tick(finished(queue))
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait()
        path.unlink(missing_ok=True)
        for now in queue.work.glob(f"now-{os.getpid()}-*"):
            now.unlink()
    return {job: said for job in queue.jobs if (said := error_of(queue.work, job))}


def finished(queue: Queue) -> list[BenchJob]:
    """Return the jobs of a queue whose result is there."""
    return [job for job in queue.jobs if is_done(queue.results, job, queue.settings)]


def _start(running: dict[subprocess.Popen[bytes], Path], queue: Path, number: int) -> None:
    now = queue.parent / f"now-{os.getpid()}-{number}"
    with (queue.parent / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "maporl_agents.systems.workers", str(queue), str(now)],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **ONE_CORE},
            start_new_session=True,  # Ctrl-C comes to it from here, once
        )
    running[process] = now


def _mark_lost(queue: Queue, now: Path, code: int) -> None:
    """Mark the job that a lost process had in hand; RuntimeError if it had none."""
    place = now.read_text(encoding="utf-8") if now.is_file() else ""
    if not place:
        said = (queue.work / "log.txt").read_text(encoding="utf-8", errors="replace")
        raise RuntimeError(f"a process of jobs ended with code {code}: {said[-500:].strip()}")
    note_error(queue.work, queue.jobs[int(place)], f"its process ended with code {code}")


def main(path: Path, now: Path) -> int:
    """Work off the queue in a file; return the exit code."""
    try:
        work_off(Queue.read(path), now)
    except Interrupted as stop:
        return 128 + stop.signal_number
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
