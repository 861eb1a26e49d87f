"""The closing table: what it shows of a turn, and when it shows what was paid."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from maporl_agents.report import result_table


def turn(**changes: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "vote": 0.5,
        "vote_interval": 0.1,
        "accuracy": (0.25, 0.75),
        "wrong_to_right": 0.125,
        "right_to_wrong": 0.0625,
        "agreement": 0.3,
        "invalid": 0.01,
        "score": 0.5,
    }
    return usual | changes


def shown(*turns: dict[str, Any]) -> str:
    console = Console(width=100)
    stages = {"after": {"sampled": {"turns": list(turns)}}}
    with console.capture() as capture:
        console.print(result_table(stages, "title"))
    return capture.get()


def test_a_row_per_turn_and_no_flips_in_the_first() -> None:
    rows = [line for line in shown(turn(), turn()).splitlines() if "0.500 ±0.100" in line]
    first, second = ([cell.strip() for cell in row.split("│")[1:-1]] for row in rows)
    assert first == [
        *("after", "sampled", "1", "0.500 ±0.100", "0.25 0.75", "-", "-", "0.300", "0.010")
    ]
    assert second[:3] == ["", "", "2"]
    assert second[5:7] == ["0.125", "0.062"]


def test_what_is_paid_is_shown_where_it_is_not_accuracy() -> None:
    """A key's scores are the accuracy, mean over agents; a learned verifier's need not be."""
    assert " paid " not in shown(turn()).split("vote: ")[0]
    table = shown(turn(), turn(score=0.91)).split("vote: ")[0]
    assert " paid " in table
    assert " 0.910 " in table
    assert " paid " not in shown(turn(score=None)).split("vote: ")[0]


def test_runs_from_before_scores_were_kept_can_be_shown() -> None:
    old = turn()
    del old["score"]
    assert "0.500 ±0.100" in shown(old)
