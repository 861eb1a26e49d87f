"""The file of a study: there and back, and what is refused."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_studies import make_study

from maporl_agents.measure.debate_stats import Transition, flipped, rate, transitions
from maporl_agents.studies.results import Arm, Claim, SeedResult, Study
from maporl_env.rewards import shaping_bonus
from maporl_env.types import Message, Question, Transcript


def test_there_and_back(tmp_path: Path) -> None:
    study = replace(make_study(), claims=(Claim("It works.", ("debate/training",)),))
    study.save(tmp_path / "study.json")
    assert Study.load(tmp_path / "study.json") == study


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema=99), "layout 99"),
        (lambda d: d.update(schema=1), "layout 1; this version reads 2: make it again"),
        (lambda d: d.pop("claim"), "study lacks claim"),
        (lambda d: d.update(colour="red"), "unknown fields: colour"),
        (lambda d: d["arms"][0].update(role="hero"), r"arms\[0\].role is 'hero': choose one of"),
        (lambda d: d["arms"][0].update(seeds={}), r"arms\[0\].seeds is dict, not a list"),
        (lambda d: d["arms"][1]["seeds"][0].update(seed=True), r"seeds\[0\].seed is True"),
        (lambda d: d["arms"][0].update(control="alone"), "exactly the role 'control'"),
        (lambda d: d["arms"][1].update(of="nobody"), "is of 'nobody', which is none of"),
        (lambda d: d["arms"].append(d["arms"][0]), "an arm stands twice"),
        (lambda d: d.update(metric="score"), "compares scores: arm .* has none"),
        (lambda d: d["arms"][0]["seeds"].append(d["arms"][0]["seeds"][0]), "a seed stands twice"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    data = json.loads(json.dumps(make_study().to_dict()))
    change(data)
    path = tmp_path / "study.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=message) as caught:
        Study.load(path)
    assert str(path) in str(caught.value)


def test_scores_by_seed() -> None:
    arm = make_study().arm("debate")
    assert arm.scores("vote", "after", "sampled") == {0: 0.6, 1: 0.61, 2: 0.62}
    assert arm.scores("mean_accuracy", "after", "sampled", turn=0) == {0: 0.4, 1: 0.4, 2: 0.4}
    assert Arm("a", "A", "method", (SeedResult(0, ()),)).scores("vote", "after", "greedy") == {}
    with pytest.raises(ValueError, match="there are debate, shuffled, single"):
        make_study().arm("nobody")


def debate(*turns: str) -> Transcript:
    """One letter per agent and turn: r is right, w is wrong."""
    agents = tuple(f"agent_{i}" for i in range(len(turns[0])))
    messages = [
        Message(t, agent, "\\boxed{1}" if sign == "r" else "\\boxed{2}")
        for t, row in enumerate(turns)
        for agent, sign in zip(agents, row, strict=True)
    ]
    return Transcript(Question("q", "?", "1"), agents, tuple(messages))


def test_transitions_by_hand() -> None:
    """Turn 1 is w r r, turn 2 is r r w.

    Majorities of the others: of seat 0 right, then a tie (r w); of seat 1 a tie, then a tie; of
    seat 2 a tie (w r), then right (r r).
    """
    assert set(transitions([debate("wrr", "rrw")])) == {
        Transition(0, False, "right", True, "tie", 1),
        Transition(0, True, "tie", True, "tie", 1),
        Transition(0, True, "tie", False, "right", 1),
    }
    assert transitions([debate("wr")]) == ()  # one turn: nobody moved
    assert transitions([debate("w", "r")]) == (Transition(0, False, "tie", True, "tie", 1),)
    steps = transitions([debate("ww", "rr", "wr"), debate("ww", "rr")])
    assert [(move.turn, move.count) for move in steps] == [(0, 4), (1, 1), (1, 1)]


def paid(*turns: str, of: str) -> np.ndarray:
    """What Tables 1 and 2 pay a debate with all weights 1: +1, -1 or 0 per message."""
    right = [[sign == "r" for sign in row] for row in turns]
    one = {"alpha": (1.0, 1.0)} if of == "own" else {"beta": (1.0, 1.0)}
    return shaping_bonus(right, **one)


@pytest.mark.parametrize("of", ["own", "others"])
def test_flips_are_what_the_tables_pay_for(of: str) -> None:
    """Over all debates of three agents and three turns: as many flips as messages paid or deducted.

    alpha is paid to the later message, beta to the earlier one, so turn t is row t + 1, or row t.
    """
    rows = ["".join(signs) for signs in itertools.product("rw", repeat=3)]
    for turns in itertools.product(rows, repeat=3):
        moves = transitions([debate(*turns)])
        bonus_TA = paid(*turns, of=of)
        for turn in (0, 1):
            counted = 0.0
            for own, others in itertools.product((True, False), ("right", "wrong")):
                share, count = flipped(moves, own=own, others=others, of=of, turn=turn)  # type: ignore[arg-type]
                counted += (share or 0.0) * count
            row = bonus_TA[turn + 1] if of == "own" else bonus_TA[turn]
            assert counted == pytest.approx(np.abs(row).sum())


def test_a_majority_that_becomes_a_tie_has_not_flipped() -> None:
    """`rrr -> rwr`: the peers of seats 0 and 2 go from right to a tie, of seat 1 stay right."""
    moves = transitions([debate("rrr", "rwr")])
    assert flipped(moves, own=True, others="right", of="others", turn=0) == (0.0, 3)
    assert flipped(moves, own=True, others="right", of="own", turn=0) == (pytest.approx(1 / 3), 3)
    assert flipped(moves, own=True, others="right", of="own", turn=1) == (None, 0)


def test_rates_by_hand() -> None:
    """Two debates of `www -> rww`: of 6 wrong messages beside wrong majorities 2 became right."""
    moves = transitions([debate("www", "rww")] * 2)
    assert rate(moves, own=False, others="wrong", of="own") == (pytest.approx(1 / 3), 6)
    assert rate(moves, own=True, of="own") == (None, 0)
    assert rate(moves, of="others") == (0.0, 6)  # a tie (r w) and wrong (w w): never right
    with pytest.raises(ValueError, match="choose one of own, others"):
        rate(moves, of="theirs")
