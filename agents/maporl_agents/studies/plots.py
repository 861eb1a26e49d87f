"""The plot of a study: the score of every arm, and the difference that decides each claim."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

from maporl_agents.studies.printed import COLUMNS, PrintedClaim, PrintedStudy

COLOURS = {"holds": "tab:green", "fails": "tab:red"}
"""Judgement -> colour; others are grey."""
FIGURE = r"([+-]?\d*\.\d+)(?: ± (\d*\.\d+))?"
"""A printed mean, with the half width of its interval where there is one."""
SIGNED = FIGURE.replace("[+-]?", "[+-]")
LABEL_WIDTH = 44


class Point(NamedTuple):
    """A printed mean and the half width of its 95 % interval, 0 where none is printed."""

    mean: float
    half_width: float


def save_plot(study: PrintedStudy, path: Path) -> None:
    """Draw a study's arms and, beside them, its claims; write a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    claims = [claim for claim in study.claims if deciding_difference(claim) is not None]
    height = 1.2 + 0.36 * max(len(study.rows), 1.3 * len(claims))
    panels = 2 if claims else 1
    figure = Figure(figsize=(6.2 * panels, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _draw_arms(axes[0], study)
    if claims:
        _draw_claims(axes[1], claims)
    figure.savefig(path, dpi=80, metadata={"Software": None})


def last_scores(study: PrintedStudy) -> list[tuple[str, float | None, Point | None]]:
    """Return label, last turn before training and last turn after it, for each arm."""
    found = []
    for row in study.rows:
        cells = dict(zip(COLUMNS, row, strict=True))
        before = re.findall(FIGURE, cells["turns, before"])
        after = re.search(FIGURE, cells["last turn, after"])
        found.append((cells["arm"], float(before[-1][0]) if before else None, _point(after)))
    return found


def deciding_difference(claim: PrintedClaim) -> Point | None:
    """Return the difference that decided a claim: the loss by shuffling, else the first."""
    lost = re.search("lost by shuffling " + SIGNED, claim.because)
    return _point(lost or re.search(SIGNED, claim.because))


def _point(match: re.Match[str] | None) -> Point | None:
    return None if match is None else Point(float(match[1]), float(match[2] or 0))


def _draw_arms(axes: Any, study: PrintedStudy) -> None:
    arms = last_scores(study)
    for height, (_, before, after) in enumerate(arms):
        if after is not None:
            axes.errorbar(after.mean, height, xerr=after.half_width, fmt="o", color="tab:blue")
        if before is not None:
            axes.plot(before, height, "o", color="tab:blue", markerfacecolor="white")
    _label(axes, [label for label, *_ in arms])
    axes.set(xlabel="score in the last turn", xlim=(0, 1), title=f"{study.name}: arms")


def _draw_claims(axes: Any, claims: list[PrintedClaim]) -> None:
    for height, claim in enumerate(claims):
        point = deciding_difference(claim)
        if point is not None:
            colour = COLOURS.get(claim.sampled, "tab:gray")
            axes.errorbar(point.mean, height, xerr=point.half_width, fmt="s", color=colour)
    axes.axvline(0, color="black", linewidth=0.8)
    _label(axes, [f"{claim.words} ({claim.sampled})" for claim in claims])
    axes.set(xlabel="deciding difference", title="claims")


def _label(axes: Any, labels: list[str]) -> None:
    wrapped = [textwrap.fill(label, LABEL_WIDTH) for label in labels]
    axes.set_yticks(range(len(labels)), wrapped, fontsize=8)
    axes.set_ylim(len(labels) - 0.5, -0.5)  # the first row on top
    axes.grid(axis="x", alpha=0.3)
