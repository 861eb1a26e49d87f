r"""Reading the answer of a message, by kind.

An agent marks its answer with `\boxed{...}`; only the marked answer counts, never something found
in running text. Rules:

- **The last complete box counts.** Braces must balance; `\{` and `\}` are ordinary characters, and
  one blank may stand before the opening brace. Of nested boxes the outermost counts. A box that
  never closes is ignored, so a truncated `\boxed{3` leaves the box before it standing. A complete
  box that cannot be read is "no answer", whatever stood before it. A box counts whoever wrote it
  first: a message that ends by quoting a peer's box has adopted that answer.
- **"number"**: an int, or a Fraction where not whole; always exact. Read are `34`, `-34`, `+34`,
  `34.0`, `.5`, `1,234.5` or `1\,234.5` (only with correct grouping), `$34`, `34%` (which is 34),
  `1/2`, `\frac{1}{2}`, `1.5e3` (exponent of at most three digits), with LaTeX wrappers and spacing
  such as `\$`, `\%`, `\text{34}`, `{\bf 34}`. Thousands may be set apart by a comma or a space of
  typesetting (`\,`, `\;`, `\:`, `\ `, also by name as `\thinspace`, `~`, U+2009, U+202F, U+00A0),
  never by an ordinary blank, and by one kind throughout (but `{,}` goes with `\,`). No answer are
  several numbers, ranges, expressions, mixed numbers, any word (also a unit, because `2 million` is
  not 2), digits outside ASCII, a zero denominator, and more than 1,000 characters. A float written
  to its last digit is read as the short decimal or fraction it stands for: `0.30000000000000004` is
  3/10, `33.333333333333336` is 100/3.
- **"nli"**: `entailment`, `neutral` or `contradiction`, in any case, alone in the box (wrappers
  and punctuation aside); returned in lower case. **"choice"**: likewise one letter from A to J,
  as in `(B).`; returned in upper case.
- **"phrase"**: a text in lower case, without ASCII punctuation, articles and repeated spaces.
- **"text"**: the content of the box, trimmed, not empty, without LaTeX wrappers around the whole
  (`\text{red}.` is `red`, `\text{a}\text{ b}` is `a b`) and without the backslash of `\_`, `\&`,
  `\#`, `\%` and `\$`; compared exactly (`verifiers.latex_equivalence` compares by value).
- **"answer_line"**: a number on a line that begins with `Answer:`, see `answer_lines`; the option
  `answer_rule` reads questions of kind "number" so. **"last_line"**: a number after `A:` at the
  start of the last line that is not blank, as in `A: 34`; for recorded texts that end so.
- **"scored"**: a "number" if the box reads as one, else a "text"; a scorer tells what is right.
- **"code"**: the program among the complete fenced blocks, see `code_blocks.program_among`; if the
  message has no fence at all, the content of the box.

Every function takes time linear in the text, and no string raises. The caller guarantees `str`.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from maporl_env.reading.answer_lines import answer_line
from maporl_env.reading.code_blocks import TooMuchMarkdown, code_blocks, program_among
from maporl_env.types import Answer

Reader = Callable[[str], Answer | None]
Finder = Callable[[str], str | None]

NLI_LABELS = ("entailment", "neutral", "contradiction")
CHOICES = "ABCDEFGHIJ"
MAX_CHARS = 1_000  # of a number or a label; keeps every integer far below Python's conversion limit
MAX_WRAPPERS = 8  # that are taken off one answer
FLOAT_DIGITS = 15  # fewest significant digits of a float that its rounding errors show in
FLOAT_PLACES = 10  # fewest of them behind the point: what people write is exact
DUST = 8  # rounding errors of a sum or product, in units of a float's last place

_PLAIN_BOX = re.compile(r"\\boxed[ \t\r\n]?\{([^{}\\]*)\}")
_OF_TEXT = r"\\(?:[mfh]box|emph|text(?:rm|bf|it|sf|tt|sc|sl|up|md|normal)?)\s*"
_WRAPPER = re.compile(
    rf"(?:{_OF_TEXT}|\\(?:boxed|underline|operatorname|boldsymbol|bm|math(?:rm|bf|it|sf|tt|normal))"
    r"\s*)\{(.*)\}\.?|\{(.*)\}|\$(.*)\$|\\\((.*)\\\)|\\\[(.*)\\\]"
    r"|\\(?:(?:rm|bf|it|sf|tt|sc|sl|em|bfseries|itshape|(?:display|text)style)(?![A-Za-z])"
    r"|(?:text)?color\s*\{[^{}]*\})(.*)",  # a switch, which holds for all that follows
    re.DOTALL,
)
_PIECE = re.compile(rf"{_OF_TEXT}\{{([^{{}}\\$]*)\}}|(\\[,:; ]|~)")
_SPACES_AHEAD = re.compile(r"\A(?:\\[,:;>! ]\s*)+")
_SPACES_BEHIND = re.compile(r"\A(?:[,:;>!]\\\s*)+")  # in the reversed text
_NAMED_SPACE = re.compile(
    r"\\(thin|med|thick|nobreak|en|neg(?:thin|med|thick)|)space(?![A-Za-z])\s*(?:\{\})?"
    r"|\\q?quad(?![A-Za-z])\s*(?:\{\})?"
)
_SPACES = {"thin": r"\,", "med": r"\:", "thick": r"\;", "nobreak": "~", "": r"\ ", "en": " "}
_BRACED_GROUP = re.compile(r"(?<=[0-9])(?:(?:\{(?:\\[,:; ]|~|,)[0-9]{3}\})+|\{(?:\\[,:; ]|~)\})")
_GROUPED = re.compile(
    r"""(?<![0-9.,])(?<!\{,\})[1-9][0-9]{0,2}
    (?:(?:\{,\}[0-9]{3})*\\,[0-9]{3}(?:(?:\\,|\{,\})[0-9]{3})*
    |(\\[:;\ ]|~|[\u2009\u202f\u00a0])[0-9]{3}(?:\1[0-9]{3})*)(?![0-9])""",
    re.VERBOSE,
)
_NO_DIGITS = re.compile(r"[^0-9]+")
_LATEX_SPELLINGS = (
    *((rf"\{sign}", sign) for sign in "$%"),
    *((space, " ") for space in (r"\,", r"\:", r"\;", r"\ ", "~")),
    ("{,}", ","),
    ("\u2212", "-"),  # the minus sign of typeset mathematics
)
_FRAC = re.compile(r"\\[dtc]?frac\s*(\{[^{}]*\}|[0-9])\s*(\{[^{}]*\}|[0-9])")
_MAGNITUDE = (
    r"(?:(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?"
)
_NUMBER = re.compile(
    rf"""(?:(?P<sign>[+-]?)\s*(?:[$€£]\s*)?|[$€£]\s*(?P<inner_sign>[+-])\s*)
    (?P<top>{_MAGNITUDE})\s*(?:/\s*(?P<bottom>[+-]?{_MAGNITUDE})\s*)?[$€£%]?""",
    re.VERBOSE,
)
_BLANKS = np.frombuffer(b" \t\r\n", dtype=np.uint8)
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def extract_answer(text: str, kind: str) -> Answer | None:
    r"""Return the answer that a message marks, or None for "no answer".

    Args:
        text: the agent's own message, without its end-of-sequence marker. Any characters.
        kind: a key of `KINDS`.

    Raises:
        ValueError: unknown `kind`.
    """
    rule = _kind(kind)
    marked = rule.find(text)
    return None if marked is None else rule.read(marked)


def parse_answer(text: str, kind: str) -> Answer | None:
    """Return a bare answer (no box needed), such as a gold answer, or None if it cannot be read.

    Raises:
        ValueError: unknown `kind`.
    """
    return _kind(kind).read(text)


def read_gold(answer: str | int | float | Fraction, kind: str) -> Answer:
    """Return a gold answer, or refuse it: an unreadable key would make every answer wrong.

    Raises:
        ValueError: unknown `kind`, or an answer that this kind cannot read.
    """
    read = None if answer is None or isinstance(answer, bool) else parse_answer(str(answer), kind)
    if read is None:
        raise ValueError(
            f"gold answer {str(answer)[:80]!r} is not readable as {kind!r}: correct it, or give "
            "the question another kind, such as 'text'"
        )
    return read


MAX_REMEMBERED_CHARS = 256
_short_gold = lru_cache(maxsize=16_384)(read_gold)


def gold(answer: str, kind: str) -> Answer:
    """Return the result of :func:`read_gold`, cached where the answer is short.

    What is remembered takes some 35 MB at most, whoever chooses the answers.
    """
    return (_short_gold if len(answer) <= MAX_REMEMBERED_CHARS else read_gold)(answer, kind)


def answers_equal(a: Answer | None, b: Answer | None) -> bool:
    """Return whether two read answers are the same; None equals nothing, None included."""
    return a is not None and b is not None and a == b


def last_line_answer(text: str, marker: str = "A:") -> int | Fraction | None:
    """Return the number after `marker`, which must open the last non-empty line; else None."""
    return None if (marked := _last_line(text, marker)) is None else _read_number(marked)


def _last_line(text: str, marker: str = "A:") -> str | None:
    """Return the text after `marker` on the last line that is not blank, or None."""
    line = text.rstrip().rpartition("\n")[2].strip()
    return line.removeprefix(marker) if line.startswith(marker) else None


def last_box(text: str) -> str | None:
    r"""Return the content of the last complete `\boxed{...}`, outermost if nested, or None."""
    first = text.find("\\boxed")
    text = text[first : text.rfind("}") + 1] if first >= 0 else ""
    if plain := _PLAIN_BOX.fullmatch(text):
        return plain[1]  # the usual message: one box, no other brace behind its opening
    if not text:
        return None
    bare = text.replace("\\{", "  ").replace("\\}", "  ")
    codes = np.frombuffer(bare.encode("ascii", "replace"), dtype=np.uint8)  # one per character
    depths = np.cumsum((codes == ord("{")).astype(np.int8) - (codes == ord("}")), dtype=np.int32)
    boxes = _box_braces(codes)
    lowest_ahead = np.minimum.accumulate(depths[::-1])[::-1]
    complete = boxes[lowest_ahead[boxes] < depths[boxes]]
    if complete.size == 0:
        return None
    # The outermost box around the last complete one: no brace between the two leaves it.
    lowest_between = np.minimum.accumulate(depths[complete[-1] :: -1])[::-1]
    start = int(complete[lowest_between[complete] >= depths[complete]][0])
    end = start + int(np.argmax(depths[start:] < depths[start]))
    return text[start + 1 : end]


def _box_braces(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    r"""Positions of the braces after `\boxed`, in characters of a text that starts with it."""
    braces = np.flatnonzero(codes == ord("{"))
    name_ends = braces - np.isin(codes[braces - 1], _BLANKS)
    is_box = np.ones(len(braces), dtype=np.bool_)
    for back, letter in enumerate(b"dexob\\", start=1):
        is_box &= codes[name_ends - back] == letter
    return braces[is_box]


def extract_program(text: str, name: str = "") -> str | None:
    """Return the program of a message, or None.

    Args:
        text: the agent's own message. Any characters.
        name: of a function that the program should define or import, if several blocks are there.
    """
    found = _find_program(text, name)
    return None if found is None else _read_code(found)


def _find_program(text: str, name: str = "") -> str | None:
    """The block that is most likely the program, or the last box of a message without a fence."""
    try:
        blocks = code_blocks(text)
    except TooMuchMarkdown:
        return None
    return program_among(blocks, name) if blocks else last_box(text)


def _read_number(text: str) -> int | Fraction | None:
    text = text.strip()
    if len(text) > MAX_CHARS:
        return None
    if text.isascii() and text.isdigit():  # most answers; the rest gives the same, more slowly
        return int(text)
    number = _NUMBER.fullmatch(text) or _NUMBER.fullmatch(_without_latex(text))
    if number is None:
        return None
    value = _exact(number["top"])
    if number["bottom"]:
        bottom = _exact(number["bottom"])
        if bottom == 0:
            return None
        value /= bottom
    if "-" in (number["sign"], number["inner_sign"]):
        value = -value
    return value.numerator if value.denominator == 1 else value


def join_thousands(text: str) -> str:
    r"""Return a text with `12\,000` as `12000`; groups of other sizes are not joined.

    Spaces of LaTeX get their short form (`\thinspace` is `\,`), and negative ones vanish.
    """
    return _GROUPED.sub(lambda found: _NO_DIGITS.sub("", found[0]), _plain_spaces(text))


def _plain_spaces(text: str) -> str:
    if "\\" not in text:
        return text
    text = _NAMED_SPACE.sub(_short_space, text).replace(r"\!", "")
    return _BRACED_GROUP.sub(lambda found: re.sub(r"[{}]", "", found[0]), text)


def _short_space(named: re.Match[str]) -> str:
    return " " if named[1] is None else _SPACES.get(named[1], "")


def _without_latex(text: str) -> str:
    text = join_thousands(text)
    for spelling, plain in _LATEX_SPELLINGS:
        text = text.replace(spelling, plain)
    return _FRAC.sub(_plain_fraction, _unwrap(text)).strip()


def _plain_fraction(frac: re.Match[str]) -> str:
    r"""`\frac{a}{b}` as ` a/b `; the spaces keep its digits apart from neighbouring ones."""
    return f" {frac[1].strip('{}')}/{frac[2].strip('{}')} "


def _exact(magnitude: str) -> Fraction:
    plain = magnitude.replace(",", "")
    return (_without_dust(plain) if len(plain) >= FLOAT_DIGITS else None) or Fraction(plain)


def _without_dust(decimal: str) -> Fraction | None:
    """Return the short decimal that a float with rounding errors stands for, if there is one.

    0.1 + 0.2 is written 0.30000000000000004 and stands for 0.3, 100 / 3 is written
    33.333333333333336. None for what is no such float, or is near no short decimal or fraction.
    """
    whole, _, places = decimal.partition("e")[0].partition(".")
    value = float(decimal)
    many = len(places) >= FLOAT_PLACES and len((whole + places).strip("0")) >= FLOAT_DIGITS
    if not many or repr(value) != decimal:
        return None
    exact, dust = Fraction(value), DUST * Fraction(math.ulp(value))
    for plain in (Fraction(format(value, ".10g")), exact.limit_denominator(10_000)):
        if abs(plain - exact) <= dust:
            return plain
    return None


def _unwrap(text: str) -> str:
    r"""Strip spaces and whole wrappers, such as `\text{...}`, from outside in."""
    text = _trim(text)
    for _ in range(MAX_WRAPPERS):
        wrapper = _WRAPPER.fullmatch(text)
        inner = wrapper and next(inner for inner in wrapper.groups() if inner is not None)
        if inner is None or not _is_whole(inner):
            break
        text = _trim(inner)
    return text


def _trim(text: str) -> str:
    text = text.strip()
    if "\\" in text[:1] + text[-2:]:
        text = _SPACES_AHEAD.sub("", text, count=1)
        text = _SPACES_BEHIND.sub("", text[::-1], count=1)[::-1]
    return text.strip()


def _is_whole(inner: str) -> bool:
    r"""Whether one wrapper encloses this text; not so are `a} \text{b` and `a$ or $b`."""
    dollars = inner.replace("\\$", "").count("$")
    if dollars > 1 and not (inner.startswith("$") and inner.endswith("$")):
        return False
    bare = inner.replace("\\\\", "  ").replace("\\{", "  ").replace("\\}", "  ")
    codes = np.frombuffer(bare.encode("ascii", "replace"), dtype=np.uint8)
    depths = np.cumsum((codes == ord("{")).astype(np.int8) - (codes == ord("}")), dtype=np.int32)
    whole = depths.size == 0 or (depths.min() >= 0 and depths[-1] == 0)
    return bool(whole) and not bare.endswith("\\")


def _read_word(text: str) -> str:
    plain = "" if len(text.strip()) > MAX_CHARS else _unwrap(_plain_spaces(text))
    return plain.strip(" .,;:!\"'`*_()").lower()


def _read_label(text: str) -> str | None:
    return word if (word := _read_word(text)) in NLI_LABELS else None


def _read_choice(text: str) -> str | None:
    word = _read_word(text)
    return word.upper() if len(word) == 1 and word in CHOICES.lower() else None


def _read_phrase(text: str) -> str | None:
    plain = _read_text(text) or ""
    words = plain.lower().translate(_NO_PUNCTUATION).split() if len(plain) <= MAX_CHARS else []
    return " ".join(w for w in words if w not in ("a", "an", "the")) or " ".join(words) or None


def _read_text(text: str) -> str | None:
    text = _unwrap(text)
    if "{" in text and len(text) <= MAX_CHARS and not _PIECE.sub("", text):
        text = "".join(" " if piece[2] else piece[1] for piece in _PIECE.finditer(text)).strip()
    for mark in "_&#%$":
        text = text.replace("\\" + mark, mark)
    return text or None


def _read_code(text: str) -> str | None:  # the first line's indentation has a meaning
    return text.strip("\r\n").rstrip() or None


@dataclass(frozen=True)
class AnswerKind:
    """The functions that find answers of one kind in a message and read them.

    `read` turns a bare answer into its value, or None; `find` returns the marked part of a message,
    or None. `keyed`: whether being right means being equal to the gold answer (not so programs).
    """

    read: Reader
    find: Finder = last_box
    keyed: bool = True


KINDS: dict[str, AnswerKind] = {
    "number": AnswerKind(_read_number),
    "nli": AnswerKind(_read_label),
    "text": AnswerKind(_read_text),
    "code": AnswerKind(_read_code, find=_find_program, keyed=False),
    "choice": AnswerKind(_read_choice),
    "phrase": AnswerKind(_read_phrase),
    "last_line": AnswerKind(_read_number, find=_last_line),
    "answer_line": AnswerKind(_read_number, find=answer_line),
    "scored": AnswerKind(
        lambda text: _read_text(text) if (n := _read_number(text)) is None else n, keyed=False
    ),
}


def _kind(name: str) -> AnswerKind:
    if name not in KINDS:
        raise ValueError(f"unknown answer kind {name!r}: choose one of {', '.join(KINDS)}")
    return KINDS[name]
