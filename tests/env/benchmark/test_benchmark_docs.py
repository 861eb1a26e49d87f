"""docs/how-to/benchmark.md is true: its snippet runs, its tables are those of its files."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from maporl_env.benchmark import CASES, read_report, score, scripted_agents, tables
from maporl_env.benchmark.players import SCRIPTED
from maporl_env.benchmark.tables import tables_of_files

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "benchmark.md"
TEXT = PAGE.read_text(encoding="utf-8")
FOLDER = PAGE.parents[1] / "benchmark"
FILES = sorted(FOLDER.glob("*.json"))
REPORTS = {report.name: report for report in map(read_report, FILES)}


def test_the_snippet_runs(capsys: pytest.CaptureFixture[str]) -> None:
    [snippet] = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    exec(compile(snippet, str(PAGE), "exec"), {"__name__": "snippet"})
    assert capsys.readouterr().out.startswith("| always 1 | – | n/a |")


def test_the_tables_are_those_of_the_files() -> None:
    """In the order in which the page's own command names them."""
    table = TEXT.split(tables.BEGIN)[1].split(tables.END)[0].strip()
    [named] = re.findall(r"docs/benchmark/\{(.*)\}\.json", TEXT)
    files = [FOLDER / f"{name}.json" for name in named.split(",")]
    assert sorted(files) == FILES
    assert table == tables_of_files(files)


def test_every_case_and_scripted_agent_is_explained() -> None:
    explained = re.findall(r"^\| `([a-z_]+/[a-z_]+/\dx\d)` \|", TEXT, re.MULTILINE)
    assert explained == [case.name for case in CASES]
    section = TEXT.split("## The scripted agents")[1]
    assert set(re.findall(r"^\| (\w+) \|", section, re.MULTILINE)) >= set(SCRIPTED)


@pytest.mark.parametrize("name", ["best", "random"])
def test_reference_results_come_out_again(name: str) -> None:
    """Bit for bit in what was said and who was right; one case, so that it stays quick."""
    case = next(case for case in CASES if case.name == "coins/self_correction/1x3")
    again = score(scripted_agents(name), [case]).cases[case.name]
    kept = REPORTS[name].cases[case.name]
    assert again.by_question == kept.by_question
    means = [[turn.team.mean for turn in one.turns] for one in (again, kept)]
    assert means[0] == pytest.approx(means[1])
    assert replace(again, seconds=0).num_questions == kept.num_questions


def test_the_page_states_its_clusters() -> None:
    for task, count in (("shopping", 298), ("sharing", 441), ("coins", 428), ("receipts", 16)):
        case = next(case for case in CASES if case.task == task)
        assert len({case.cluster_of(question) for question in case.questions()}) == count
        assert re.search(rf"{count}(?: clusters)? in\s+{task}", TEXT)
