"""Fit the observation of an agent into a token budget.

The persona and the question are never left out. Of the rest, as many of the newest parts are kept
whole as fit; older parts are left out, and a line says so. If even the newest part does not fit,
the other agents' texts in it lose their middle, all down to the same length, each with a mark and
the number of missing characters. So no message, however long, hides the question or ends a debate.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from maporl_env import prompts
from maporl_env.types import View

Part = Callable[[int, int | None], View]
"""`(turn, max_shown)`: the part that is new in a turn; persona and question for turn 0. Each text
of the other agents is cut to `max_shown` characters, None for all."""


@dataclass(frozen=True)
class Parts:
    """The observation of one agent in parts, each worded only when it is needed.

    Attributes:
        question: persona and question, without any message; never left out.
        part: returns the text of a part.
        opened: whether the part of turn 0 holds messages beside the question.
        later: the turns of the other parts, oldest first.
        left_out: the line that replaces parts that are left out.
    """

    question: View
    part: Part
    opened: bool
    later: Sequence[int]
    left_out: str

    @cached_property
    def number(self) -> int:
        """The number of parts that may be left out."""
        return self.opened + len(self.later)

    @cached_property
    def _whole(self) -> Callable[[int], View]:
        return cache(lambda turn: self.part(turn, None))

    def newest(self, count: int, gap: str) -> View:
        """Return the question, a gap and the newest parts; without a gap where these are all."""
        all_of_them = count == self.number
        head, gap = (self._whole(0), "") if all_of_them else (self.question, gap)
        oldest = max(len(self.later) - count, 0)
        return _joined(head, gap, *(self._whole(turn) for turn in self.later[oldest:]))

    def shortened(self, limit: int | None, own: bool) -> View:
        """Return the question and the newest part alone, with shortened texts of others.

        Args:
            limit: characters that are shown of each text of others; None for all.
            own: whether the reader's own message stands in it, which is never shortened.
        """
        if not self.later:
            return self.part(0, limit)
        part = [s for s in self.part(self.later[-1], limit) if own or s[0] != "own"]
        gap = self.left_out if self.number > 1 or not own else ""
        return _joined(self.question, gap, tuple(part))


def fit(parts: Parts, budget_tokens: int, count_tokens: Callable[[str], int]) -> View:
    """Return the longest view that keeps within a budget.

    Takes time in proportion to the budget, however long the debate is.

    Args:
        parts: what may be read.
        budget_tokens: upper bound on the tokens of the rendered view.
        count_tokens: number of tokens of a text; more text must not count less.

    Raises:
        ValueError: not even persona and question fit, which no message can cause.
    """

    def fits(view: View) -> bool:
        return count_tokens(prompts.render(view)) <= budget_tokens

    bare = largest(lambda count: fits(parts.newest(count, "")), parts.number + 1)
    if bare < 0:
        raise ValueError(_too_long(parts.question, budget_tokens, count_tokens))
    if bare == parts.number:
        return parts.newest(bare, "")
    gap = parts.left_out  # short: it takes the place of few parts, so count down from `bare`
    kept = bare - 1 - largest(lambda less: not fits(parts.newest(bare - less, gap)), bare + 1)
    if kept > 0:
        return parts.newest(kept, gap)

    def shortened(own: bool) -> View | None:
        if fits(whole := parts.shortened(None, own)):
            return whole
        shown = largest(lambda limit: fits(parts.shortened(limit, own)), sys.maxsize)
        return parts.shortened(shown, own) if shown >= 0 else None

    return shortened(True) or shortened(False) or parts.newest(0, gap if kept == 0 else "")


def fit_texts(
    made: Callable[[int | None], View],
    question: View,
    budget_tokens: int | None,
    count_tokens: Callable[[str], int],
) -> View:
    """Return a view whose texts of others lose their middles, all alike, to keep within a budget.

    Args:
        made: returns the view with that many characters of each text of others; None for all.
        question: persona and question, which stand alone where nothing else fits.
        budget_tokens: as in `fit`; None for no bound.
        count_tokens: as in `fit`.

    Raises:
        ValueError: not even persona and question fit.
    """

    def fits(view: View) -> bool:
        return budget_tokens is None or count_tokens(prompts.render(view)) <= budget_tokens

    if fits(whole := made(None)):
        return whole
    shown = largest(lambda limit: fits(made(limit)), sys.maxsize)
    if shown >= 0:
        return made(shown)
    if fits(question):
        return question
    assert budget_tokens is not None
    raise ValueError(_too_long(question, budget_tokens, count_tokens))


def largest(holds: Callable[[int], bool], stop: int) -> int:
    """Return the largest number in [0, stop) that holds, -1 if none does.

    If `holds` is true for a number, it must be true for all smaller ones. It is called with numbers
    up to twice the result only, because a call with a large number may be slow.
    """
    low, step = -1, 1
    while low + step < stop and holds(low + step):
        low, step = low + step, 2 * step
    high = min(low + step, stop)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _joined(head: View, gap: str, *parts: View) -> View:
    between: View = (("user", gap),) if gap else ()
    return prompts.join((*head, *between, *(segment for part in parts for segment in part)))


def _too_long(question: View, budget: int, count_tokens: Callable[[str], int]) -> str:
    tokens = count_tokens(prompts.render(question))
    alone = "the question alone takes" if len(question) == 1 else "persona and question alone take"
    return (
        f"{alone} {tokens} tokens, more than the budget of {budget}: raise token_budget or leave "
        "out this question"
    )
