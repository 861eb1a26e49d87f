"""``maporl compare``: carry out studies and show their results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from maporl_agents.terminal import console


@dataclass(frozen=True)
class Compare:
    """Carry out studies: many trainings and controls with several seeds, then one table.

    What was finished before is not run again, and what was cut goes on where it was. Writes
    runs/studies/STUDY/study.json; ``maporl report runs/studies/STUDY`` makes a page of it.
    ``maporl compare systems``, with options of its own, compares all ways to collaborate.
    """

    studies: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[STUDY ...]")
    ] = ()
    """Names of studies; "all" for those of the built-in models, "smollm2" for those of a real one,
    which take hours; or a scheme of your own as module:name or file.py:name, which is
    compared with MAPoRL and with the untrained team on its own game."""
    list: bool = False
    """Only explain the studies: claim, arms, expected core-minutes."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One result per seed; intervals are over them."""
    quick: bool = False
    """Tiny trainings that show that everything runs; the figures mean nothing."""
    jobs: int = 0
    """Processes at once, one core each; 0 takes one per core."""
    runs: Path = Path("runs")
    """Folder of all runs."""
    kept: Path | None = None
    """Folder of the figures of finished jobs, without weights: what is there is not run again, and
    what is finished is copied to it, so that a repository can hold it."""
    collect: bool = False
    """Run nothing: put together what is there, and say what is missing."""
    docs: Path | None = None
    """Write a summary of all finished studies (of "smollm2", where its studies are named) to this
    Markdown file, and their tables and plots to the folder of the same name beside it."""

    def __call__(self) -> int:
        """Run the command; return the exit code: 1 if a job failed."""
        from maporl_agents.models.parallel_bases import cores
        from maporl_agents.studies.carry_out import compare, explain, finished
        from maporl_agents.studies.catalogue import groups, known, study
        from maporl_agents.studies.page import write_pages

        screen = console()
        named = groups()
        [only, *others] = self.studies or ("",)
        names = self.studies if others else named.get(only, self.studies)
        plans = [study(name) for name in names]
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise ValueError(f"give every seed once, at least one, not {list(self.seeds)}")
        if self.list:
            explain(screen, plans or [study(name) for name in known()], self.seeds)
            return 0
        if not plans and self.docs is None:
            raise ValueError(
                f"name a study: {', '.join(known())}, all, or smollm2; --list explains them"
            )
        errors: dict[str, str] = {}
        for name, plan in zip(names, plans, strict=True):
            errors |= compare(
                plan.quick() if self.quick else plan,
                self.seeds,
                self.runs,
                screen,
                workers=self.jobs or cores(),
                command=self._again(name),
                kept=self.kept,
                collect=self.collect,
            )
        if self.docs is not None:
            real = bool(names) and set(names) <= set(named["smollm2"])
            write_pages(self.docs, finished(self.runs, named["smollm2" if real else "all"]))
            tables = self.docs.with_suffix("")
            screen.print(f"wrote {self.docs}, and tables and plots to {tables}")
        return 1 if errors else 0

    def _again(self, name: str) -> str:
        """Return the command line that carries out one study again."""
        from maporl_agents.studies.catalogue import DEFAULT_SEEDS

        seeds = "" if self.seeds == DEFAULT_SEEDS else f" --seeds {' '.join(map(str, self.seeds))}"
        return f"maporl compare {name}{seeds}{' --quick' if self.quick else ''}"
