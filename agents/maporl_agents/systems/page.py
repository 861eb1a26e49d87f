"""The pages of the bench: what was run, tables, plots and tests, as HTML and as Markdown.

The HTML is one file without outside resources. Everything follows from the results by rule.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from maporl_agents.records.storage import write_text
from maporl_agents.studies.page import markdown_table, wrapped
from maporl_agents.systems.catalogue import SYSTEMS
from maporl_agents.systems.claims import (
    Comparison,
    Results,
    Row,
    by_task,
    comparisons,
    front,
    points_of,
    rows_of,
)
from maporl_agents.systems.equal_tokens import TOLERANCE
from maporl_agents.systems.jobs import BenchJob, BenchResult, BenchSettings
from maporl_agents.systems.plots import plot
from maporl_agents.systems.tasks import FIRST_TEST

SMALLEST = 1e-4
"""A p-value below it is printed as such: nobody knows the distribution that far out."""
TITLE = "Systems side by side, at equal tokens"
HEADER = (
    *("system", "level", "accuracy", "tokens", "passes", "trained on (tokens)", "seeds"),
    *("against the vote", "p, Holm"),
)
METHOD = (
    "Every system answers the same test questions. It is played in as many independent passes as "
    "come nearest to the budget of tokens per question, and the passes vote (the best of N is "
    "chosen by the verifier). A point before the last is what the first passes give. Trained "
    "systems have about as many generated training tokens as each other; what they generated is in "
    "the table. The answer key rewards training on the training questions, and decides what is "
    "right in the end; at test time a system has the verifier that is named, or none.",
    "The temperature of each job was chosen on the validation questions; everything else is the "
    "setting of the recipes of the built-in models, and was not tuned for any system here. The "
    "recipes of MAPoRL, MAGRPO and MALT were chosen earlier on questions of these tasks, which "
    "favours them; the test questions here were not asked then.",
    "Intervals are 95 % over seeds and questions (two-way random effects, Student's t with "
    "Satterthwaite's degrees of freedom). With three seeds they are wide. Tests: each system "
    "against the vote, and each trained one against the best of N, corrected together by Holm. "
    "All seeds begin from the same pre-trained model.",
    f"Marked * are systems that spend more than {TOLERANCE:g} times the budget: no comparison at "
    "equal tokens.",
)
NOT_HERE = {
    "SWEET-RL": "its agent asks a simulated user who reads a hidden reference, and no task here "
    "has a user to ask; docs/explanation/schemes/sweet_rl.md",
    "ReAd": "its critic scores actions of an environment before they are taken, and the answer is "
    "the only action here; docs/explanation/schemes/read.md",
    "mutual enhancement": "its student is no language model, and answers no question; "
    "docs/explanation/schemes/mutual.md",
}
"""Systems of this package that the bench leaves out, why, and where their figures are."""


@dataclass(frozen=True)
class Bench:
    """A bench that was carried out, wholly or in part.

    Attributes:
        settings: of the bench.
        results: that there are.
        planned: all jobs.
        errors: of jobs that failed.
        command: the command line.
        refusals: by task, the systems that do not fit and why.
    """

    settings: BenchSettings
    results: Sequence[BenchResult]
    planned: Sequence[BenchJob]
    errors: Mapping[BenchJob, str]
    command: str
    refusals: Mapping[str, Mapping[str, str]]

    @property
    def by_task(self) -> Results:
        """The results by task and system."""
        return by_task(self.results)


def summary(bench: Bench) -> list[str]:
    """Return what was run and what was not, in sentences."""
    done = {BenchJob(one.task, one.system, one.seed) for one in bench.results}
    missing = [job for job in bench.planned if job not in done and job not in bench.errors]
    minutes = sum(one.seconds for one in bench.results) / 60
    commits = sorted({str(one.made_by.get("commit"))[:10] for one in bench.results})
    lines = [
        f"{len(done)} of {len(bench.planned)} planned jobs (system, task, seed) are done, in "
        f"{minutes:.1f} processor minutes; {len(bench.errors)} failed; {len(missing)} were not "
        f"carried out. Commits: {', '.join(commits) or 'none'}."
    ]
    for task in dict.fromkeys(job.task for job in missing):
        counts = Counter(job.system for job in missing if job.task == task)
        words = [f"{name} ({n})" for name, n in counts.items()]
        lines.append(f"Not carried out on {task}, number of seeds: {', '.join(words)}.")
    lines += [f"Failed: {job.path}: {said}" for job, said in bench.errors.items()]
    return lines


def expectations(bench: Bench) -> list[str]:
    """Return what each task was expected to show, with what is ahead of the vote after Holm."""
    lines = []
    tests = comparisons(bench.by_task)
    for name in bench.by_task:
        task = bench.settings.task(name)
        of_vote = [one for one in tests if one.task == name and one.against == "vote"]
        ahead = [_marked(one) for one in of_vote if one.found == "ahead"]
        behind = [_marked(one) for one in of_vote if one.found == "behind"]
        lines.append(
            f"{name} ({task.about}). Expected: {task.expected or 'nothing was said.'} Found, of "
            f"{len(of_vote)} systems against the vote at equal tokens: ahead "
            f"{', '.join(ahead) or 'none'}; behind {', '.join(behind) or 'none'}; the others are "
            "not shown to differ."
        )
    return lines


def _marked(one: Comparison) -> str:
    return SYSTEMS[one.system].label + ("*" if one.dear else "")


def about(bench: Bench, name: str) -> str:
    """Return a task's paragraph: models, verifier, budgets."""
    task = bench.settings.task(name)
    budget = next(one.budget for own in bench.by_task[name].values() for one in own)
    questions = bench.settings.questions
    first = FIRST_TEST.get(name, 0)
    train = task.train_tokens * bench.settings.train_scale
    return (
        f"Models: {', '.join(task.models)}. Verifier at test time: {task.told}. Budget: "
        f"{budget:.0f} tokens per question, those of {bench.settings.answers} single answers. "
        f"Training budget: about {train:,.0f} generated tokens. {questions} test questions (from "
        f"number {first} of the split on), {bench.settings.validation} validation questions."
    )


def cells(row: Row, tests: Mapping[tuple[str, str], Comparison], best: set[str]) -> list[str]:
    """Return the cells of a system's row; the front's systems are bold."""
    system = SYSTEMS[row.system]
    test = tests.get((row.system, "vote"))
    gap = "" if test is None or test.difference is None else f"{test.difference.mean:+.3f}"
    width = None if test is None or test.difference is None else test.difference.half_width
    label = system.label + ("*" if row.dear else "")
    p = "" if test is None or test.p is None else in_digits(test.p)
    mark = {"ahead": " (ahead)", "behind": " (behind)"}.get("" if test is None else test.found, "")
    return [
        f"**{label}**" if row.system in best else label,
        system.level,
        str(row.accuracy),
        f"{row.tokens:.1f}",
        str(row.passes),
        f"{row.train_tokens:,.0f}" if row.train_tokens else "",
        str(len(row.seeds)),
        gap + ("" if width is None else f" ± {width:.3f}"),
        p + mark,
    ]


def in_digits(p: float) -> str:
    """Return a p-value as people read it."""
    return f"{p:.2g}" if p >= SMALLEST else f"< {SMALLEST:g}"


def table(bench: Bench, name: str, tests: Sequence[Comparison]) -> list[list[str]]:
    """Return the rows of a task's table, best first."""
    own = {(one.system, one.against): one for one in tests if one.task == name}
    results = bench.by_task[name]
    points = {system: points_of(found) for system, found in results.items() if system in SYSTEMS}
    best = {system for _, _, system in front(points)}
    rows = sorted(rows_of(results), key=lambda row: -row.accuracy.mean)
    return [cells(row, own, best) for row in rows]


def best_of_n_lines(tests: Sequence[Comparison], name: str) -> list[str]:
    """Return a sentence per trained system that differs from the best of N after correction."""
    words = {"ahead": "ahead of", "behind": "behind"}
    return [
        f"{_marked(one)} is {words[one.found]} the best of N by the verifier "
        f"({one.difference}, p {in_digits(one.p or 0.0)})."
        for one in tests
        if one.task == name and one.against == "best_of_n" and one.found in words
    ]


# --- HTML ---------------------------------------------------------------------------

STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;font-size:13px}td,th{border-bottom:1px solid #ddd;padding:3px "
    "8px;text-align:left;vertical-align:top}svg{max-width:100%;height:auto}code{background:#f4f4f4}"
)


def html_page(bench: Bench) -> str:
    """Return the whole page."""
    tests = comparisons(bench.by_task)
    parts = [
        f"<h1>{TITLE}</h1>",
        f"<p><code>{html.escape(bench.command)}</code></p>",
        *_paragraphs(summary(bench)),
        "<h2>What was expected and found</h2>",
        *_paragraphs(expectations(bench)),
    ]
    for name, results in bench.by_task.items():
        budget = next(one.budget for own in results.values() for one in own)
        parts += [
            f"<h2>{html.escape(name)}: {html.escape(bench.settings.task(name).about)}</h2>",
            *_paragraphs([about(bench, name)]),
            plot(results, budget),
            _html_table(HEADER, table(bench, name, tests)),
            *_paragraphs(best_of_n_lines(tests, name)),
            *_paragraphs(_refused(bench, name)),
        ]
    parts += ["<h2>How it was done</h2>", *_paragraphs(METHOD), *_paragraphs(_left_out())]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f"<title>{TITLE}</title>\n<style>{STYLE}</style>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _paragraphs(texts: Sequence[str]) -> list[str]:
    return [f"<p>{html.escape(text)}</p>" for text in texts]


def _html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines = "\n".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    return f"<table>\n<tr>{head}</tr>\n{lines}\n</table>"


def _cell(text: str) -> str:
    if text.startswith("**"):
        return f"<td><b>{html.escape(text.strip('*'))}{'*' * text.endswith('***')}</b></td>"
    return f"<td>{html.escape(text)}</td>"


def _refused(bench: Bench, name: str) -> list[str]:
    words = [f"{SYSTEMS[s].label} ({why})" for s, why in bench.refusals.get(name, {}).items()]
    return [f"Does not fit: {'; '.join(words)}."] if words else []


def _left_out() -> list[str]:
    return [f"Not on the bench: {'; '.join(f'{name} ({why})' for name, why in NOT_HERE.items())}."]


# --- Markdown -----------------------------------------------------------------------


def markdown_page(bench: Bench, pictures: str) -> str:
    """Return the page in Markdown; `pictures` is the folder of the plots as it names them."""
    tests = comparisons(bench.by_task)
    lines = [f"# {TITLE}", "", f"    {bench.command}", ""]
    lines += _as_lines(summary(bench))
    lines += ["## What was expected and found", "", *_as_lines(expectations(bench))]
    for name in bench.by_task:
        task = bench.settings.task(name)
        picture = f"{pictures}/{BenchJob(name, '', 0).path.rpartition('/')[0]}.svg"
        lines += [
            f"## {name}: {task.about}",
            "",
            *_as_lines([about(bench, name)]),
            f"![{name}: accuracy against generated tokens per question]({picture})",
            "",
            *markdown_table(HEADER, table(bench, name, tests)),
            "",
            *_as_lines(best_of_n_lines(tests, name)),
            *_as_lines(_refused(bench, name)),
        ]
    lines += ["## How it was done", "", *_as_lines(METHOD), *_as_lines(_left_out())]
    return "\n".join(lines).rstrip() + "\n"


def _as_lines(texts: Sequence[str]) -> list[str]:
    return [line for text in texts for line in (*wrapped(text), "")]


def write_markdown(bench: Bench, path: Path) -> None:
    """Write the Markdown page, and its plots to the folder of its name beside it."""
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    for name, results in bench.by_task.items():
        budget = next(one.budget for own in results.values() for one in own)
        picture = folder / f"{BenchJob(name, '', 0).path.rpartition('/')[0]}.svg"
        write_text(picture, plot(results, budget) + "\n")
    write_text(path, markdown_page(bench, folder.name))
