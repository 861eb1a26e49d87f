"""Penalties of a message, taken off its reward: length, repetition, format, cut-off.

They depend on the message alone. `credit.Credit` takes them off the reward of its author; all are
off by default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from maporl_env.answers import extract_answer
from maporl_env.declared import COST, Checked, whole
from maporl_env.types import Message


@dataclass(frozen=True, slots=True)
class Penalties(Checked):
    """Penalties for the form of a message, charged to its author, in units of reward.

    Attributes:
        too_short: cost of a message of fewer than `min_words` words.
        min_words: see `too_short`.
        repetition: cost of a message that repeats itself, see `max_repeats`.
        max_repeats: the number of times that a run of `ngram` words may occur.
        ngram: length in words of the runs that are counted.
        no_answer: cost of a message from which no final answer can be read. It is not charged to a
            message whose end was cut, which may have held the answer; `unfinished` is.
        unfinished: cost of a message whose end was cut, by its author's limit of tokens or by the
            action space. A message that its author ended, be it with a stop text, is finished.
    """

    too_short: Annotated[float, COST] = 0.0
    min_words: Annotated[int, whole(1)] = 5
    repetition: Annotated[float, COST] = 0.0
    max_repeats: Annotated[int, whole(1)] = 3
    ngram: Annotated[int, whole(1)] = 4
    no_answer: Annotated[float, COST] = 0.0
    unfinished: Annotated[float, COST] = 0.0

    def __bool__(self) -> bool:
        """Whether any penalty is on."""
        return any((self.too_short, self.repetition, self.no_answer, self.unfinished))

    def of(self, message: Message, kind: str) -> float:
        """Return the sum of the penalties of one message, >= 0."""
        words = message.text.split()
        cost = self.too_short if len(words) < self.min_words else 0.0
        if self.repetition and self.repeats(words):
            cost += self.repetition
        if message.cut:
            cost += self.unfinished
        elif self.no_answer and extract_answer(message.text, kind) is None:
            cost += self.no_answer
        return cost

    def repeats(self, words: list[str]) -> bool:
        """Whether some run of `ngram` words occurs more than `max_repeats` times."""
        counts: dict[tuple[str, ...], int] = {}
        for start in range(len(words) - self.ngram + 1):
            run = tuple(words[start : start + self.ngram])
            counts[run] = counts.get(run, 0) + 1
            if counts[run] > self.max_repeats:
                return True
        return False
