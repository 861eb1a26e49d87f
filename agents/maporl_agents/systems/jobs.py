"""One job of the bench: a system on a task with one seed, prepared, set on validation, measured.

    <results>/<task>/<system>-<seed>.json     what came out, small; done is what is there
    <work>/<task>/<system>-<seed>/            the run on the way, removed when the job is done
    <work>/<task>/<system>-<seed>.error       the sentence with which it failed, until it succeeds
    <work>/<task>/rehearsal.json              tokens of one answer, and the time that tokens take

The only setting that is chosen is the temperature, on the validation questions, by every job for
itself. Test questions are asked once, with it.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from maporl_agents.records.storage import load_json, write_text
from maporl_agents.records.versions import versions
from maporl_agents.systems.catalogue import Inputs, system
from maporl_agents.systems.equal_tokens import (
    passes_for,
    passes_within,
    rehearsal,
    tokens_of_first,
)
from maporl_agents.systems.playing import untrained
from maporl_agents.systems.tasks import BenchTask, Marker, bench_task
from maporl_agents.systems.votes import accuracies

LAYOUT = 1
"""Version of the results' layout."""


@dataclass(frozen=True)
class BenchSettings:
    """What all jobs of a bench have in common; results of other settings are other results.

    Attributes:
        questions: of the test split, asked by every system and seed.
        validation: questions of the validation split, on which the temperature is chosen.
        answers: the budget per test question, as a number of single answers and their tokens.
        train_scale: times the training budget of each task.
        temperatures: to choose from, the first of equally good ones.
        model: plays all tasks in place of the built-in models: a folder, a hub name, or the address
            of an endpoint, URL,model=NAME. "" for the built-in ones.
    """

    questions: int = 100
    validation: int = 40
    answers: int = 6
    train_scale: float = 1.0
    temperatures: tuple[float, ...] = (1.0, 0.5)
    model: str = ""

    def __post_init__(self) -> None:
        for name in ("questions", "validation", "answers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} of the bench must be at least 1")
        if not self.temperatures or min(self.temperatures) <= 0 or self.train_scale <= 0:
            raise ValueError("temperatures, at least one, and train_scale must be above 0")

    def task(self, name: str) -> BenchTask:
        """Return a task as it is played here.

        Raises:
            ValueError: there is no such task, or nothing says which model plays it.
        """
        found = bench_task(name)
        if self.model:
            return found.played_by(self.model)
        if not found.models:
            raise ValueError(f"task {name!r} is played by no built-in model: name one by --model")
        return found


@dataclass(frozen=True, order=True)
class BenchJob:
    """A system on a task with one seed."""

    task: str
    system: str
    seed: int

    @property
    def path(self) -> str:
        """Place of its files below a folder, without an ending."""
        return f"{task_folder(self.task)}/{self.system}-{self.seed}"


def task_folder(task: str) -> str:
    """Return the name of the folder of a task's jobs."""
    return "".join(c if c.isalnum() or c in "-_=." else "_" for c in task)


@dataclass(frozen=True)
class BenchResult:
    """What came out of a job.

    Attributes:
        task: as in the job.
        system: likewise.
        seed: likewise.
        settings: those of the bench.
        temperature: that was chosen.
        validation: accuracy on the validation questions by temperature.
        tokens: generated per test question by the first k = 1, 2, ... passes.
        right: the expected accuracy of the first k passes on each test question, in their order.
        budget: tokens per question that were allowed.
        train_tokens: generated before the test, in training or to fit a router.
        seconds: of the processor.
        made_by: versions of packages and commit.
        layout: see `LAYOUT`.
    """

    task: str
    system: str
    seed: int
    settings: dict[str, Any]
    temperature: float
    validation: dict[str, float]
    tokens: tuple[float, ...]
    right: tuple[tuple[float, ...], ...]
    budget: float
    train_tokens: int
    seconds: float
    made_by: dict[str, Any]
    layout: int = LAYOUT

    def to_text(self) -> str:
        """Return the result as JSON, a line for each k."""
        plain = asdict(self)
        rows = [json.dumps([_short(one) for one in row]) for row in plain.pop("right")]
        head = json.dumps(plain, indent=1)[:-2]
        return head + ',\n "right": [\n  ' + ",\n  ".join(rows) + "\n ]\n}\n"

    @classmethod
    def read(cls, path: Path) -> BenchResult:
        """Return the result in a file.

        Raises:
            ValueError: it holds something else, or another layout.
            CheckpointError: it cannot be read.
        """
        data = load_json(path)
        names = {field.name for field in fields(cls)}
        if not isinstance(data, dict) or set(data) != names or data["layout"] != LAYOUT:
            raise ValueError(f"{path} holds no result of this bench: remove it, it is made again")
        right = tuple(tuple(float(one) for one in row) for row in data["right"])
        return cls(**{**data, "tokens": tuple(data["tokens"]), "right": right})


def _short(value: float) -> float | int:
    return int(value) if value == int(value) else round(value, 4)


def result_path(results: Path, job: BenchJob) -> Path:
    """Return the file of a job's result."""
    return results / f"{job.path}.json"


def is_done(results: Path, job: BenchJob, settings: BenchSettings) -> bool:
    """Return whether a job's result is there.

    Raises:
        ValueError: it was made by other settings.
    """
    path = result_path(results, job)
    if not path.is_file():
        return False
    made = BenchResult.read(path).settings
    if made != as_plain(settings):
        differing = sorted(
            name for name, one in as_plain(settings).items() if made.get(name) != one
        )
        raise ValueError(
            f"{path} was made with other settings ({', '.join(differing)}): name another folder by "
            "--results, or give the same settings"
        )
    return True


def as_plain(settings: BenchSettings) -> dict[str, Any]:
    """Return settings as JSON values."""
    return {**asdict(settings), "temperatures": list(settings.temperatures)}


def all_jobs(
    tasks: Sequence[str], systems: Sequence[str], seeds: Sequence[int], settings: BenchSettings
) -> list[BenchJob]:
    """Return the jobs of the systems that fit, task by task, in each all systems seed by seed."""
    return [
        BenchJob(task, name, seed)
        for task in tasks
        for seed in seeds
        for name in systems
        if not system(name).refusal(settings.task(task))
    ]


# --- Time ---------------------------------------------------------------------------

TRAINING_FACTOR = 2.0
"""Time of a token that is trained on, in times of one that a rehearsal generates: MAPoRL on
`shopping` takes 26 s where this makes 30."""
START_SECONDS = 0.5
"""Processor seconds to prepare any job; untrained ones take 1.4 s each with all they play."""


def expected_seconds(
    job: BenchJob, task: BenchTask, settings: BenchSettings, rehearsed: dict[str, float]
) -> float:
    """Return the processor seconds of a job, roughly."""
    what = system(job.system)
    asked = settings.questions + settings.validation * len(settings.temperatures)
    passes = passes_for(settings.answers, what.messages)
    each = what.messages * min(passes, what.most or passes)
    played = asked * each * rehearsed["tokens"]
    learnt = what.trained * task.train_tokens * settings.train_scale * TRAINING_FACTOR
    return START_SECONDS + (played + learnt) / 1_000 * rehearsed["seconds"]


# --- Carrying out -------------------------------------------------------------------


def carry_out(job: BenchJob, settings: BenchSettings, results: Path, work: Path) -> BenchResult:
    """Carry out a job and write its result; one that is there is only read.

    Raises:
        ValueError: the system does not fit the task, or a verifier failed.
    """
    if is_done(results, job, settings):
        return BenchResult.read(result_path(results, job))
    began = time.process_time()
    task, what = settings.task(job.task), system(job.system)
    if reason := what.refusal(task):
        raise ValueError(f"system {job.system!r} does not fit task {job.task!r}: {reason}")
    folder = work / job.path
    folder.mkdir(parents=True, exist_ok=True)
    rehearsed = rehearsal(task, settings.validation, work / task_folder(task.name))
    budget = settings.answers * rehearsed["tokens"]
    validation = task.questions("validation", settings.validation)
    train_tokens = round(task.train_tokens * settings.train_scale)
    made = what.prepare(Inputs(untrained(task), job.seed, folder, validation, train_tokens))
    marker = Marker(task)
    scores: dict[float, float] = {}
    for temperature in settings.temperatures:
        tried = passes_within(budget, made, what, validation, temperature, (job.seed, "validation"))
        [*_, last] = accuracies(tried, validation, marker.right, what.combine)
        scores[temperature] = sum(last) / len(last)
    temperature = max(settings.temperatures, key=lambda one: scores[one])
    asked = task.questions("test", settings.questions)
    said = passes_within(budget, made, what, asked, temperature, (job.seed, "test"))
    result = BenchResult(
        job.task,
        job.system,
        job.seed,
        as_plain(settings),
        temperature,
        {str(one): round(score, 4) for one, score in scores.items()},
        tuple(round(one, 2) for one in tokens_of_first(said)),
        tuple(map(tuple, accuracies(said, asked, marker.right, what.combine))),
        round(budget, 2),
        made.train_tokens,
        round(time.process_time() - began, 1),
        _versions(),
    )
    path = result_path(results, job)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, result.to_text())
    return result


def _versions() -> dict[str, Any]:
    known = versions()
    packages = {name: known["packages"].get(name) for name in ("torch", "transformers", "numpy")}
    return {"commit": known["commit"], "python": known["python"], "packages": packages}


# --- Locks and errors ---------------------------------------------------------------


@contextmanager
def taken(work: Path, job: BenchJob) -> Iterator[bool]:
    """Try to take a job; yields whether no other process has it."""
    place = work / f"{job.path}.lock"
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def note_error(work: Path, job: BenchJob, sentence: str) -> None:
    """Keep the sentence with which a job failed."""
    path = work / f"{job.path}.error"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, " ".join(sentence.split())[:500] + "\n")


def error_of(work: Path, job: BenchJob) -> str:
    """Return the sentence with which a job failed last; "" for none."""
    path = work / f"{job.path}.error"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def tidy(work: Path, job: BenchJob) -> None:
    """Remove what a finished job left on the way."""
    shutil.rmtree(work / job.path, ignore_errors=True)
    (work / f"{job.path}.error").unlink(missing_ok=True)
