"""The command line of the benchmark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from maporl_env.benchmark import (
    Report,
    difference_table,
    listing,
    markdown_tables,
    read_report,
    table_row,
    tables,
)
from maporl_env.benchmark.__main__ import main
from maporl_env.benchmark.results import write_report

from .cases import LONE


def test_one_command_scores_and_writes(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "oracle.json"
    assert main(["--agents", "oracle", "--cases", LONE.name, "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert table_row(read_report(out)) in printed.out
    assert "1.000 ±.000" in printed.out
    assert f"{LONE.name:28}  500 / 500" in printed.err
    page = tmp_path / "page.md"
    page.write_text(f"{tables.BEGIN}\n{tables.END}\n")
    assert main(["--table", str(out), "--docs", str(page)]) == 0
    assert table_row(read_report(out)) in page.read_text(encoding="utf-8")


def test_the_command_compares_by_question(
    keep: Report, best: Report, tmp_path: Path, capsys: Any
) -> None:
    """Without torch, as the rules for comparing ask it of everybody."""
    for report in (keep, best):
        write_report(tmp_path / f"{report.name}.json", report)
    files = [str(tmp_path / f"{name}.json") for name in ("best", "keep")]
    assert main(["--table", files[0], "--against", files[1]]) == 0
    printed = capsys.readouterr().out
    assert printed.strip() == difference_table(best, keep)
    page = tmp_path / "page.md"
    page.write_text(f"{tables.BEGIN}\n{tables.END}\n")
    assert main(["--table", *files, "--against", files[1], "--docs", str(page)]) == 2
    assert "leave one out" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8") == f"{tables.BEGIN}\n{tables.END}\n"
    assert main(["--agents", "keep", "--against", files[1]]) == 2
    assert "add --table FILE" in capsys.readouterr().err


def test_names_with_commas_stay_apart(keep: Report) -> None:
    first, second = (replace(keep, name=name) for name in ("tiny, untrained", "tiny, MALT"))
    assert markdown_tables([first, second]).endswith(": tiny, untrained; tiny, MALT.")


def test_the_command_lists_and_explains(capsys: Any) -> None:
    assert main(["--list"]) == 0
    assert capsys.readouterr().out.strip() == listing()
    assert main([]) == 0
    assert "adopts the most common answer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--agents", "nobody"], "no agents 'nobody'"),
        (["--agents", "keep", "--cases", "x"], "no case is called 'x'"),
        (["--table", "/no/such.json"], "No such file"),
    ],
)
def test_mistakes_are_one_sentence(arguments: list[str], match: str, capsys: Any) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert match in error
    assert error.startswith("maporl bench: ")
    assert error.count("\n") == 1


def test_control_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def interrupted(*_: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("maporl_env.benchmark.__main__.named_agents", interrupted)
    assert main(["--agents", "keep"]) == 130
    assert "the same command goes on" in capsys.readouterr().err
