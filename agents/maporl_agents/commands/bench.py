"""``maporl bench env | table``: anyone's agents on the environment benchmark, and its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from maporl_agents.terminal import console
from maporl_env import benchmark
from maporl_env.benchmark import Case, Report
from maporl_env.benchmark.scoring import kept_cases, told_of_file
from maporl_env.benchmark.tables import tables_of_files
from maporl_env.user_functions import whole_name

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Env:
    """Score agents on the fixed suite of debates: prints results case by case and a table row.

    Every question of a case is debated once, by these agents alone. Team accuracy by
    turn, with 95 % intervals, scores, rewards and lengths go to the JSON file.
    docs/how-to/benchmark.md has the rules for comparing and the reference results. Examples:

    maporl bench env --agents majority

    maporl bench env --agents runs/maporl-shopping --out mine.json

    maporl bench env --agents my_agents:answer --cases 'coins/*'
    """

    agents: str = ""
    """Agents that play: keep, majority, best, oracle or random (scripted); the folder of a run;
    tiny, tiny-sharing or tiny-sharing-qwen2 (built in); a folder or hub name of a model; or
    MODULE:FUNCTION or FILE.py:FUNCTION, a function that takes the list of what agents read and
    returns as many texts (the module is looked for in this folder, too)."""
    cases: tuple[str, ...] = ()
    """Only these cases; * stands for anything, as in 'sharing/*'. All by default."""
    list: bool = False
    """Only list the cases."""
    out: Path | None = None
    """JSON of the results, kept after every case: the same command goes on where it was cut."""
    overwrite: bool = False
    """Begin the file anew."""
    name: str = ""
    """Label of the row; by default what --agents says."""
    temperature: float | None = None
    """Of models; 0 is greedy. By default a run's own, else 1."""
    max_new_tokens: int = 0
    """Of models, for each message; 0 takes a run's own, else 32 for built-in models, else 300."""
    transfer: bool = False
    """Let a run also play cases of other tasks and protocols than those it was trained for."""

    verifier: str = ""
    """Fill the column "score" by this verifier in place of the suite's, e.g. your own as
    module:function or file.py:function. Accuracy and reward stay the suite's."""

    def __call__(self, console: Console) -> int:
        """Run the command; return the exit code."""
        if self.list:
            console.print(benchmark.listing())
            return 0
        if not self.agents:
            raise ValueError("who is to play? Give --agents, or --list to see the cases")
        from maporl_agents.bridges.bench_players import players_of
        from maporl_agents.training.make_game import make_verifier

        cases = benchmark.choose_cases(self.cases)
        players = players_of(
            self.agents,
            label=self.name,
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
            transfer=self.transfer,
        )
        kept = kept_cases(self.out, self.overwrite)
        played = tuple(case for case in cases if not players.refusal(case))
        with progress_bar(played, console) as watch:
            report = benchmark.score(
                players,
                cases,
                out=self.out,
                overwrite=self.overwrite,
                watch=watch,
                verifier=make_verifier(self.verifier) if self.verifier else None,
                verifier_name=whole_name(self.verifier),
            )
        show(report, console)
        if self.out is not None:
            print(f"\n{told_of_file(self.out, kept, report)}")
        return 0


@dataclass(frozen=True)
class Table:
    """Make the tables of results that `maporl bench env --out` wrote.

    Example: maporl bench table keep.json mine.json --docs page.md
    """

    results: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RESULTS ...]")
    ]
    """Files of results, one row each."""
    docs: Path | None = None
    """Also put the tables between the markers of this page of Markdown."""
    against: Path | None = None
    """Instead: by how much each is better than the results of this file, case by case, paired by
    question."""

    def __call__(self, console: Console) -> int:
        """Run the command; return the exit code."""
        print(tables_of_files(self.results, docs=self.docs, against=self.against))
        return 0


Action = (
    Annotated[Env, tyro.conf.subcommand("env")] | Annotated[Table, tyro.conf.subcommand("table")]
)


@dataclass(frozen=True)
class Bench:
    """Score anyone's agents on the environment benchmark, and make its tables."""

    action: Annotated[Action, tyro.conf.arg(name="")]

    def __call__(self) -> int:
        """Run the command; return the exit code."""
        return self.action(console())


@contextmanager
def progress_bar(
    cases: tuple[Case, ...], console: Console
) -> Iterator[Callable[[Case, int], None]]:
    """Show questions done and time left; yields what is told about progress."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("questions", total=sum(case.num_questions for case in cases))
        before: dict[str, int] = {}

        def watch(case: Case, done: int) -> None:
            new = done - before.get(case.name, 0)
            before[case.name] = done
            progress.update(task, advance=new, description=case.name)
            if done == case.num_questions and not console.is_terminal:
                console.print(f"{case.name}: {done} questions done")

        yield watch


def show(report: Report, console: Console) -> None:
    """Print the results case by case, what was not played, and the row of the table."""
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable(title=Text(f"{report.name}, {report.version}"), title_justify="left")
    for name in benchmark.CASE_HEADER:
        is_name = name == "case"
        width = max((len(case) for case in report.cases), default=0) if is_name else None
        table.add_column(name, justify="left" if is_name else "right", min_width=width)
    for row in benchmark.case_rows(report):
        table.add_row(*row)
    console.print(table)
    for case, reason in report.refused.items():
        console.print(Text(f"{case} was not played: {reason}"))
    console.print("\nThe row of the table of all agents (docs/how-to/benchmark.md):\n")
    print(f"{benchmark.table_header()}\n{benchmark.table_row(report)}")
