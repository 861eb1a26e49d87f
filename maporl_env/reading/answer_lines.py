r"""The answer rule `answer_line`: the last number on the line that begins with `Answer:`.

A rule for language models that do not write `\boxed{}`. It is as strict as that of boxes:

- **The last line that begins with `Answer:` counts**, in exactly these letters; blanks may stand
  before it, and Markdown's `**` around it. Without such a line there is no answer. If its number
  cannot be read there is no answer either: earlier lines do not count.
- **The last number on that line is the answer**: `Answer: 3 + 4 = 7 apples.` is 7. A number is what
  `answers` reads in a box (`-7`, `1,234`, `1/2`, `\frac{1}{2}`, `$7`, `7%` which is 7, `1.5e3`),
  with or without a sentence's last mark, quotes or `*` around it; before it may stand `x =`.
- **Words may stand beside it**, as units do, but none that makes it another number: `2 million`,
  `2 and a half`, `minus 2`. No answer are two numbers side by side (`1 1/2`, `3, 4`), an unfinished
  or unsolved expression (`3 +`, `3 - 4`), a range (`3-4`), a number in other characters (`1e2x`,
  `7:30`, `(7)`), digits outside ASCII, and a line of more than 1,000 characters.

Reading takes time linear in the text, and no text raises.
"""

from __future__ import annotations

import re

MARKER = "Answer:"
MAX_LINE = 1_000
_OPENINGS = ("", "**", "__")
_BLANKS = re.compile(r"[ \t\r\f\v]+")
_AROUND = "*_`\"'"
_SIGNS = ("+", "-", "\u2212")
_OPERATORS = (*_SIGNS, *("*", "/", "^", "=", "\u00d7", "\u00f7", "\u00b7", "\u2013"))
_OPERATOR_WORDS = frozenset(
    ("x", "times", "plus", "minus", "negative", "over", r"\times", r"\cdot", r"\div")
)
_MULTIPLES = frozenset(
    (
        *("hundred", "hundreds", "thousand", "thousands", "million", "millions", "billion"),
        *("billions", "trillion", "trillions", "dozen", "dozens", "k", "m", "bn"),
        *("half", "halves", "third", "thirds", "quarter", "quarters", "fourth", "fourths"),
        *("fifth", "fifths", "sixth", "sixths", "eighth", "eighths", "tenth", "tenths"),
    )
)


def answer_line(text: str) -> str | None:
    """Return the text of the last number on the last answer line; None if no rule finds one.

    The text returned may still be no number: `answers` reads it.
    """
    line = _last_line(text)
    if line is None or len(line) > MAX_LINE:
        return None
    words = [word for word in _BLANKS.split(line) if word.strip(_AROUND)]
    places = [place for place, word in enumerate(words) if any(map(str.isnumeric, word))]
    if not places:
        return None
    place = places[-1]
    if any(_changes(word) for word in words[place + 1 :]) or _goes_on(words[place + 1 :]):
        return None
    sign = _sign_before(words[:place])
    return None if sign is None else sign + _bare(words[place])


def _last_line(text: str) -> str | None:
    """Return the text behind the marker of the last line that begins with it."""
    first, last = text.find(MARKER), text.rfind(MARKER)
    if first < 0:
        return None
    start, end = text.rfind("\n", 0, first) + 1, text.find("\n", last)
    for line in reversed(text[start : end if end >= 0 else len(text)].split("\n")):
        if line.lstrip(" \t*_").startswith(MARKER):
            before, _, behind = line.partition(MARKER)
            if before.strip(" \t") in _OPENINGS:
                return behind
    return None


def _bare(word: str) -> str:
    """Return a word without a sentence's marks around it, and without `x =` before it."""
    word = word.strip(_AROUND).rstrip(".,;:!?" + _AROUND)
    return word.rpartition("=")[2] if "=" in word else word


def _changes(word: str) -> bool:
    return word.strip(_AROUND + ".,;:!?()").lower() in _MULTIPLES


def _goes_on(after: list[str]) -> bool:
    """Whether the expression goes on behind the number."""
    return bool(after) and (after[0].startswith(_OPERATORS) or _plain(after[0]) in _OPERATOR_WORDS)


def _plain(word: str) -> str:
    return word.strip(_AROUND + ".,;:").lower()


def _sign_before(before: list[str]) -> str | None:
    """Return the sign that stands apart before a number, "" for none; None within an expression."""
    if not before:
        return ""
    last = before[-1]
    if last in _SIGNS and (len(before) == 1 or before[-2].endswith("=")):
        return last
    beside_number = any(map(str.isnumeric, last)) and not last.endswith("=")
    if beside_number or _plain(last) in _OPERATOR_WORDS:
        return None
    operator = last.endswith(_OPERATORS) and not last.endswith(("=", "*"))
    return None if operator or last == "*" else ""
