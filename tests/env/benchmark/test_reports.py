"""Reports survive JSON, refuse to mix, and go on where they were cut."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from maporl_env.benchmark import (
    CASES,
    Case,
    Report,
    choose_cases,
    function_agents,
    markdown_tables,
    paired_difference,
    read_report,
    results,
    score,
    scoring,
    scripted_agents,
    table_row,
)
from maporl_env.benchmark.__main__ import main
from maporl_env.benchmark.results import write_report
from maporl_env.types import Question

from .cases import BY_NAME, LONE


def test_a_report_survives_json(keep: Report, tmp_path: Path) -> None:
    assert Report.from_json(keep.to_json()) == keep
    write_report(tmp_path / "deep" / "keep.json", keep)
    assert read_report(tmp_path / "deep" / "keep.json") == keep
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["keep.json"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"version": "maporl-bench-v0"}, "results of maporl-bench-v0 .* do not compare"),
        ({"schema": 0}, r"\(layout 0\), which do not compare"),
        ({"cases": {"coins/self_correction/1x3": {}}}, "is damaged"),
        ({"cases": 3}, "is damaged"),
        ({"surprise": 1}, "is damaged"),
    ],
)
def test_other_versions_and_damage_are_refused(
    keep: Report, tmp_path: Path, change: dict[str, Any], match: str
) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps({**json.loads(keep.to_json()), **change}))
    with pytest.raises(ValueError, match=match) as caught:
        read_report(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 1}', "3", "[" * 100_000])
def test_other_files_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no result of the benchmark"):
        Report.from_json(text)


def test_versions_and_changed_cases_do_not_mix(keep: Report, best: Report) -> None:
    old = replace(best, version="maporl-bench-v0")
    name = LONE.name
    changed = replace(best, cases={name: replace(best.cases[name], digest="0" * 16)})
    for other, match in ((old, "versions of the suite do not mix"), (changed, "another case")):
        with pytest.raises(ValueError, match=match):
            markdown_tables([keep, other])
        with pytest.raises(ValueError, match=match):
            paired_difference(keep, other, name)
        with pytest.raises(ValueError, match=match):
            table_row(other)


def test_differences_are_paired(keep: Report) -> None:
    """An oracle is better by 1 - x on each question: mean 1 - mean, the same half width."""
    oracle = score(scripted_agents("oracle"), [LONE])
    found, own = paired_difference(oracle, keep, LONE.name), keep.cases[LONE.name].turns[-1].team
    assert found.mean == pytest.approx(1 - own.mean)
    assert found.half_width == pytest.approx(own.half_width)
    assert paired_difference(keep, keep, LONE.name).half_width == 0.0
    with pytest.raises(ValueError, match="'keep' has no result of case 'coins/debate/2x3'"):
        paired_difference(keep, oracle, "coins/debate/2x3")


def test_a_mean_needs_all_cases(keep: Report) -> None:
    assert keep.mean is None
    result = keep.cases[LONE.name]
    whole = replace(keep, cases={case.name: replace(result, digest=case.digest) for case in CASES})
    assert whole.mean == pytest.approx(result.turns[-1].team.mean)


class Counting:
    """Players that count their speakers, and fail at a chosen one."""

    def __init__(self, fail_at: int = 0) -> None:
        self.name, self.about = "counting", {"kind": "test"}
        self.count, self.fail_at = 0, fail_at

    def refusal(self, case: Case) -> str:
        return "they do not pool" if case.num_agents == 5 else ""

    def speaker(self, case: Case, questions: Sequence[Question], seed: int) -> Any:
        self.count += 1
        if self.count == self.fail_at:
            raise ValueError("cut")
        return lambda prompts: [r"\boxed{ 1 }"] * len(prompts)


def test_a_cut_benchmark_goes_on(tmp_path: Path) -> None:
    """Two cases of five batches each; the second is cut in its third batch and played again."""
    out, cases = tmp_path / "out.json", choose_cases(["coins/*"])
    cut = Counting(fail_at=8)
    with pytest.raises(ValueError, match="cut"):
        score(cut, cases, out=out)
    assert list(read_report(out).cases) == ["coins/debate/2x3"]
    again = Counting()
    report = score(again, cases, out=out)
    assert again.count == 5
    assert list(report.cases) == ["coins/debate/2x3", "coins/self_correction/1x3"]
    assert report.refused == {"coins/debate/5x2": "they do not pool"}
    assert read_report(out) == report
    whole = score(Counting(), cases)
    assert {name: replace(case, seconds=0) for name, case in report.cases.items()} == {
        name: replace(case, seconds=0) for name, case in whole.cases.items()
    }
    once_more = Counting()
    assert score(once_more, cases, out=out) == report
    assert once_more.count == 0
    assert score(once_more, [LONE], out=out, overwrite=True).cases.keys() == {LONE.name}
    assert once_more.count == 5


def test_results_of_others_are_not_gone_on_with(keep: Report, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    write_report(out, keep)
    before = out.read_bytes()
    with pytest.raises(ValueError, match=r"holds results of 'keep' .* not of 'counting'"):
        score(Counting(), [LONE], out=out)
    with pytest.raises(ValueError, match="holds results of 'keep'"):
        score(scripted_agents("keep", 0.6), [LONE], out=out)
    assert out.read_bytes() == before


def spoken(path: Path, answer: str) -> Any:
    """A function of a module that says one thing, read from its file anew."""
    path.write_text(f"def speak(prompts):\n    return ['{answer}'] * len(prompts)\n")
    made: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), made)
    return made["speak"]


def test_results_of_an_edited_function_are_not_gone_on_with(tmp_path: Path) -> None:
    """The name is the same; the file is not. The same file goes on, whoever wraps its function."""
    out, module = tmp_path / "out.json", tmp_path / "mine.py"
    first = score(function_agents("mine", spoken(module, "1")), [LONE], out=out)
    again = function_agents("mine", functools.partial(spoken(module, "1")))
    assert score(again, [LONE], out=out) == first
    with pytest.raises(ValueError, match=r"'mine' \(\{'fingerprint': '[0-9a-f]{16}'\}\), not of"):
        score(function_agents("mine", spoken(module, "22")), [LONE], out=out)
    assert function_agents("mine", eval("lambda prompts: prompts")).about == {"kind": "function"}
    one, other = Caller(), Caller()
    assert function_agents("a", one).about == function_agents("a", other).about
    assert function_agents("a", one).about["fingerprint"]


class Caller:
    """An object that can be called."""

    def __call__(self, prompts: Sequence[str]) -> Sequence[str]:
        return prompts


def test_what_is_said_of_the_file_in_the_end(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out.json"
    command = ["--agents", "oracle", "--out", str(out), "--cases", LONE.name]
    endings = []
    for more in ([], [], ["coins/debate/5x2"], ["--overwrite"]):
        assert main([*command, *more]) == 0
        endings.append(capsys.readouterr().out.strip().splitlines()[-1])
    assert endings[0] == endings[3] == f"wrote {out}"
    assert endings[1].startswith(f"nothing was left to play: {out} held these results, begun 20")
    assert endings[2] == f"wrote {out} (cases in it from before: 1)"


def test_who_can_play_nothing_says_why() -> None:
    with pytest.raises(ValueError, match="'counting' can play none of the cases: they do not pool"):
        score(Counting(), [BY_NAME["coins/debate/5x2"]])


def test_results_name_the_machine_and_the_day(keep: Report) -> None:
    assert keep.machine["cores"] >= 1
    assert keep.machine["numpy"] == results.machine()["numpy"]
    assert len(keep.date) == 10
    assert keep.date in markdown_tables([keep])
    assert scoring.BATCH == 100  # part of the version: samplers' noise may depend on it
