"""curve.png is drawn from the metrics and the results of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from maporl_agents.measure.learning_curve import draw_curve


@pytest.mark.filterwarnings("error")
def test_a_run_that_was_never_scored_has_a_picture_without_a_curve(tmp_path: Path) -> None:
    turn = {"vote": 0.5, "vote_interval": 0.1}
    results = {"sampled": {"turns": [turn], "num_questions": 4}}
    draw_curve([{"step": 1}], results, results, tmp_path / "curve.png", "4 questions")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
