"""The question of the tests of private texts, with a mark in every text that is not for all."""

from __future__ import annotations

from collections.abc import Sequence

from maporl_env.types import Question

LINES = ("reference-of-nobody 'first' line", "reference-of-nobody second line")
HIDDEN = "\n".join(LINES)
"""Of several lines, as programs are, and with quotes: what quotes it may escape both."""
SIGN = "reference-of-nobody"
"""Stands in every line of the reference."""


def mark(seat: int) -> str:
    return f"<for-{seat}-alone>"


def told(num_agents: int, silent: Sequence[int] = ()) -> Question:
    """A question that tells each agent something, but for the silent ones."""
    private = ["" if seat in silent else f"Your word: {mark(seat)}" for seat in range(num_agents)]
    return Question("told", "What is it?", "7", private=tuple(private), hidden=HIDDEN)
