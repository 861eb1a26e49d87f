"""Runs the jobs of studies side by side, each in a process of its own on one core.

A job that fails or is killed ends no other. Ctrl-C tells all of them to save and end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from maporl_agents.config import scheme_of
from maporl_agents.records.run_log import read_metrics
from maporl_agents.records.storage import write_text
from maporl_agents.studies.jobs import Job, Recipe, missing
from maporl_agents.terminal import progress_of_steps, terminated_as_interrupt

POLL_SECONDS = 0.5
ONE_CORE = dict.fromkeys(("MAPORL_CORES", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
Command = Callable[[Path], list[str]]
"""The command line that carries out the job of a folder."""


def worker_command(folder: Path) -> list[str]:
    """Return the command of a job's own process."""
    return [sys.executable, "-m", "maporl_agents.studies.jobs", str(folder)]


@dataclass
class Running:
    """A job whose process is running."""

    job: Job
    folder: Path
    process: subprocess.Popen[bytes]


class Pool:
    """Runs jobs in `workers` processes at a time.

    Args:
        root: folder of all jobs.
        workers: how many processes at once.
        command: returns the command of a process; see `worker_command`.
        finished: told each job as it is finished.

    Attributes:
        errors: for every job that failed, by key, the last line it printed.
    """

    def __init__(
        self,
        root: Path,
        workers: int,
        command: Command = worker_command,
        *,
        finished: Callable[[Job], None] = lambda job: None,
    ) -> None:
        if workers < 1:
            raise ValueError(f"jobs must be at least 1 at a time, not {workers}")
        self.root = root
        self.workers = workers
        self.command = command
        self.finished = finished
        self.errors: dict[str, str] = {}
        self.running: list[Running] = []

    def run(self, jobs: Sequence[Job], tick: Callable[[Pool], None] = lambda pool: None) -> None:
        """Carry out the jobs; `tick` is called again and again meanwhile.

        Raises:
            KeyboardInterrupt: Ctrl-C; the running jobs have saved what they had.
        """
        waiting = [job for job in jobs if missing(job, self.root / job.key)]
        try:
            with terminated_as_interrupt():
                while waiting or self.running:
                    while waiting and len(self.running) < self.workers:
                        self._start(waiting.pop(0))
                    time.sleep(POLL_SECONDS)
                    self._collect()
                    tick(self)
        finally:
            self._stop()

    def _start(self, job: Job) -> None:
        folder = self.root / job.key
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "job.json", job.to_json())
        with (folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                self.command(folder),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **ONE_CORE},
                start_new_session=True,  # Ctrl-C comes to it from here, once
            )
        self.running.append(Running(job, folder, process))

    def _collect(self) -> None:
        for one in [one for one in self.running if one.process.poll() is not None]:
            self.running.remove(one)
            if one.process.returncode or missing(one.job, one.folder):
                self.errors[one.job.key] = last_line(one.folder / "log.txt")
            else:
                self.finished(one.job)

    def _stop(self) -> None:
        """Ask running jobs to save and end, and wait for them."""
        for one in self.running:
            one.process.send_signal(signal.SIGTERM)
        for one in self.running:
            one.process.wait()
        self.running = []


def last_line(log: Path) -> str:
    """Return the last line of a log that is not empty: for a traceback, the error itself."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


# --- While it runs ------------------------------------------------------------------


def progress_of(one: Running) -> tuple[int, int, str]:
    """Return (steps done, steps in all, a few words) on the state of a running job."""
    steps = one.job.config.steps
    run = one.folder / "run"
    rows = read_metrics(run) if (run / "metrics.jsonl").is_file() else []
    if one.job.recipe.method == "none" or (run / "results.json").is_file():
        left = len(missing(one.job, one.folder))
        return steps, steps, f"{left} measurements left"
    if not rows:
        return 0, steps, "starting"
    scores = [value for name, value in rows[-1].items() if name.startswith("score/")]
    return rows[-1]["step"], steps, " ".join(f"{x:.2f}" for x in scores if x is not None)


@contextmanager
def progress_view(console: Console, total: int) -> Iterator[Callable[[Pool], None]]:
    """Show a line for all jobs and one for each that runs; yields what `Pool.run` calls."""
    with progress_of_steps("{task.description}", console=console, bar_width=20) as progress:
        whole = progress.add_task("jobs", total=total, now="")
        lines: dict[str, int] = {}
        started = 0

        def tick(pool: Pool) -> None:
            nonlocal started
            running = {one.job.key: one for one in pool.running}
            for key in [key for key in lines if key not in running]:
                progress.remove_task(lines.pop(key))  # type: ignore[arg-type]
                if not console.is_terminal:
                    console.print(f"{key} {'failed' if key in pool.errors else 'done'}")
            for key, one in running.items():
                if key not in lines:
                    lines[key] = progress.add_task(title_of(one.job), now="")
                    started += 1
                done, steps, now = progress_of(one)
                progress.update(lines[key], completed=done, total=steps, now=now)  # type: ignore[arg-type]
            failed = f"{len(pool.errors)} failed" if pool.errors else ""
            progress.update(whole, completed=started - len(running), now=failed)

        yield tick


def title_of(job: Job) -> str:
    """Return a few words that tell a job from others."""
    return f"{job.config.game.task}, {made(job.recipe)}, seed {job.seed} ({job.key[:6]})"


def made(recipe: Recipe) -> str:
    """Return the name of the way a team is made, in a word or two."""
    if recipe.method == "ppo":
        return (
            "trained alone" if getattr(recipe.config, "single_agent", False) else "trained together"
        )
    names = {
        "none": "untrained",
        "sft": "imitation",
        "magrpo": "MAGRPO",
        "malt": "MALT",
        "iac": "IAC",
        "grpo": "GRPO",
    }
    return names.get(recipe.method) or Path(scheme_of(recipe.config)).name
