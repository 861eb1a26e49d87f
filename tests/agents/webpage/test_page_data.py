"""The data of the HTML report: figures by hand, sources, debates."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_studies import make_study
from page_cases import HOSTILE, debate, make_run

from maporl_agents.measure.debate_stats import Transition, TurnStats
from maporl_agents.studies.results import Arm, Measurement, SeedResult, Study
from maporl_agents.webpage import write_page
from maporl_agents.webpage.chart_data import (
    MAX_POINTS,
    arms,
    curves,
    flip_matrix,
    training,
    warnings_of,
)
from maporl_agents.webpage.debates import MAX_QUESTIONS, MAX_TEXT, debate_sets, shown
from maporl_agents.webpage.incentives import incentives
from maporl_agents.webpage.page import page_data
from maporl_agents.webpage.sources import load
from maporl_env.types import Question

# --- Numbers ------------------------------------------------------------------------


def stats(accuracy: float, won: float = 0.0, lost: float = 0.0) -> TurnStats:
    return TurnStats((accuracy, accuracy), accuracy, 0.02, won, lost, 0.5, 0.0)


def test_flip_matrix_by_hand() -> None:
    """Right .4, of which .1 are lost; wrong .6, of which .3 are won: .3 .1 / .3 .3."""
    matrix = flip_matrix(stats(0.4), stats(0.6, won=0.3, lost=0.1))
    assert matrix == [pytest.approx([0.3, 0.1]), pytest.approx([0.3, 0.3])]
    assert sum(map(sum, matrix)) == pytest.approx(1)
    assert matrix[0][0] + matrix[1][0] == pytest.approx(0.6)  # who is right afterwards


def test_curves_take_means_over_seeds_and_questions_for_one() -> None:
    """Seeds .60 .61 .62: mean .61, half width 4.3026527 * .01 / sqrt(3) = .0248414."""
    [_, after, *_] = curves(make_study())
    assert (after["arm"], after["stage"]) == ("debate", "after")
    assert after["points"][1]["mean"] == pytest.approx(0.61)
    assert after["points"][1]["half"] == pytest.approx(0.0248414, abs=1e-6)
    single = Study("s", "", "", "", "", (Arm("a", "A", "method", make_study().arms[0].seeds[:1]),))
    assert curves(single)[0]["points"][0]["half"] == 0.02  # of the vote, over questions


def test_the_table_pairs_by_seed_and_states_cost() -> None:
    """400 messages and 4000 tokens for 100 questions: 4 and 40 each."""
    method, shuffled, single = arms(make_study())
    assert method["lead"] is None
    assert shuffled["lead"]["values"] == pytest.approx([0, 0, 0])
    assert single["lead"]["values"] == pytest.approx([0.3, 0.3, 0.3])
    assert (single["answers"], single["tokens"]) == (4, 40)
    assert single["before"] is None
    assert method["before"]["mean"] == pytest.approx(0.31)


def with_moves(width: int, *moves: Transition) -> Study:
    turns = (TurnStats((0.5,) * width, 0.5, 0, 0, 0, 0, 0),) * 2
    measurement = Measurement("after", "sampled", turns, 10, 40, 400, moves)
    arm = Arm("a", "A", "method", (SeedResult(0, (measurement,)),))
    return Study("s", "", "", "", "", (arm,))


def test_incentives_by_hand() -> None:
    """Of 4 wrong agents among right peers 3 become right; nobody else is known."""
    moves = (
        Transition(1, False, "right", True, "right", 3),
        Transition(1, False, "right", False, "wrong", 1),
    )
    shown_three = incentives(with_moves(3, *moves))
    assert shown_three is not None
    assert len(shown_three["cases"]) == 8
    [column] = shown_three["columns"]
    assert (column["cells"][0]["mean"], column["cells"][0]["count"]) == (0.75, 4)
    assert column["cells"][1] is None
    assert column["cells"][7]["mean"] == 0.25  # right peers of a wrong agent that become wrong
    assert shown_three["cases"][0][1].endswith("becomes right, turn 2 to 3")
    shown_two = incentives(with_moves(2, *moves))
    assert shown_two is not None
    assert [weight for weight, _ in shown_two["cases"]] == ["α₁, β₁", "α₀, β₀"] * 2
    assert len(shown_two["columns"][0]["cells"]) == 4
    assert incentives(with_moves(2)) is None
    best_of_six = Arm("b", "B", "baseline", with_moves(6).arms[0].seeds)  # one turn: no moves
    both = Study("s", "", "", "", "", (*with_moves(2, *moves).arms, best_of_six))
    assert incentives(both) == shown_two


def trained(*curves_: list[dict[str, Any]]) -> dict[str, Any]:
    seeds = tuple(SeedResult(i, (), curve=tuple(rows)) for i, rows in enumerate(curves_))
    [result] = training(Study("s", "", "", "", "", (Arm("a", "A", "method", seeds),)))
    return result


def test_training_curves_by_hand() -> None:
    """Two seeds at step 1: scores .2 and .4 of turn 10; one kl is unknown, so is its panel."""
    rows = [
        [{"step": 1, "score/turn_10": 0.2, "score/turn_9": 0.1, "lazy/agent_0": 0.5}],
        [{"step": 1, "score/turn_10": 0.4, "kl": None}],
    ]
    scores, lazy = trained(*rows)["panels"]
    assert [line["label"] for line in scores["lines"]] == ["turn 9", "turn 10"]
    assert scores["lines"][1]["points"] == [pytest.approx([1, 0.3, 0.2, 0.4])]
    assert [line["label"] for line in lazy["lines"]] == ["agent 0"]


def test_the_held_out_curve_is_a_chart() -> None:
    """Measured at steps 2 and 4 only."""
    rows = [{"step": step, "reward": 0.1} for step in (1, 2, 3, 4)]
    rows[1]["validation"], rows[3]["validation"] = 0.5, 0.25
    reward_and_validation = trained(rows)["panels"]
    [panel] = [one for one in reward_and_validation if "validation questions" in one["title"]]
    [line] = panel["lines"]
    assert line["points"] == [[2, 0.5, 0.5, 0.5], [4, 0.25, 0.25, 0.25]]


def test_long_curves_are_thinned() -> None:
    [panel] = trained([{"step": s, "kl": 0.0} for s in range(1000)])["panels"]
    points = panel["lines"][0]["points"]
    assert len(points) <= MAX_POINTS
    assert [p[0] for p in points[:3]] == [0, 4, 8]


def test_warnings_name_step_and_extent() -> None:
    """A KL of .7 and then .9 is above the alarm's .5; the newest figure is told."""
    rows = [{"step": 1, "kl": 0.1}, {"step": 2, "kl": 0.7}, {"step": 3, "kl": 0.9, "nonfinite": 1}]
    runaway, lost = warnings_of(rows)
    assert runaway.startswith("From step 2, in 2 of 3 steps: KL runaway: 0.90 nats")
    assert lost.startswith("From step 3, in 1 of 3 steps: not finite")
    assert warnings_of(rows[:1]) == []


# --- Reading ------------------------------------------------------------------------


def test_a_run_becomes_a_study_of_one_arm(run: Path) -> None:
    source = load(run)
    [arm] = source.study.arms
    assert source.kind == "run"
    assert [seed.seed for seed in arm.seeds] == [3]
    assert (arm.seeds[0].train_answers, arm.seeds[0].train_tokens) == (48, 240)
    measured = arm.seeds[0].find("before", "sampled")
    assert measured is not None
    assert sum(m.count for m in measured.transitions) == 2 * len(HOSTILE)  # both agents, one move
    data = page_data(source)
    assert "carries no controls" in " ".join(data["notes"])
    assert ["seed", "3"] in data["facts"]
    # agent_1 goes from wrong to right in every debate, so the vote goes from 0 to above 0
    assert "From turn 1 to the last" in data["verdicts"]["sampled"][1]["sentence"]
    assert data["verdicts"]["sampled"][1]["kind"] == "supports"
    assert data["verdicts"]["sampled"][0]["kind"] == "open"  # before is after


def test_an_unfinished_run_has_a_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "toy", [], finished=False)
    (run / "transcripts" / "before.jsonl").write_text('{"torn')
    data = page_data(load(run))
    assert "not finished" in data["notes"][0]
    assert (data["curves"], data["verdicts"]["sampled"]) == ([], [])
    assert data["training"][0]["panels"]


def test_a_study_shows_the_debates_of_its_runs(tmp_path: Path) -> None:
    make_run(tmp_path / "jobs" / "a", [debate(0, "hm")])
    seeds = (SeedResult(0, (), folder="jobs/a"), SeedResult(1, (), folder="jobs/b"))
    control = Arm("c", "C", "control", seeds, "alone")
    gone = Arm("g", "Gone", "baseline", (SeedResult(0, (), folder="jobs/gone"),))
    study = Study("s", "", "", "", "", (control, gone, Arm("m", "M", "method", seeds)))
    study.save(tmp_path / "study.json")
    for path in (tmp_path, tmp_path / "study.json"):
        assert list(load(path).debates) == ["M"]


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_neither_run_nor_study(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"neither a run .* nor a study"):
        write_page(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_transcript_is_named(run: Path) -> None:
    path = run / "transcripts" / "after.jsonl"
    path.write_text("{}\n" + path.read_text())
    with pytest.raises(ValueError, match=r"after\.jsonl, line 1 is no transcript"):
        write_page(run)


# --- Debates ------------------------------------------------------------------------


def test_marks_follow_the_key_and_votes_are_shared() -> None:
    [found] = debate_sets({"a": {"after": [debate(0, "\\boxed{8}"), debate(1, "?", None)]}})
    first, second = found["questions"]
    turn_1, turn_2 = first["stages"]["after"]["turns"]
    assert [m["mark"] for m in turn_1] == ["wrong", "wrong"]
    assert [(m["mark"], m["answer"]) for m in turn_2] == [("wrong", "8"), ("right", "7")]
    assert first["stages"]["after"]["votes"] == [0, 0.5]
    assert second["stages"]["after"]["turns"][0][0]["mark"] == "unscored"
    assert debate_sets({"a": {"after": [debate(0, "?")]}})[0]["questions"][0]["stages"]["after"][
        "turns"
    ][0][0] == {"agent": "agent_0", "text": "?", "mark": "none", "answer": None} | {
        "score": 0.0,
        "person": "",
    }


def test_private_texts_stand_with_their_agents_and_the_reference_nowhere() -> None:
    told = Question("q/0", "How many?", "7", private=("", "\x1b[1mthree"), hidden="SEVEN")
    transcript = replace(debate(0, "?"), question=told)
    [found] = debate_sets({"a": {"after": [transcript, debate(1, "?")]}})
    first, second = found["questions"]
    assert first["private"] == [{"agent": "agent_1", "text": "\\x1b[1mthree"}]
    assert second["private"] == []
    assert "SEVEN" not in json.dumps(found)


def test_debates_are_capped_in_number_and_size() -> None:
    many = [debate(i, "x") for i in range(MAX_QUESTIONS + 5)]
    one, two = debate_sets({"a": {"after": many}, "b": {"after": many}})
    assert (len(one["questions"]), len(two["questions"])) == (MAX_QUESTIONS // 2,) * 2
    assert one["total"] == MAX_QUESTIONS + 5
    long = [debate(i, "x" * 10**4, turns=9) for i in range(MAX_QUESTIONS)]
    [cut] = debate_sets({"a": {"after": long}})
    assert 0 < len(cut["questions"]) < MAX_QUESTIONS
    assert len(json.dumps(cut)) < 4_000_000


def test_shown_text() -> None:
    assert shown("a\x1b[1m\u202e\x00b\n") == "a\\x1b[1m\\u202e\\x00b\n"
    assert shown("x" * (MAX_TEXT + 1500)) == "x" * MAX_TEXT + " … (1,500 more characters)"


def test_debates_that_people_watched_are_a_set_of_their_own_and_marked(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "toy", [debate(0, "4")])
    plain = debate(1, "4")
    marked = replace(
        plain, messages=(replace(plain.messages[0], person="edited"), *plain.messages[1:])
    )
    for name, one in (("b", plain), ("a", marked)):
        (folder / "watched" / name).mkdir(parents=True)
        (folder / "watched" / name / "transcript.jsonl").write_text(one.to_json() + "\n")
    sets = debate_sets(load(folder).debates)
    assert [one["label"] for one in sets] == ["toy", "toy, watched by people"]
    [question] = sets[1]["questions"]  # the same one, watched twice
    assert list(question["stages"]) == ["watched a", "watched b"]
    marks = [stage["turns"][0][0]["person"] for stage in question["stages"].values()]
    assert marks == ["edited", ""]
    assert sets[0]["questions"][0]["stages"]["after"]["turns"][0][0]["person"] == ""
