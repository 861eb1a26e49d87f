"""``maporl compare systems``: every system on every task of the bench, at equal tokens."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from maporl_agents.terminal import console

if TYPE_CHECKING:
    from rich.console import Console

    from maporl_agents.systems.jobs import BenchJob, BenchSettings
    from maporl_agents.systems.page import Bench

WORD = "systems"
"""What `maporl compare` is followed by."""


@dataclass(frozen=True)
class CompareSystems:
    """Compare ways to collaborate, trained and not, at equal generated tokens per question.

    A job is one system on one task with one seed. Finished jobs are kept as small files and not run
    again; a job that was cut goes on. Says how long it will take before it begins, and
    writes one page, RESULTS/../systems.html. Examples:

    maporl compare systems --dry-run

    maporl compare systems --only 'shopping/*' '*/vote' --seeds 0 1 2 3 4 5 6 7 8 9

    maporl compare systems --model Qwen/Qwen2.5-0.5B-Instruct --questions 200

    maporl compare systems --model http://127.0.0.1:8000/v1,model=qwen
    """

    only: tuple[str, ...] = ()
    """Only these jobs: patterns of task/system, in which * stands for anything, or names of
    systems."""
    tasks: tuple[str, ...] = ()
    """Tasks, by default those of the bench; any other task by its name with --model, as in
    reasoning_gym:chain_sum."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of training and sampling; ten where three hide the answer."""
    model: str = ""
    """Play with this model in place of the built-in ones: a folder, a Hugging Face hub name, or
    URL,model=NAME of an OpenAI-compatible endpoint, which plays the untrained systems."""
    questions: int = 100
    """Test questions that every system answers with every seed."""
    validation_questions: int = 40
    """Validation questions on which the temperature is chosen."""
    answers: int = 6
    """Budget of tokens per test question, as the number of single answers that take as many."""
    train_scale: float = 1.0
    """Times the training budget of every task."""
    jobs: int = 1
    """Processes at once, one core each."""
    results: Path = Path("runs/systems/results")
    """Folder of the results, small files which a repository can hold."""
    work: Path = Path("runs/systems/work")
    """Folder of what is on the way."""
    keep_runs: bool = False
    """Keep the folders of trained teams, with their weights."""
    page: Path | None = None
    """File of the page; by default systems.html beside the folder of results."""
    docs: Path | None = None
    """Also write the page as this Markdown file, and its plots to the folder of its name."""
    dry_run: bool = False
    """Only list the jobs and how long they would take."""
    collect: bool = False
    """Run nothing: make the pages of what is there."""

    def __call__(self) -> int:
        """Run the command; return the exit code: 1 if a job failed."""
        from maporl_agents.systems.jobs import BenchSettings, error_of, is_done
        from maporl_agents.systems.workers import Queue, run

        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise ValueError(f"give every seed once, at least one, not {list(self.seeds)}")
        screen = console()
        settings = BenchSettings(
            self.questions,
            self.validation_questions,
            self.answers,
            self.train_scale,
            model=self.model,
        )
        planned = self._planned(settings)
        todo = [job for job in planned if not is_done(self.results, job, settings)]
        screen.print(f"{len(planned)} jobs, {len(planned) - len(todo)} of them done before")
        if todo and not self.collect:
            self._say_time(todo, settings, screen)
            if self.dry_run:
                for job in todo:
                    screen.print(f"  {job.task} {job.system} seed {job.seed}", highlight=False)
                return 0
            queue = Queue(settings, tuple(todo), self.results, self.work, self.keep_runs)
            run(queue, self.jobs, _teller(screen, len(todo)))
        if self.dry_run:
            return 0
        said = {job: error_of(self.work, job) for job in todo}
        errors = {job: sentence for job, sentence in said.items() if sentence}
        self._write(settings, planned, errors, screen)
        return 1 if errors else 0

    def _planned(self, settings: BenchSettings) -> list[BenchJob]:
        """Return all jobs; ValueError for a pattern that none matches."""
        from maporl_agents.systems.catalogue import SYSTEMS
        from maporl_agents.systems.jobs import all_jobs

        every = all_jobs(self._tasks(), tuple(SYSTEMS), self.seeds, settings)
        for pattern in self.only:
            if not any(_matches(job, pattern) for job in every):
                raise ValueError(
                    f"no job is called {pattern!r}: give task/system, with tasks "
                    f"{', '.join(self._tasks())} and systems {', '.join(SYSTEMS)}"
                )
        return [job for job in every if not self.only or any(_matches(job, p) for p in self.only)]

    def _tasks(self) -> tuple[str, ...]:
        from maporl_agents.systems.tasks import FOR_MODELS, TASKS

        return self.tasks or (FOR_MODELS if self.model else tuple(TASKS))

    def _say_time(self, todo: Sequence[BenchJob], settings: BenchSettings, screen: Console) -> None:
        """Rehearse each task, and say how long all jobs will take."""
        from maporl_agents.systems.equal_tokens import rehearsal
        from maporl_agents.systems.jobs import expected_seconds, task_folder
        from maporl_agents.systems.playing import forget_models

        seconds = 0.0
        for name in dict.fromkeys(job.task for job in todo):
            task = settings.task(name)
            rehearsed = rehearsal(task, settings.validation, self.work / task_folder(task.name))
            own = [job for job in todo if job.task == name]
            part = sum(expected_seconds(job, task, settings, rehearsed) for job in own)
            seconds += part
            screen.print(
                f"  {name}: {len(own)} jobs, about {part / 60:.1f} core-minutes; an answer has "
                f"{rehearsed['tokens']:.1f} tokens",
                highlight=False,
            )
        forget_models()
        screen.print(
            f"about {seconds / 60:.0f} core-minutes, {seconds / 60 / self.jobs:.0f} minutes on "
            f"{self.jobs} free core{'s' * (self.jobs > 1)}"
        )

    def _write(
        self,
        settings: BenchSettings,
        planned: Sequence[BenchJob],
        errors: dict[BenchJob, str],
        screen: Console,
    ) -> None:
        from maporl_agents.records.storage import write_text
        from maporl_agents.systems.page import html_page, write_markdown

        bench = self._bench(settings, planned, errors)
        for job, sentence in errors.items():
            screen.print(f"failed: {job.path}: {sentence}", highlight=False, markup=False)
        if not bench.results:
            screen.print("no job is done yet, so there is no page")
            return
        path = self.page or self.results.parent / "systems.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, html_page(bench))
        screen.print(f"wrote {path}")
        if self.docs is not None:
            write_markdown(bench, self.docs)
            screen.print(f"wrote {self.docs}, and plots to {self.docs.with_suffix('')}")

    def _bench(
        self, settings: BenchSettings, planned: Sequence[BenchJob], errors: dict[BenchJob, str]
    ) -> Bench:
        from maporl_agents.systems.catalogue import SYSTEMS
        from maporl_agents.systems.jobs import BenchResult, is_done, result_path
        from maporl_agents.systems.page import Bench

        done = [job for job in planned if is_done(self.results, job, settings)]
        results = [BenchResult.read(result_path(self.results, job)) for job in done]
        tasks = {name: settings.task(name) for name in self._tasks()}
        refusals = {
            name: {one.name: why for one in SYSTEMS.values() if (why := one.refusal(task))}
            for name, task in tasks.items()
        }
        return Bench(settings, results, planned, errors, self._again(), refusals)

    def _again(self) -> str:
        """Return the command line that makes the same bench."""
        words = ["maporl compare systems"]
        for flag, value, usual in (
            ("--only", self.only, ()),
            ("--tasks", self.tasks, ()),
            ("--seeds", self.seeds, (0, 1, 2)),
            ("--model", self.model, ""),
            ("--questions", self.questions, 100),
            ("--validation-questions", self.validation_questions, 40),
            ("--answers", self.answers, 6),
            ("--train-scale", self.train_scale, 1.0),
        ):
            if value != usual:
                many = value if isinstance(value, tuple) else (value,)
                words.append(f"{flag} {' '.join(map(str, many))}")
        return " ".join(words)


def _matches(job: BenchJob, pattern: str) -> bool:
    name = f"{job.task}/{job.system}"
    return fnmatch.fnmatchcase(name, pattern) or job.system == pattern or job.task == pattern


def _teller(screen: Console, total: int):  # type: ignore[no-untyped-def]
    """Return what is told about finished jobs: it prints each once."""
    told: set[BenchJob] = set()

    def tell(done: Sequence[BenchJob]) -> None:
        for job in done:
            if job not in told:
                told.add(job)
                screen.print(
                    f"{len(told)} of {total}: {job.task} {job.system} seed {job.seed}",
                    highlight=False,
                )

    return tell
