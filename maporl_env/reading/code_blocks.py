"""Fenced code in Markdown, found by CommonMark's rules with the parser markdown-it-py.

Fences may be of backticks or tildes, stand in lists and quotes, and be indented with their content.
Two rules of CommonMark are left out, so that a program is found where a reader sees one: raw HTML
hides no fence (as a line `</think>` directly above one would), and a block that never closes is
not complete, because the message was cut off there.

Reading takes bounded time: a message is refused beyond `MAX_CHARS`, or when its structure outside
code costs more than `MAX_STEPS` attempts to begin a block (a line of text costs one or two).

`program_among` chooses the program of a message: of the complete blocks whose language is Python or
not given, the last one that defines a function or class; if none does, the last one marked as
Python; else the last one. `bindings` tells which of several programs give a name a value.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock

MAX_CHARS = 150_000  # of a message with fences, and so of a program in it
MAX_STEPS = 10_000
MAX_PARSED = 20_000  # characters of the programs of a message whose syntax trees are made
MAX_NESTING = 10  # a list counts twice: itself and its item
_PYTHON = re.compile(r"(?:[ic]?python|py)[0-9.]*|python_code|tool_code|.+\.py")
_DEFINER = re.compile(r"^(?:async[ \t]+def|def|class)[ \t]|^\w+[ \t]*=[ \t]*lambda\b", re.MULTILINE)
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


def program_among(blocks: Sequence[Block], name: str = "") -> str | None:
    """Return the complete block that is most likely the program; None if none is Python.

    Args:
        blocks: of a message, in order.
        name: of a function that the program should define or import.
    """
    python = [
        block
        for block in blocks
        if block.complete and (block.language == "" or _PYTHON.fullmatch(block.language))
    ]
    best: tuple[tuple[int, bool, bool], str] | None = None
    bound = bindings([block.content for block in python], name)
    for block, binds in zip(python, bound, strict=True):
        defines = bool(_DEFINER.search(block.content))
        rank = (binds, defines, defines or block.language != "")
        if best is None or rank >= best[0]:
            best = rank, block.content
    return None if best is None else best[1]


_DEFINES = r"^(?:async[ \t]+def|def|class)[ \t]+{name}\b|^{name}[ \t]*(?::[^=\n]*)?=(?!=)"
_OWN_NAMES = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def bindings(programs: list[str], name: str) -> list[int]:
    """Return each program's binding of a name: 2 by a definition or assignment, 1 else, or 0.

    Else is an import, or the variable of a loop or of `with`. A plain definition is found in any
    text; others only where the program is Python, and in no more than `MAX_PARSED` characters.
    """
    if not name:
        return [0] * len(programs)
    plain = re.compile(_DEFINES.format(name=re.escape(name)), re.MULTILINE)
    found, left = [], MAX_PARSED
    for program in programs:
        bound = 2 if plain.search(program) else 0
        if not bound and name in program and len(program) <= left:
            left -= len(program)
            bound = _parsed_binding(program, name)
        found.append(bound)
    return found


def _parsed_binding(program: str, name: str) -> int:
    try:
        nodes: list[ast.AST] = [ast.parse(program)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return 0
    best = 0
    while nodes:
        node = nodes.pop()
        best = max(best, _bound_by(node, name))
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, *_OWN_NAMES)):
            nodes.extend(ast.iter_child_nodes(node))
    return best


def _bound_by(node: ast.AST, name: str) -> int:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return 2 * (node.name == name)
        case ast.Assign(targets=targets):
            stored = [part for target in targets for part in ast.walk(target)]
            return 2 * any(_stores(part, name) for part in stored)
        case ast.AnnAssign(target=target, value=ast.expr()):
            return 2 * _stores(target, name)
        case ast.For(target=target) | ast.AsyncFor(target=target):
            return int(any(_stores(part, name) for part in ast.walk(target)))
        case ast.withitem(optional_vars=ast.expr() as target):
            return int(any(_stores(part, name) for part in ast.walk(target)))
        case ast.alias():
            return int((node.asname or node.name.partition(".")[0]) == name)
    return 0


def _stores(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name


def _make_parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"maxNesting": MAX_NESTING})
    parser.core.ruler.enableOnly(["block"])  # blocks alone, no inline text
    parser.block.ruler.disable(["html_block", "reference"])
    parser.block.ruler.before(
        "code", "count_step", _count_step, {"alt": ["paragraph", "blockquote", "list"]}
    )
    return parser


_PARSER = _make_parser()
