"""Fenced code in Markdown, found by CommonMark's rules with the parser markdown-it-py.

Fences may be of backticks or tildes, stand in lists and quotes, and be indented with their content.
Two rules of CommonMark are left out, so that a program is found where a reader sees one: raw HTML
hides no fence (as a line `</think>` directly above one would), and a block that never closes is
not complete, because the message was cut off there.

Reading takes bounded time: a message is refused beyond `MAX_CHARS`, or when its structure outside
code costs more than `MAX_STEPS` attempts to begin a block (a line of text costs one or two).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock

MAX_CHARS = 200_000  # of a message with fences; a program of it may have 150,000
MAX_STEPS = 10_000
MAX_NESTING = 10  # a list counts twice: itself and its item
_LANGUAGE = re.compile(r"[\s{.]*([^\s,:;{}]*)")


class TooMuchMarkdown(ValueError):
    """A message is too long or too intricate to be read."""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block.

    Attributes:
        language: the first word behind the opening fence, in lower case; "" without one.
        content: what stands between the fences, without their indentation.
        complete: whether a closing fence was written.
    """

    language: str
    content: str
    complete: bool


def code_blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a message, in order.

    Raises:
        TooMuchMarkdown: beyond the bounds of this module.
    """
    if "```" not in text and "~~~" not in text:
        return []
    if len(text) > MAX_CHARS:
        raise TooMuchMarkdown(f"a message with code has more than {MAX_CHARS} characters")
    lines = text.replace("\r\n", "\n").replace("\r", "\n") + "\n"
    return [
        Block(_language(token.info), token.content, _closes(token.map, token.content))
        for token in _PARSER.parse(lines, {})
        if token.type == "fence"
    ]


def _language(info: str) -> str:
    found = _LANGUAGE.match(info)
    return found[1].lower() if found else ""


def _closes(lines: list[int] | None, content: str) -> bool:
    """Whether more lines belong to a block than its opening fence and its content."""
    return lines is not None and lines[1] - lines[0] > 1 + content.count("\n")


def _count_step(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A rule that begins no block, tried before all others: it bounds the work."""
    state.env["steps"] = state.env.get("steps", 0) + 1
    if state.env["steps"] > MAX_STEPS:
        raise TooMuchMarkdown(f"a message takes more than {MAX_STEPS} steps to read")
    return False


def _make_parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"maxNesting": MAX_NESTING})
    parser.core.ruler.enableOnly(["block"])  # blocks alone, no inline text
    parser.block.ruler.disable(["html_block", "reference"])
    parser.block.ruler.before(
        "code", "count_step", _count_step, {"alt": ["paragraph", "blockquote", "list"]}
    )
    return parser


_PARSER = _make_parser()
