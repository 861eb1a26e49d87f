"""The closing table: what it shows of a turn, and when it shows what was paid."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from miniatures import make_transcript
from rich.console import Console

from maporl_agents.measure.terminal_report import (
    asked_words,
    result_table,
    silence,
    telling_question,
    unscored,
)


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


def test_scores_are_shown_where_they_are_not_accuracy() -> None:
    """A key's scores are the accuracy, mean over agents; a learned verifier's need not be."""
    assert " score " not in shown(turn()).split("vote: ")[0]
    table = shown(turn(), turn(score=0.91)).split("vote: ")[0]
    assert " score " in table
    assert " 0.910 " in table
    assert " score " not in shown(turn(score=None)).split("vote: ")[0]


def test_runs_from_before_scores_were_kept_can_be_shown() -> None:
    old = turn()
    del old["score"]
    assert "0.500 ±0.100" in shown(old)


def test_the_legend_names_the_columns_that_are_there() -> None:
    legend = shown(turn()).split("vote: ")[1]
    assert "none:" in legend
    assert "score" not in legend
    assert "score: mean score" in " ".join(shown(turn(score=0.91)).split("vote: ")[1].split())


def test_no_name_is_cut_short() -> None:
    """A stage is named by a path in `maporl eval --run`; four agents have four figures."""
    console = Console(width=100)
    four = turn(accuracy=(0.11, 0.22, 0.33, 0.44))
    name = "runs/a-name-that-is-longer-than-the-table-has-room-for/and-then-some"
    with console.capture() as capture:
        console.print(result_table({name: {"sampled": {"turns": [four]}}}, "title"))
    table = capture.get().split("vote: ")[0]
    assert "…" not in table
    first = [line.split("│")[1].strip() for line in table.splitlines() if line.startswith("│")]
    assert "".join(first) == name
    assert all(figure in table for figure in ("0.11", "0.22", "0.33", "0.44", "0.500 ±0.100"))


@pytest.mark.parametrize("agents", [1, 2, 3, 8])
def test_figures_stand_in_eighty_columns_whatever_the_name(agents: int) -> None:
    console = Console(width=80)
    one = turn(accuracy=tuple(0.11 for _ in range(agents)), score=0.9)
    name = "HuggingFaceTB/SmolLM2-135M-Instruct-with-a-long-name, another/one-of-them"
    with console.capture() as capture:
        stages = {name: {"sampled": {"turns": [one, one]}, "greedy": {"turns": [one, one]}}}
        console.print(result_table(stages, "title"))
    lines = capture.get().split("vote: ")[0].splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if "0.500 ±0.100" in line]
    assert len(rows) == 4
    for figure in ("0.300", "0.010", "0.900", "0.125"):
        assert sum(figure in row for row in rows) >= 2


def test_a_table_says_how_many_questions_each_stage_asked() -> None:
    def asked(**counts: int) -> str:
        return asked_words({name: {"sampled": {"num_questions": n}} for name, n in counts.items()})

    assert asked(before=100, after=1500) == "100 before, 1,500 after"
    assert asked(before=100, after=100) == "100"


def test_only_questions_asked_in_both_stages_are_compared() -> None:
    """The trained team is asked more questions; the last one here would be the most telling."""
    wrong, right = [["x"], ["x"]], [["x"], ["1"]]
    before = [make_transcript(wrong, scores=[[0], [0]])] * 2
    after = [make_transcript(wrong, scores=[[0], [0]])] * 2
    better = make_transcript(right, scores=[[0], [1]])
    assert telling_question(before, [*after, better]) == 0
    assert telling_question(before, [after[0], better, better]) == 1


def test_an_agent_that_writes_nothing_is_a_warning() -> None:
    silent = make_transcript([["a", ""], ["b", " "]])
    [warning] = silence([silent, silent])
    assert warning.startswith("warning: agent_1 writes nothing in 100% of its messages")
    assert silence([make_transcript([["a", "b"], ["c", "d"], ["e", ""]])]) == []


def test_a_verifier_that_scored_nothing_is_warned_of() -> None:
    none = make_transcript([["a", "b"]])
    messages = tuple(replace(message, score=None) for message in none.messages)
    [warning] = unscored([replace(none, messages=messages)] * 2)
    assert "none of 4 messages a score" in warning
    messages = (replace(messages[0], score=0.0), *messages[1:])
    assert unscored([replace(none, messages=messages)]) == []
