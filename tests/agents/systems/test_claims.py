"""What is ahead: the front, and differences judged by their corrected p."""

from __future__ import annotations

from maporl_agents.systems.claims import front, judged
from maporl_agents.systems.two_way_intervals import paired


def test_the_front_holds_what_nothing_cheaper_beats() -> None:
    points = {"a": [(10.0, 0.3), (20.0, 0.5)], "b": [(20.0, 0.6)], "c": [(30.0, 0.6), (40.0, 0.9)]}
    assert front(points) == [(10.0, 0.3, "a"), (20.0, 0.6, "b"), (40.0, 0.9, "c")]


def test_a_difference_is_judged_by_its_corrected_p() -> None:
    gap = paired([[1.0, 1.0, 0.0]] * 2, [[0.0, 0.0, 0.0]] * 2)
    assert judged(gap, 0.01) == "ahead"
    assert judged(paired([[0.0, 0.0]] * 2, [[1.0, 1.0]] * 2), 0.01) == "behind"
    assert judged(gap, 0.05) == "not shown"
    assert judged(gap, None) == judged(None, None) == "not measured"
