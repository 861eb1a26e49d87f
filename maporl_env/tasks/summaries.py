"""Two agents summarise one text, each in its own way: MAGRPO's writing tasks on local text.

"tldr": a short and a detailed summary of a post. "sections": the background part and the method
part of an introduction. The reward of the pair rises in levels (Liu et al., arXiv 2508.04652, and
its published code); a level that is missed ends the sum. With q the length of text 2 over that of
text 1 in characters, u the same of their different words, J the Jaccard overlap of their content
words, and t what their transition words are worth:

| level | tldr | sections | worth |
|---|---|---|---|
| 1 | both 8 to 256 words | both 128 to 256 words | .5 |
| 2 | q from 1.1, full in 1.6 to 3.2, to 5 | q from .8, full in 1.3 to 1.6, to 2 | 1 |
| 3 | u from 1.3, full from 2 | u from .5, full in .7 to 1.3, to 1.7 | .5 |
| 4 | .4 t + .6 min(J, .03) / .03 | .4 t + .6 min(J, .23) / .23 | 1 |

t = min(1, .4 + .05 (k - 1)) with k of 12 kinds of transition words found (in text 2 of "tldr", in
both of "sections"), 0 with none. Nothing here looks at whether a summary is true to its text.

Differences from the published code: transition words are whole words (there "as" is found in
"last"), their list and that of the stop words are ours, "sections" counts words and not tokens, and
the verifier gives reward / 3, in [0, 1].
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from maporl_env.prompts import Template
from maporl_env.tasks.base import Task
from maporl_env.tasks.files import read_rows
from maporl_env.tasks.splits import Numbered, Row, Splits, rows_by_split, with_stand_ins
from maporl_env.types import Question

StyleName = Literal["tldr", "sections"]
MAX_REWARD = 3.0
MAX_CHARS = 20_000
"""A longer part breaks every word limit; it is not read."""
TEST_EVERY = 10
"""One in ten texts is for "test", the one before it for "validation"."""

TRANSITIONS: dict[str, tuple[str, ...]] = {
    "addition": ("also", "moreover", "furthermore", "additionally", "besides"),
    "contrast": ("but", "however", "although", "yet", "whereas", "nevertheless"),
    "cause": ("because", "since", "as"),
    "effect": ("so", "therefore", "thus", "hence", "consequently"),
    "time": ("then", "next", "later", "afterwards", "meanwhile"),
    "order": ("first", "second", "third", "finally", "lastly"),
    "example": ("for example", "for instance", "such as", "namely"),
    "emphasis": ("indeed", "in fact", "especially", "notably"),
    "comparison": ("similarly", "likewise", "just as"),
    "condition": ("if", "unless", "provided", "otherwise"),
    "purpose": ("in order to", "so that"),
    "conclusion": ("overall", "in summary", "in conclusion", "to sum up", "in short"),
}
"""The 12 kinds of transition words."""

STOP_WORDS = frozenset(
    """
    a an and are as at be been but by can did do does for from had has have he her his i if in is it
    its me my no not of on or our she so than that the their them then there these they this to was
    we were what when which who will with would you your
    """.split()  # noqa: SIM905, as a list of literals it is hard to read
)

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_KINDS = tuple(
    re.compile(r"\b(?:" + "|".join(map(re.escape, words)) + r")\b")
    for words in TRANSITIONS.values()
)
Band = tuple[float, float, float, float]


@dataclass(frozen=True)
class Style:
    """Targets for a pair of texts.

    Attributes:
        words: least and greatest number of words of either text.
        length: of the ratio of lengths: where its credit begins, is full, ends being full, ends.
        variety: likewise of the ratio of different words.
        overlap: Jaccard index from which on the overlap scores 1.
        only_second: look for transition words in text 2 alone.
    """

    words: tuple[int, int]
    length: Band
    variety: Band
    overlap: float
    only_second: bool


STYLES: dict[str, Style] = {
    "tldr": Style((8, 256), (1.1, 1.6, 3.2, 5.0), (1.3, 2.0, math.inf, math.inf), 0.03, True),
    "sections": Style((128, 256), (0.8, 1.3, 1.6, 2.0), (0.5, 0.7, 1.3, 1.7), 0.23, False),
}


def writing_reward(first: str, second: str, style: Style) -> float:
    """Return the reward of a pair of texts, in [0, 3]; see the module's table."""
    if max(len(first), len(second)) > MAX_CHARS:
        return 0.0
    words = [_WORD.findall(text.lower()) for text in (first, second)]
    least, greatest = style.words
    if not all(least <= len(each) <= greatest for each in words):
        return 0.0
    reward = 0.5
    for value, band, worth in (
        (len(second) / len(first), style.length, 1.0),
        (len(set(words[1])) / len(set(words[0])), style.variety, 0.5),
    ):
        share = credit(value, band)
        if share is None:
            return reward
        reward += worth * share
    text = second if style.only_second else f"{first}\n{second}"
    overlap = min(jaccard(*words), style.overlap) / style.overlap
    return reward + 0.4 * transition_score(text) + 0.6 * overlap


def credit(value: float, band: Band) -> float | None:
    """Return the share in [0, 1] of a value in a band with sloping ends; None outside of it."""
    begin, full, full_end, end = band
    if not begin <= value <= end:
        return None
    if value < full:
        return (value - begin) / (full - begin)
    return 1.0 if value <= full_end else (end - value) / (end - full_end)


def jaccard(first: Sequence[str], second: Sequence[str]) -> float:
    """Return the overlap of two lists of words without stop words: shared / all; 0 without any."""
    one, other = (set(words) - STOP_WORDS for words in (first, second))
    return len(one & other) / len(one | other) if one | other else 0.0


def transition_score(text: str) -> float:
    """Return the score in [0, 1] for the kinds of transition words in a text."""
    lower = text.lower()
    kinds = sum(pattern.search(lower) is not None for pattern in _KINDS)
    return min(1.0, 0.4 + 0.05 * (kinds - 1)) if kinds else 0.0


@dataclass(frozen=True)
class Writing:
    """The verifier: `writing_reward` / 3 of a joint answer, a JSON list of two texts.

    Attributes:
        style: "tldr" or "sections".
    """

    style: StyleName = "tldr"

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise ValueError(
                f"unknown style {self.style!r}: choose one of {', '.join(get_args(StyleName))}"
            )

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        """Return one score in [0, 1] per joint answer; ValueError unless it has two parts."""
        return [self._one(text) for text in responses]

    def _one(self, text: str) -> float:
        parts = json.loads(text)
        if len(parts) != 2:
            raise ValueError(f"a pair of summaries has two parts, not {len(parts)}")
        return writing_reward(parts[0], parts[1], STYLES[self.style]) / MAX_REWARD


ROLES: dict[str, tuple[str, str]] = {
    "tldr": (
        "You write a short summary: one or two sentences.",
        "You write a detailed summary, two to three times as long as a short one, in other words.",
    ),
    "sections": (
        "You write the background of the introduction: why the problem matters, what is known.",
        "You write the method and its meaning: what is done and what follows. Do not repeat the "
        "background.",
    ),
}
TEMPLATE = Template(
    instruction="Write only the text you are asked for.",
    opening="Summarise this text.\n\n{question}\n\n{instruction}\n",
    again="\nThe text again:\n\n{question}\n\n{instruction}\n",
)


def load(data: str | Path | None = None, *, style: StyleName = "tldr") -> Task:
    """Return the task: one question per text of a local file.

    A column "split" divides the texts; without it every tenth one is for "test" and the one before
    it for "validation".

    Args:
        data: a .jsonl or .csv file with a column "text", "document" or "prompt".
        style: which pair is to be written.

    Raises:
        ValueError: no file is given, a row has no text, or no split where others have one; with
            file and line number.
    """
    if data is None:
        raise ValueError(
            "summaries are written of your own texts: give data, a .jsonl or .csv file with a "
            "column 'text'"
        )
    rows = list(read_rows(Path(data)))
    if not rows:
        raise ValueError(f"{data} holds no text")
    return Task(
        name=f"summaries-{style}",
        splits=_splits(rows, style),
        template=TEMPLATE,
        make_verifier=lambda: Writing(style),
        joiner=json.dumps,
        roles=ROLES[style],
    )


def _splits(rows: Sequence[Numbered], style: str) -> Splits:
    texts = [(where, _text(row, where)) for where, row in rows]
    asked = {w: Question(f"{style}/{i}", t, t, "text") for i, (w, t) in enumerate(texts)}
    if marked := rows_by_split(rows):
        divided: Splits = {name: [asked[w] for w, _ in part] for name, part in marked.items()}
        return with_stand_ins(divided)
    questions = list(asked.values())
    parts = {
        "train": [q for i, q in enumerate(questions) if i % TEST_EVERY < TEST_EVERY - 2],
        "validation": questions[TEST_EVERY - 2 :: TEST_EVERY],
        "test": questions[TEST_EVERY - 1 :: TEST_EVERY],
    }
    return {name: part for name, part in parts.items() if part}


def _text(row: Row, where: str) -> str:
    for column in ("text", "document", "prompt"):
        value = row.get(column)
        if isinstance(value, str) and value.strip():
            return value.strip()
    raise ValueError(f"{where}: no text in column text, document or prompt")
