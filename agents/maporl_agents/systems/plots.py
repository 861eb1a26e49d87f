"""Accuracy against tokens per question as SVG text, with the front of best choices."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

from maporl_agents.systems.catalogue import SYSTEMS
from maporl_agents.systems.claims import front, points_of
from maporl_agents.systems.jobs import BenchResult

WIDTH, HEIGHT = 840, 420
LEFT, RIGHT, TOP, BOTTOM = 54, 262, 14, 44
COLOURS = {
    "one model": "#555555",
    "calls": "#b07000",
    "text": "#1f6fb4",
    "logits": "#8a3fa0",
    "weights": "#a03030",
}
TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)


class Scale:
    """Places of tokens (logarithmic) and accuracies in the picture.

    Args:
        tokens: all values that are shown, at least one.
    """

    def __init__(self, tokens: Sequence[float]) -> None:
        self.low = max(0.5, min(tokens)) / 1.25
        self.high = max(max(tokens) * 1.25, self.low * 2)

    def x(self, tokens: float) -> float:
        """Return the horizontal place."""
        share = math.log(max(tokens, self.low) / self.low) / math.log(self.high / self.low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, accuracy: float) -> float:
        """Return the vertical place."""
        return HEIGHT - BOTTOM - accuracy * (HEIGHT - TOP - BOTTOM)


def plot(results: Mapping[str, Sequence[BenchResult]], budget: float) -> str:
    """Return the picture of a task: a line per system over its passes, and the front.

    Filled marks are trained systems. The vertical line is the budget at which systems are compared.
    """
    points = {name: points_of(results[name]) for name in SYSTEMS if results.get(name)}
    scale = Scale([tokens for own in points.values() for tokens, _ in own] + [budget])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        *_axes(scale),
        f'<line x1="{scale.x(budget):.1f}" x2="{scale.x(budget):.1f}" y1="{TOP}" '
        f'y2="{HEIGHT - BOTTOM}" stroke="#999999" stroke-dasharray="4 3"/>',
        _front_line(scale, front(points)),
    ]
    for name, own in points.items():
        parts += _marks(scale, name, own)
    return "\n".join([*parts, *_labels(scale, points), "</svg>"])


def _axes(scale: Scale) -> list[str]:
    parts = []
    for step in range(0, 11, 2):
        y = scale.y(step / 10)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#eeeeee"/>'
        )
        parts.append(
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{step / 10:.1f}</text>'
        )
    for tick in TICKS:
        if scale.low <= tick <= scale.high:
            x, y = scale.x(tick), HEIGHT - BOTTOM
            parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 4}" stroke="black"/>')
            parts.append(f'<text x="{x:.1f}" y="{y + 16}" text-anchor="middle">{tick:,}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    words = "generated tokens per question (logarithmic)"
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{words}</text>')
    parts.append(f'<text transform="translate(14 {HEIGHT / 2}) rotate(-90)">accuracy</text>')
    return parts


def _front_line(scale: Scale, best: Sequence[tuple[float, float, str]]) -> str:
    """Return the front as steps: from each choice on, until a better one can be paid for."""
    path = ""
    for place, (tokens, accuracy, _) in enumerate(best):
        x, y = scale.x(tokens), scale.y(accuracy)
        path += f"M{x:.1f} {y:.1f}" if not place else f"H{x:.1f}V{y:.1f}"
    path += f"H{WIDTH - RIGHT}"
    return f'<path d="{path}" fill="none" stroke="#2a9d4a" stroke-width="5" opacity="0.35"/>'


def _marks(scale: Scale, name: str, points: Sequence[tuple[float, float]]) -> list[str]:
    system = SYSTEMS[name]
    colour = COLOURS[system.level]
    places = [(scale.x(tokens), scale.y(accuracy)) for tokens, accuracy in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [f'<polyline points="{line}" fill="none" stroke="{colour}" opacity="0.4"/>']
    for count, ((x, y), (tokens, accuracy)) in enumerate(zip(places, points, strict=True), start=1):
        fill = colour if system.trained else "white"
        said = html.escape(f"{system.label}, {count} x: {accuracy:.3f} at {tokens:.0f} tokens")
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{4 if count == len(points) else 2.2}" '
            f'fill="{fill}" stroke="{colour}"><title>{said}</title></circle>'
        )
    return parts


def _labels(scale: Scale, points: Mapping[str, Sequence[tuple[float, float]]]) -> list[str]:
    """Return the names at the right edge, apart from each other, each with a line to its mark."""
    ends = sorted((scale.y(own[-1][1]), scale.x(own[-1][0]), name) for name, own in points.items())
    gap = min(14.0, (HEIGHT - TOP - 10) / max(1, len(ends)))
    parts, lowest = [], TOP + 2.0
    first = max(0.0, (ends[-1][0] if ends else 0.0) + 4 - (HEIGHT - 6))
    for place, (y, x, name) in enumerate(ends):
        left = len(ends) - place - 1
        at = min(max(lowest, y - first), HEIGHT - 6 - left * gap)
        lowest = at + gap
        colour = COLOURS[SYSTEMS[name].level]
        edge = WIDTH - RIGHT + 8
        parts.append(
            f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{edge - 2}" y2="{at - 3:.1f}" stroke="{colour}" '
            'opacity="0.2"/>'
        )
        parts.append(
            f'<text x="{edge}" y="{at:.1f}" fill="{colour}">'
            f"{html.escape(SYSTEMS[name].label[:46])}</text>"
        )
    return parts
