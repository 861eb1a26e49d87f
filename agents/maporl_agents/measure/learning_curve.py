"""The learning curve of a run as a picture: curve.png, by matplotlib.

The charts of the HTML report are drawn by its own scripts, from `webpage.chart_data`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maporl_agents.measure.terminal_report import Results

TURN_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")


def draw_curve(
    metrics: Sequence[Mapping[str, Any]],
    before: Results,
    after: Results,
    path: Path,
    asked: str = "held-out questions",
) -> None:
    """Draw accuracy by turn over the steps, and bars before and after; write a PNG.

    Args:
        metrics: one dict per step with "step" and "score/turn_1", ... as logged, and "validation"
            where the last turn was measured on the validation slice.
        before: results before training.
        after: results after training.
        path: the file.
        asked: what was measured on.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    curve, bars = figure.subplots(1, 2, width_ratios=(3, 2))
    turns = len(after["sampled"]["turns"])
    for t in range(turns):
        points = [
            (row["step"], row[f"score/turn_{t + 1}"])
            for row in metrics
            if row.get(f"score/turn_{t + 1}") is not None
        ]
        if points:
            colour = TURN_COLOURS[t % len(TURN_COLOURS)]
            curve.plot(*zip(*points, strict=True), color=colour, label=f"turn {t + 1}")
    measured = [(row["step"], row["validation"]) for row in metrics if "validation" in row]
    if measured:
        curve.plot(*zip(*measured, strict=True), "k--o", markersize=4, label="validation")
    curve.set(xlabel="step", ylabel="mean verifier score", ylim=(0, 1), title="training questions")
    if curve.lines:  # none where the verifier gave no score
        curve.legend(loc="upper left")
    curve.grid(alpha=0.3)
    _draw_bars(bars, {"before": before["sampled"], "after": after["sampled"]}, f"{asked}, sampled")
    figure.savefig(path, dpi=120)


def _draw_bars(axes: Any, stages: Mapping[str, Mapping[str, Any]], title: str) -> None:
    """Draw the vote of every turn by stage, with intervals."""
    turns = max(len(evaluation["turns"]) for evaluation in stages.values())
    width = 0.8 / turns
    for place, evaluation in enumerate(stages.values()):
        for t, turn in enumerate(evaluation["turns"]):
            axes.bar(
                place - 0.4 + width * (t + 0.5),
                turn["vote"],
                width * 0.9,
                yerr=turn["vote_interval"],
                capsize=3,
                color=TURN_COLOURS[t % len(TURN_COLOURS)],
                label=f"turn {t + 1}" if place == 0 else None,
            )
    axes.set_xticks(
        range(len(stages)),
        [f"{stage}\n{each['num_questions']:,} questions" for stage, each in stages.items()],
    )
    axes.set(ylim=(0, 1), ylabel="accuracy of the vote", title=title)
    axes.grid(axis="y", alpha=0.3)
