"""Tables of results, and their places in a page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from maporl_env.benchmark import (
    CASES,
    VERSION,
    Report,
    markdown_tables,
    table_header,
    table_row,
    tables,
    write_tables,
)

from .cases import LONE


def test_a_row_has_a_cell_for_every_case(keep: Report) -> None:
    row = [cell.strip() for cell in table_row(keep).strip("|").split("|")]
    head = [cell.strip() for cell in table_header().splitlines()[0].strip("|").split("|")]
    assert len(row) == len(head) == 4 + len(CASES)
    team = keep.cases[LONE.name].turns[-1].team
    cell = f"{team.mean:.3f} ±{team.half_width:.3f}".replace("0.", ".")
    assert dict(zip(head, row, strict=True)) == {
        "agents": "keep",
        "mean": "–",
        **{case.name: "n/a" for case in CASES},
        LONE.name: cell,
        "words": "3.0",
        "tokens": "–",
    }


def test_a_name_breaks_no_table_and_no_page(keep: Report, tmp_path: Path) -> None:
    hostile = replace(keep, name=f"a|b\n{tables.END}", machine={"platform": tables.BEGIN})
    assert table_row(hostile).startswith("| a\\|b &lt;!-- benchmark:end --> | – |")
    page = tmp_path / "page.md"
    page.write_text(f"{tables.BEGIN}\n{tables.END}\nafter")
    write_tables(page, [hostile])
    write_tables(page, [keep])
    assert (
        page.read_text(encoding="utf-8")
        == f"{tables.BEGIN}\n{markdown_tables([keep])}\n{tables.END}\nafter"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, ".000"), (0.5, ".500"), (1.0, "1.000"), (-0.25, "-.250"), (10.05, "10.050")],
)
def test_short_numbers(value: float, text: str) -> None:
    assert tables._short(value) == text


def test_tables_go_between_the_markers_of_a_page(
    keep: Report, best: Report, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n")
    write_tables(page, [keep, best])
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{tables.BEGIN}\nTeam accuracy in the last turn, {VERSION}:")
    assert text.endswith(f"\n{tables.END}\nafter\n")
    assert "old" not in text
    write_tables(page, [keep, best])
    assert page.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    "text", ["", tables.BEGIN, f"{tables.END}\n{tables.BEGIN}", f"{tables.BEGIN}{tables.END}" * 2]
)
def test_a_page_without_markers_is_left_alone(keep: Report, tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="once each"):
        write_tables(page, [keep])
    assert page.read_text(encoding="utf-8") == text


def test_a_table_needs_different_names(keep: Report) -> None:
    with pytest.raises(ValueError, match="different names"):
        markdown_tables([keep, keep])
    with pytest.raises(ValueError, match="different names"):
        markdown_tables([])
