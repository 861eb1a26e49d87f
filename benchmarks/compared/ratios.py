"""Ratios of measured seconds, and the lines of the table that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compared.turns import Measured


@dataclass(frozen=True)
class Ratio:
    """The ratio of two sides' times, over rounds taken in turns.

    Attributes:
        middle: median over median.
        low: least of the rounds.
        high: largest of the rounds.
    """

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.2f}x ({self.low:.2f}-{self.high:.2f})"


def ratio(theirs: Measured, ours: Measured) -> Ratio:
    """Return the time of the other side over ours: above 1, ours is faster."""
    rounds = [a / b for a, b in zip(theirs.seconds, ours.seconds, strict=True)]
    return Ratio(theirs.middle / ours.middle, min(rounds), max(rounds))


def best(theirs: Measured, ours: Measured) -> float:
    """Return the same of the fastest round of each, which neighbours disturbed least."""
    return min(theirs.seconds) / min(ours.seconds)


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes:
        goal: its number, as G1.
        measure: the sentence.
        found: what was found.
        wanted: the goal.
        seconds: of both sides, or another remark.
    """

    goal: str
    measure: str
    found: str
    wanted: str = ""
    seconds: str = ""

    def __str__(self) -> str:
        return f"| {self.goal} | {self.measure} | {self.found} | {self.wanted} | {self.seconds} |"


HEAD = "| | measure | found (min-max) | goal | CPU seconds, peer / ours |\n|---|---|---|---|---|"


def both(theirs: Measured, ours: Measured) -> str:
    """Return the median seconds of both sides."""
    return f"{theirs.middle:.2f} / {ours.middle:.2f}"


def mebibytes(sizes: Sequence[int]) -> str:
    """Return sizes in MiB."""
    return ", ".join(f"{size / 2**20:.0f}" for size in sizes)


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Return the slope of the line through points that leaves least squares."""
    x0, y0 = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - x0) * (y - y0) for x, y in zip(xs, ys, strict=True)) / sum(
        (x - x0) ** 2 for x in xs
    )
