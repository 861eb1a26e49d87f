r"""Free text as it is typed in a shell: what an escape such as \n means, and texts of dashes.

A shell hands on `"\n\n"` as four characters, which no model writes. Fields of the type `Typed` read
escapes on the command line, and there alone: in YAML and in Python a text is what it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated

from tyro.constructors import PrimitiveConstructorSpec

FLAGS = frozenset({"sampling.stop", "sampling.agent-stop", "game.personas", "stop", "agent-stop"})
"""Flags whose values are free text; the last two are those of `maporl verifier data`."""

_NAMED = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}
_ESCAPE = re.compile(r"\\(?:([nrt\\])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4}))")
_FLAG = re.compile("--[a-z]")
_LATEX = re.compile(
    r"\\(nabla|ne|nearrow|neg|neq|newline|nexists|ni|noindent|nolimits|nonumber|not|notin|nu"
    r"|rangle|rbrace|rceil|ref|renewcommand|rfloor|rho|right|rightarrow|rm|root"
    r"|tag|tan|tanh|tau|text|textbf|textit|textrm|texttt|tfrac|theta|thinspace|tilde|times|to|top"
    r"|triangle)(?![A-Za-z])"
)
"""Commands of LaTeX that begin as an escape does."""


def read(text: str) -> str:
    r"""Return a text with \n, \r, \t, \xHH, \uHHHH and \\ replaced; other backslashes stay.

    Raises:
        ValueError: a command of LaTeX could be meant as well (\text, \nabla), or half a character.
    """
    return _ESCAPE.sub(_character, text)


def _character(escape: re.Match[str]) -> str:
    name, short, long = escape.groups()
    if word := _LATEX.match(escape.string, escape.start()):
        raise ValueError(
            f"{word[0]} may be a command of LaTeX, which is typed \\{word[0]}, or the character "
            f"\\{name} before {word[1][1:]!r}, which is typed "
            f"\\x{ord(_NAMED[name]):02x}{word[1][1:]}"
        )
    if name:
        return _NAMED[name]
    code = int(short or long, 16)
    if 0xD800 <= code < 0xE000:
        raise ValueError(f"{escape[0]} is half a character: type the character itself")
    return chr(code)


def spell(text: str) -> str:
    """Return the typed form of a text; the inverse of :func:`read`."""
    typed = text.replace("\\", r"\\")
    for name in "nrt":
        before_letter = re.compile(_NAMED[name] + "(?=[A-Za-z])")
        typed = before_letter.sub(rf"\\x{ord(_NAMED[name]):02x}", typed)
        typed = typed.replace(_NAMED[name], "\\" + name)
    return r"\x2d" + typed[1:] if typed.startswith("-") else typed


Typed = Annotated[
    str,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="TEXT",
        instance_from_str=lambda words: read(words[0]),
        is_instance=lambda value: isinstance(value, str),
        str_from_instance=lambda text: [spell(text)],
    ),
]
"""A text that may have escapes where it is a flag."""


def prepared(given: Sequence[str]) -> list[str]:
    r"""Return arguments in which no free text can be taken for a flag.

    A dash in front is spelt \x2d. The parser would drop "--" without a word, as the end of the
    options, and refuse others.

    Raises:
        ValueError: a free text that could be read in two ways; see :func:`read`.
    """
    return [_prepared(word) if flag in FLAGS else word for flag, word in _flagged(given)]


def _prepared(word: str) -> str:
    read(word)
    is_flag = _FLAG.match(word) or word == "-h"
    return r"\x2d" + word[1:] if word.startswith("-") and not is_flag else word


def _flagged(given: Sequence[str]) -> Iterator[tuple[str, str]]:
    flag = ""
    for word in given:
        if _FLAG.match(word):
            flag = word[2:].partition("=")[0].replace("_", "-")
        yield flag, word
