"""A debate as a picture, for videos and notebooks: one column per agent, one row per turn.

All pictures of one debate have the same size. The newest turns are shown, each message with its
score on a coloured bar (green 1, red 0, grey where there is none); of a message that does not fit
its cell the beginning and the last line are shown. Agents' text is made harmless as in `rendering`,
and what the font cannot draw is shown as an escape. Needs Pillow: `pip install 'maporl[render]'`.
"""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maporl_env.missing_extra import missing_extra
from maporl_env.rendering.plain_text import harmless
from maporl_env.types import Message, Question, Transcript

Picture = NDArray[np.uint8]
Color = tuple[int, int, int]

FONT_SIZE = 15  # pixels
LINE = 19  # height of a line, pixels
MARGIN = 10
QUESTION_LINES = 4
CELL_LINES = 8
MAX_ROWS = 3
WHITE: Color = (255, 255, 255)
PAPER: Color = (246, 246, 242)
INK: Color = (34, 34, 34)
FAINT: Color = (120, 120, 120)
UNSCORED: Color = (170, 170, 170)
WRONG: Color = (192, 57, 43)
RIGHT: Color = (39, 140, 78)
TYPOGRAPHY = {
    **dict.fromkeys("\u2018\u2019", "'"),
    **dict.fromkeys("\u201c\u201d", '"'),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"),
    "\u00a0": " ",
    "\u00d7": "x",
    "\u2026": "...",
}
"""ASCII for signs that print as others write them; a font may lack them."""


def picture(transcript: Transcript, num_turns: int) -> Picture:
    """Return the published messages as a picture, (height, width, 3) uint8.

    Args:
        transcript: the question and its messages.
        num_turns: the horizon T; together with the number of agents it sets the size.

    Raises:
        ImportError: Pillow is missing; the sentence names the extra.
    """
    width, height, cell_width = _size(len(transcript.agents), num_turns)
    canvas = _pillow("Image").new("RGB", (width, height), PAPER)
    draw = _pillow("ImageDraw").Draw(canvas)
    _draw_question(draw, transcript.question, width)
    begun = transcript.messages[-1].turn + 1 if transcript.messages else 0
    first = max(0, begun - MAX_ROWS)
    for message in transcript.messages[len(transcript.until(first).messages) :]:
        agent = transcript.agents.index(message.agent)
        row_top = _top() + (message.turn - first) * _cell_height()
        _draw_message(draw, message, MARGIN + agent * (cell_width + MARGIN), row_top, cell_width)
    return np.array(canvas, dtype=np.uint8)


def require_pillow() -> None:
    """Raise the ImportError of :func:`picture` now rather than later."""
    _pillow("Image")


def _size(num_agents: int, num_turns: int) -> tuple[int, int, int]:
    """Return width and height of the picture and width of a cell, in pixels."""
    cell = max(200, min(380, 1200 // num_agents))
    width = max(640, MARGIN + num_agents * (cell + MARGIN))
    return width, _top() + min(num_turns, MAX_ROWS) * _cell_height(), cell


def _top() -> int:
    return 2 * MARGIN + (QUESTION_LINES + 1) * LINE


def _cell_height() -> int:
    return (CELL_LINES + 1) * LINE + 2 * MARGIN


def _draw_question(draw: Any, question: Question, width: int) -> None:
    [name] = _wrap(question.id, width - 2 * MARGIN, 1)
    draw.text((MARGIN, MARGIN), name, fill=FAINT, font=_font())
    for row, line in enumerate(_wrap(question.prompt, width - 2 * MARGIN, QUESTION_LINES)):
        draw.text((MARGIN, MARGIN + (row + 1) * LINE), line, fill=INK, font=_font())


def _draw_message(draw: Any, message: Message, left: int, top: int, width: int) -> None:
    right, bottom = left + width, top + _cell_height() - MARGIN
    draw.rectangle((left, top, right, bottom), fill=WHITE)
    draw.rectangle((left, top, right, top + LINE + 2), fill=_color(message.score))
    score = "" if message.score is None else f"  score {message.score:.2f}"
    heading = f"turn {message.turn + 1}  {message.agent}{score}"
    [heading] = _wrap(heading, width - MARGIN, 1)
    draw.text((left + 5, top + 2), heading, fill=WHITE, font=_font())
    for row, line in enumerate(_wrap(message.text, width - MARGIN, CELL_LINES)):
        draw.text((left + 5, top + 7 + (row + 1) * LINE), line, fill=INK, font=_font())


def _color(score: float | None) -> Color:
    """Return the mixture of WRONG and RIGHT that a score is."""
    if score is None:
        return UNSCORED
    red, green, blue = (
        round(w + score * (r - w)) for w, r in zip(WRONG, RIGHT, strict=True)
    )  # fmt: skip
    return red, green, blue


def _wrap(text: str, width: int, max_lines: int) -> list[str]:
    """Break text into at most `max_lines` lines of at most `width` pixels, at least one.

    The beginning is kept and, where there is room for both, the last line, since answers stand
    there. Looks at no more characters than could fit, so a megabyte costs no more than a page.
    """
    text = text.strip()
    room = max_lines * width  # no character is narrower than a pixel
    lines = _fold_all(text[:room], width)
    if len(lines) <= max_lines and len(text) <= room:
        return lines
    if max_lines > 2:
        return [*lines[: max_lines - 2], "...", _fold_all(text[-width:], width)[-1]]
    last = lines[max_lines - 1]
    while last and _font().getlength(last + "...") > width:
        last = last[:-1]
    return [*lines[: max_lines - 1], last + "..."]


def _fold_all(text: str, width: int) -> list[str]:
    """Break harmless text into lines."""
    shown = _drawable(harmless(text).expandtabs(4))
    return [line for paragraph in shown.split("\n") for line in _fold(paragraph, width)]


def _fold(paragraph: str, width: int) -> list[str]:
    """Break one paragraph at blanks, or where a word is too long, inside it."""
    lines = []
    rest = paragraph
    while rest:
        end = _fitting(rest, width)
        if end < len(rest):
            blank = rest.rfind(" ", 1, end + 1)
            end = blank if blank > 0 else end
        lines.append(rest[:end].rstrip())
        rest = rest[end:].lstrip(" ")
    return lines or [""]


def _fitting(text: str, width: int) -> int:
    """Return the number of leading characters that fit into `width` pixels, at least 1."""
    used = 0.0
    for index, character in enumerate(text):
        used += _advance(character)
        if used > width:
            return max(1, index)
    return len(text)


@lru_cache(maxsize=4096)
def _advance(character: str) -> float:
    return float(_font().getlength(character))


def _drawable(text: str) -> str:
    """Return `text` with every character that the font has no glyph for spelled in ASCII."""
    return "".join([c if c.isascii() or _has_glyph(c) else _spelled(c) for c in text])


def _spelled(character: str) -> str:
    return TYPOGRAPHY.get(character) or character.encode("unicode_escape").decode("ascii")


@lru_cache(maxsize=4096)
def _has_glyph(character: str) -> bool:
    missing = _font().getmask("\U0010fffd")  # a private character: no font has it
    drawn = _font().getmask(character)
    return bool(drawn.size != missing.size or bytes(drawn) != bytes(missing))


@lru_cache(maxsize=1)
def _font() -> Any:
    """Return Pillow's own font, with the layout that never reorders text."""
    fonts = _pillow("ImageFont")
    font = fonts.load_default(FONT_SIZE)
    return font.font_variant(layout_engine=fonts.Layout.BASIC)


def _pillow(module: str) -> Any:
    try:
        return importlib.import_module(f"PIL.{module}")
    except ImportError:
        raise ImportError(missing_extra("render_mode='rgb_array'", "Pillow", "render")) from None
